"""Multi-layer perceptrons with scikit-learn's parameters, and more."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin, _fit_context
from sklearn.callback import with_callbacks
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target

from xpnet.estimators.base import NetworkEstimator
from xpnet.estimators.classifier import NetworkClassifier
from xpnet.estimators.rules import HalfSquaredError
from xpnet.nn import PoissonDeviance
from xpnet.nn.losses import Loss

__all__ = ["MLPClassifier", "MLPRegressor"]


def _is_stochastic(estimator: NetworkEstimator) -> bool:
    if estimator.solver == "lbfgs":
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. "
            f"{estimator.solver} is not stochastic."
        )
    return True


class _MultiLayerPerceptron(NetworkEstimator):
    """What the classifier and the regressor share."""

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Fit the network to samples and their classes or numbers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_outputs)
            Classes, numbers or strings; or for several labels a matrix of 0 and 1. In regression
            the numbers to be predicted.
        sample_weight : array-like of shape (n_samples,), optional
            How much each sample counts, at least 0.
        X_val, y_val, sample_weight_val : like X, y and sample_weight, optional
            Samples that are evaluated after each epoch and not trained on. With
            ``early_stopping=True`` they are what it watches, and no part of ``X`` is set aside.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, validation=(X_val, y_val, sample_weight_val))


class MLPClassifier(_MultiLayerPerceptron, NetworkClassifier):
    """Multi-layer perceptron for classification, a drop-in replacement of scikit-learn's.

    Hidden layers ``A = f(X W + b)`` and a softmax, or for two classes and for several labels at
    once a sigmoid, are fitted by minimising the cross-entropy with an L2 penalty, ``J = (sum_i w_i
    l_i + alpha / 2 sum W^2) / sum_i w_i`` over each minibatch.

    All parameters of :class:`sklearn.neural_network.MLPClassifier` have its names, meanings and
    defaults, and the same ``random_state`` draws the same weights, split and order of the samples:
    with these alone the result is scikit-learn's but for rounding. Those after ``max_fun`` are new.

    Parameters
    ----------
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Units of the hidden layers. Without any the model is logistic regression.
    activation : str, dict, Activation, or a list with one for each hidden layer, default="relu"
        What a hidden layer applies to ``X W + b``: scikit-learn's ``"identity"``, ``"logistic"``,
        ``"tanh"`` and ``"relu"``; any name known to :class:`xpnet.nn.Activation`, such as
        ``"gelu_tanh"`` or ``"elu"``; a table of one's options; or one of your own.
    solver : {"adam", "sgd", "lbfgs"}, default="adam"
        ``"adam"`` in the form with epsilon-hat, ``"sgd"`` with momentum, both on minibatches; or
        SciPy's L-BFGS on all samples at once, in float64.
    alpha : float, default=0.0001
        Coefficient of the L2 penalty on the weights; biases have none. It is divided by the number
        of samples of the batch, or the sum of their weights.
    batch_size : int or "auto", default="auto"
        Samples in a minibatch; ``"auto"`` is 200, or all where there are fewer.
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        Of ``solver="sgd"``: as it is; divided by ``(t + 1)^power_t`` after ``t`` samples, from the
        second epoch on; or divided by 5 where training has stopped improving, down to 1e-6.
    learning_rate_init : float, default=0.001
    power_t : float, default=0.5
    max_iter : int, default=200
        Most epochs, or iterations of L-BFGS.
    shuffle : bool, default=True
        Whether each epoch visits the samples in a new order.
    random_state : int, RandomState instance or None, default=None
        What weights, the split for early stopping, the order of samples and dropout are drawn from.
    tol : float, default=1e-4
        By how much the loss, or the validation score, must improve.
    verbose : bool, default=False
        Whether to print each epoch's loss.
    warm_start : bool, default=False
        Whether to go on from the last fit's weights.
    momentum : float, default=0.9
        What is left of the velocity after a step, of ``solver="sgd"``.
    nesterovs_momentum : bool, default=True
    early_stopping : bool, default=False
        Whether to set ``validation_fraction`` of the samples aside, to stop where their score does
        not improve any more, and to keep the weights of the best epoch.
    validation_fraction : float, default=0.1
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of the moments of Adam.
    epsilon : float, default=1e-8
        Added to the uncorrected root of Adam's second moment.
    n_iter_no_change : int, default=10
        Training ends after more epochs than this without an improvement by ``tol``.
    max_fun : int, default=15000
        Most evaluations of L-BFGS.
    device : str, :class:`xpnet.Device` or None, default=None
        Where to compute: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"auto"``; None takes what
        ``XPNET_DEVICE`` says, else the CPU.
    precision : {"float32", "float64", "tf32"} or None, default=None
        What to compute in; None takes the dtype of ``X``, or that of the weights which a fit goes
        on from. ``"tf32"`` is float32 with products in TensorFloat-32, on a GPU.
    dropout : float or array-like of shape (n_layers - 2,), default=0.0
        Probability of dropping a unit of a hidden layer in training.
    batch_norm : bool, default=False
        Whether to normalise each hidden layer over the batch, before its activation.
    initialization : str, dict, Initializer or None, default=None
        How weights are drawn, biases being 0: ``"he_normal"``, ``"xavier_uniform"``, ...;
        ``"auto"`` takes what suits the activation. None draws both as scikit-learn does.
    class_weight : dict, list of dict, "balanced" or None, default=None
        Factors on the weights of samples by their class.
    label_smoothing : float, default=0.0
        In [0, 1): how much of a label is spread over all classes.
    optimizer : str, dict, Optimizer or None, default=None
        An update rule of xpnet's or of your own in place of the solver's. One that is named has the
        learning rate ``learning_rate_init``.
    schedule : str, dict, Schedule or None, default=None
        What becomes of the learning rate, with any optimizer, in place of ``learning_rate``.
    weight_decay : float, default=0.0
        Decoupled weight decay: in each step the weights also lose ``learning_rate weight_decay``
        times themselves.
    max_norm : float or None, default=None
        Longest that a hidden unit's vector of incoming weights may be.
    clip_norm : float or None, default=None
        Largest norm of the gradient; a larger one is scaled down.
    scoring : str, callable or None, default=None
        What early stopping watches: a scorer, by name or as a function of estimator, ``X`` and
        ``y``; ``"loss"`` for the loss on the validation samples, negated; None for the accuracy.
    warm_start_optimizer : bool, default=False
        Whether ``warm_start`` also keeps the optimizer's moments and step count, which scikit-learn
        begins anew.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coefs_, intercepts_ : lists of length n_layers - 1
        Weights (n_in, n_out) and biases (n_out,) of each layer; with ``batch_norm`` those that act
        in prediction, the normalisation folded in. They may be set where there is none.
    network_ : xpnet.nn.Network
        What has been trained: see :func:`xpnet.diagnose`, :func:`xpnet.training.save_network`.
    device_ : str
        Where the last fit was.
    loss_ : float
        The last epoch's, with the penalty.
    best_loss_ : float or None
        The lowest; None with early stopping.
    loss_curve_ : list of length n_iter_
    validation_scores_ : list of length n_iter_ or None
        Scores on validation samples; None where there are none.
    validation_loss_curve_ : list of length n_iter_ or None
        Losses on validation samples, without the penalty.
    best_validation_score_ : float or None
        None without early stopping.
    n_iter_ : int
        Epochs of the last fit.
    t_ : int
        Samples seen, those of each epoch counted anew.
    n_layers_, n_outputs_, n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where ``X`` has names.
    out_activation_ : str

    Notes
    -----
    An estimator that was fitted on a GPU is pickled with its arrays on the host; what is unpickled
    predicts on the CPU, without CuPy, and a later fit goes where ``device`` says.

    With ``batch_norm`` the running variance is that of the batch, not the unbiased one, so that a
    sample of weight 2 is the same as the sample twice. Batch normalisation, dropout and the other
    new parameters of training have no meaning for ``solver="lbfgs"``, which refuses them by name.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, the end of section 2.
    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, equation 16.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from xpnet import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)
    >>> model = MLPClassifier((64,), dropout=0.1, early_stopping=True, random_state=0)
    >>> model.fit(X_train, y_train).score(X_test, y_test) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NetworkEstimator._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    }
    loss = "log_loss"  # the only one; no parameter, as in scikit-learn

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: Any = None,
        precision: str | None = None,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        initialization: Any = None,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        optimizer: Any = None,
        schedule: Any = None,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        clip_norm: float | None = None,
        scoring: Any = None,
        warm_start_optimizer: bool = False,
    ) -> None:
        self._store(locals())

    @available_if(_is_stochastic)
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch on these samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
        sample_weight : array-like of shape (n_samples,), optional
        classes : array of shape (n_classes,), optional
            All classes of all calls; needed in the first, and may be left out in later ones.

        Returns
        -------
        self
        """
        if _check_partial_fit_first_call(self, classes):
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)


class MLPRegressor(RegressorMixin, _MultiLayerPerceptron):
    """Multi-layer perceptron for regression, a drop-in replacement of scikit-learn's.

    Hidden layers ``A = f(X W + b)`` and a linear layer, or under a Poisson loss the exponential of
    one, are fitted by minimising half the squared error, ``l_i = 1 / (2 m) sum_j (Z_ij - Y_ij)^2``
    for m outputs, or half the Poisson deviance, with an L2 penalty.

    All parameters of :class:`sklearn.neural_network.MLPRegressor` have its names, meanings and
    defaults, and the same ``random_state`` gives the same result but for rounding. Those after
    ``max_fun`` are new.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default="squared_error"
        The second is for counts and other numbers of at least 0, with a logarithm as the link.
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
    activation : str, dict, Activation, or a list with one for each hidden layer, default="relu"
    solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle
        As for :class:`MLPClassifier`, as are all that follow.
    random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
    device, precision, dropout, batch_norm, initialization, optimizer, schedule, weight_decay
    max_norm, clip_norm, warm_start_optimizer
    scoring : str, callable or None, default=None
        What early stopping watches; None for the coefficient of determination.

    Attributes
    ----------
    coefs_, intercepts_, network_, device_, loss_, best_loss_, loss_curve_, validation_scores_
        As for :class:`MLPClassifier`, as are all that follow.
    validation_loss_curve_, best_validation_score_, n_iter_, t_, n_layers_, n_outputs_
    n_features_in_, feature_names_in_, out_activation_

    Notes
    -----
    With several outputs the gradient is that of the sum of their squared errors, while the loss
    that is stated is the mean, as in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from xpnet import MLPRegressor
    >>> X, y = make_regression(200, 5, random_state=0)
    >>> MLPRegressor(solver="lbfgs", max_iter=2000, random_state=0).fit(X, y).score(X, y) > 0.99
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NetworkEstimator._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: Any = None,
        precision: str | None = None,
        dropout: Any = 0.0,
        batch_norm: bool = False,
        initialization: Any = None,
        optimizer: Any = None,
        schedule: Any = None,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        clip_norm: float | None = None,
        scoring: Any = None,
        warm_start_optimizer: bool = False,
    ) -> None:
        self._store(locals())

    def _targets(self, y: Any, *, incremental: bool) -> npt.NDArray[Any]:
        del incremental
        columns: npt.NDArray[Any] = y.reshape(len(y), -1)
        return columns

    def _labels(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return targets

    def _loss(self, dtype: np.dtype[Any]) -> Loss:
        del dtype
        return PoissonDeviance() if self.loss == "poisson" else HalfSquaredError()

    def _out_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _onnx_outputs(self) -> dict[str, Any]:
        return {"outputs": "numbers", "link": self.out_activation_}

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Predict numbers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        outputs = self._logits(X)
        if self.out_activation_ == "exp":
            outputs = np.exp(outputs)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    @available_if(_is_stochastic)
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on these samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, incremental=True)
