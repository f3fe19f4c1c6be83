"""Multi-layer perceptrons with scikit-learn's parameters, and more."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target

from xpnet.estimators.base import NetworkEstimator
from xpnet.estimators.classifier import NetworkClassifier
from xpnet.estimators.rules import HalfSquaredError
from xpnet.estimators.scikit import (
    Interval,
    StrOptions,
    _check_partial_fit_first_call,
    _fit_context,
    with_callbacks,
)
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
    """Base class of the classifier and the regressor."""

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
        """Fit the network to training samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training samples.
        y : array-like of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_outputs)
            Class labels, numbers or strings; for multilabel problems a matrix of 0 and 1. For
            regression the target values.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each sample, at least 0. None gives all samples weight 1.
        X_val, y_val, sample_weight_val : like X, y and sample_weight, optional
            Validation samples, evaluated after each epoch and never trained on. With
            ``early_stopping=True`` they are used instead of a part of ``X``.

        Returns
        -------
        self
            The fitted estimator.
        """
        return self._fit(X, y, sample_weight, validation=(X_val, y_val, sample_weight_val))


class MLPClassifier(_MultiLayerPerceptron, NetworkClassifier):
    """Multi-layer perceptron classifier, a drop-in replacement for scikit-learn's.

    The hidden layers compute ``A = f(X W + b)``. The output layer is a softmax, or a sigmoid for
    two classes and for multilabel problems. Training minimises the cross-entropy with an L2
    penalty, ``J = (sum_i w_i l_i + alpha / 2 sum W^2) / sum_i w_i`` over each minibatch.

    Every parameter of :class:`sklearn.neural_network.MLPClassifier` has the same name, meaning and
    default here. The same ``random_state`` draws the same weights, validation split and order of
    samples, so with these parameters only, results equal scikit-learn's up to rounding. The
    parameters after ``max_fun`` are new.

    Parameters
    ----------
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Number of units of each hidden layer. Without hidden layers the model is logistic
        regression.
    activation : str, dict, Activation, or a list with one for each hidden layer, default="relu"
        Activation function of the hidden layers: ``"identity"``, ``"logistic"``, ``"tanh"`` or
        ``"relu"`` as in scikit-learn; any other name of an :class:`xpnet.nn.Activation`, such as
        ``"gelu_tanh"`` or ``"elu"``; a dict of one's options; or an instance, also of your own
        class.
    solver : {"adam", "sgd", "lbfgs"}, default="adam"
        Optimizer of the weights. ``"adam"``, in the epsilon-hat form, and ``"sgd"``, with momentum,
        train on minibatches. ``"lbfgs"`` is SciPy's L-BFGS on all samples at once, in float64.
    alpha : float, default=0.0001
        Strength of the L2 penalty on the weights; biases are not penalised. The penalty is divided
        by the number of samples in the batch, or by the sum of their weights.
    batch_size : int or "auto", default="auto"
        Number of samples in a minibatch. ``"auto"`` is ``min(200, n_samples)``.
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        Learning rate schedule of ``solver="sgd"``. ``"invscaling"`` divides the learning rate by
        ``(t + 1)^power_t`` after ``t`` samples, from the second epoch on. ``"adaptive"`` divides it
        by 5, down to 1e-6, whenever training stops improving.
    learning_rate_init : float, default=0.001
        Initial learning rate of ``"adam"`` and ``"sgd"``.
    power_t : float, default=0.5
        Exponent of ``learning_rate="invscaling"``.
    max_iter : int, default=200
        Maximum number of epochs, or of iterations of L-BFGS.
    shuffle : bool, default=True
        Whether to shuffle the samples in each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the validation split, the order of samples and dropout.
    tol : float, default=1e-4
        Minimum improvement of the loss, or of the validation score with early stopping. See
        ``n_iter_no_change``.
    verbose : bool, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether to start from the weights of the previous fit.
    momentum : float, default=0.9
        Momentum of ``solver="sgd"``: the fraction of the velocity kept after a step.
    nesterovs_momentum : bool, default=True
        Whether ``solver="sgd"`` uses Nesterov's momentum.
    early_stopping : bool, default=False
        Whether to hold out ``validation_fraction`` of the samples, stop when their score no longer
        improves, and keep the weights of the best epoch.
    validation_fraction : float, default=0.1
        Fraction of the samples held out for early stopping.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of Adam's first and second moment.
    epsilon : float, default=1e-8
        Added to the square root of Adam's second moment, without bias correction.
    n_iter_no_change : int, default=10
        Training stops after more consecutive epochs than this without an improvement by ``tol``.
    max_fun : int, default=15000
        Maximum number of function evaluations of L-BFGS.
    device : str, :class:`xpnet.Device` or None, default=None
        Device to compute on: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"``. None uses the
        environment variable ``XPNET_DEVICE``, or the CPU if it is not set.
    precision : {"float32", "float64", "tf32"} or None, default=None
        Precision to compute in. ``"tf32"`` is float32 with matrix products in TensorFloat-32, on a
        GPU. None uses the dtype of ``X`` or, in later fits with ``warm_start`` or ``partial_fit``,
        that of the weights.
    dropout : float or array-like of shape (n_layers - 2,), default=0.0
        Probability of dropping a unit of a hidden layer during training.
    batch_norm : bool, default=False
        Whether to apply batch normalisation in each hidden layer, before its activation.
    initialization : str, dict, Initializer or None, default=None
        Initialisation of the weights, such as ``"he_normal"`` or ``"xavier_uniform"``, with biases
        of 0. ``"auto"`` chooses it by the activation. None draws weights and biases as scikit-learn
        does.
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of the classes, which multiply the sample weights. ``"balanced"`` gives all classes
        the same total weight.
    label_smoothing : float, default=0.0
        Share of each label, in [0, 1), that is spread over all classes.
    optimizer : str, dict, Optimizer or None, default=None
        Optimizer of xpnet, or of your own class, that replaces the solver's. An optimizer given by
        name has the learning rate ``learning_rate_init``.
    schedule : str, dict, Schedule or None, default=None
        Learning rate schedule, for any optimizer. It replaces ``learning_rate``.
    weight_decay : float, default=0.0
        Decoupled weight decay: each step also subtracts ``learning_rate * weight_decay`` times the
        weights from the weights.
    max_norm : float or None, default=None
        Maximum norm of the vector of incoming weights of each hidden unit.
    clip_norm : float or None, default=None
        Maximum norm of the gradient; a larger gradient is scaled down.
    scoring : str, callable or None, default=None
        Score for early stopping: the name of a scorer; a callable with the arguments estimator,
        ``X`` and ``y``; or ``"loss"`` for the negative validation loss. None is the accuracy.
    warm_start_optimizer : bool, default=False
        Whether ``warm_start`` also keeps the optimizer's moments and step count, which scikit-learn
        resets.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    coefs_, intercepts_ : lists of length n_layers - 1
        Weights of shape (n_in, n_out) and biases of shape (n_out,) of each layer. With
        ``batch_norm`` the normalisation is folded into them, and they cannot be set.
    network_ : xpnet.nn.Network
        The trained network. See :func:`xpnet.diagnose` and :func:`xpnet.training.save_network`.
    device_ : str
        Device of the last fit.
    loss_ : float
        Loss of the last epoch, with the penalty.
    best_loss_ : float or None
        Lowest loss; None with early stopping.
    loss_curve_ : list of length n_iter_
        Loss of each epoch.
    validation_scores_ : list of length n_iter_ or None
        Validation score of each epoch; None without validation samples.
    validation_loss_curve_ : list of length n_iter_ or None
        Validation loss of each epoch, without the penalty; None without validation samples.
    best_validation_score_ : float or None
        Best validation score; None without early stopping.
    n_iter_ : int
        Number of epochs of the last fit.
    t_ : int
        Number of samples seen in training; a sample counts once in each epoch.
    n_layers_, n_outputs_, n_features_in_ : int
        Number of layers, including the input, of outputs and of features.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if ``X`` has names that are all strings.
    out_activation_ : str
        Activation function of the output layer.

    Notes
    -----
    An estimator fitted on a GPU is pickled with its arrays on the host. The unpickled estimator
    predicts on the CPU, without CuPy; a later fit uses ``device`` again.

    With ``batch_norm`` the running variance is that of the batch, not the unbiased one, so that a
    sample of weight 2 counts exactly like two copies of it. Parameters such as ``batch_norm`` and
    ``dropout`` do not apply to ``solver="lbfgs"``, which raises an error that names them.

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
    loss = "log_loss"  # the only loss, and not a parameter, as in scikit-learn

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
        """Train for one epoch on the given samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training samples.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Class labels.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each sample, at least 0.
        classes : array of shape (n_classes,), optional
            All classes that occur in any call. Required in the first call, optional later.

        Returns
        -------
        self
            The trained estimator.
        """
        if _check_partial_fit_first_call(self, classes):
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)


class MLPRegressor(RegressorMixin, _MultiLayerPerceptron):
    """Multi-layer perceptron regressor, a drop-in replacement for scikit-learn's.

    The hidden layers compute ``A = f(X W + b)``. The output layer is linear, or the exponential of
    a linear layer with ``loss="poisson"``. Training minimises half the squared error,
    ``l_i = 1 / (2 m) sum_j (Z_ij - Y_ij)^2`` for m outputs, or half the Poisson deviance, with an
    L2 penalty.

    Every parameter of :class:`sklearn.neural_network.MLPRegressor` has the same name, meaning and
    default here, and the same ``random_state`` gives the same result up to rounding. The parameters
    after ``max_fun`` are new.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default="squared_error"
        Loss function. ``"poisson"`` is for counts and other targets >= 0, with a log link.
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Number of units of each hidden layer. Without hidden layers the model is linear.
    activation : str, dict, Activation, or a list with one for each hidden layer, default="relu"
        As for :class:`MLPClassifier`, like all the parameters listed below without a description.
    solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle
    random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
    device, precision, dropout, batch_norm, initialization, optimizer, schedule, weight_decay
    max_norm, clip_norm, warm_start_optimizer
    scoring : str, callable or None, default=None
        As for :class:`MLPClassifier`, except that None is the coefficient of determination, R^2.

    Attributes
    ----------
    coefs_, intercepts_, network_, device_, loss_, best_loss_, loss_curve_, validation_scores_
        As for :class:`MLPClassifier`, like all the attributes listed below.
    validation_loss_curve_, best_validation_score_, n_iter_, t_, n_layers_, n_outputs_
    n_features_in_, feature_names_in_, out_activation_

    Notes
    -----
    With several outputs the gradient is that of the sum of their squared errors, while the reported
    loss is their mean, as in scikit-learn.

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
        """Predict the target values of samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predicted values.
        """
        outputs = self._logits(X)
        if self.out_activation_ == "exp":
            outputs = np.exp(outputs)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    @available_if(_is_stochastic)
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on the given samples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Target values.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each sample, at least 0.

        Returns
        -------
        self
            The trained estimator.
        """
        return self._fit(X, y, sample_weight, incremental=True)
