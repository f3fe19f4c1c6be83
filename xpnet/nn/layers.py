"""The dense layer ``A = f(X W + b)``, with the derivation of its backward pass."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from xpnet.kernels.reference import Array
from xpnet.nn.checks import check_count, check_flag, check_positive
from xpnet.nn.interfaces import Activation, Cache, Initializer, Layer

__all__ = ["Dense"]


class Dense(Layer):
    """Fully connected layer, ``Z = X W + b``, ``A = f(Z)``.

    The backward pass. Let ``L`` be the loss and ``dM`` stand for ``dL/dM``, an array of M's
    shape. Element by element, ``Z_ij = sum_k X_ik W_kj + b_j``, so that

    - ``dZ = dA * f'(Z)``, since ``A_ij`` depends only on ``Z_ij``;
    - ``dW_kj = sum_i X_ik dZ_ij``, that is ``dW = X^T dZ``: every sample contributes;
    - ``db_j = sum_i dZ_ij``: the bias enters every row with derivative 1;
    - ``dX_ik = sum_j dZ_ij W_kj``, that is ``dX = dZ W^T``: every unit passes its share back.

    There is no division by the number of samples here: the loss takes the mean over the batch, so
    ``dA`` already contains the factor.

    Parameters
    ----------
    units : int
        Number of outputs, ``n_out``.
    activation : str, dict or Activation
        Activation function ``f``. Keep ``"identity"`` in the last layer of a classifier, since
        losses take logits.
    init : str, dict or Initializer
        Initializer of ``W``. ``"auto"`` chooses the one that suits the activation: He for the ReLU
        family, Xavier for the rest.
    bias : bool
        Whether to add a bias ``b``.
    bias_init : str, dict or Initializer
        Initializer of ``b``, which is drawn after ``W``.
    max_norm : float or None
        Largest Euclidean norm of a unit's vector of incoming weights, a column of ``W``; a longer
        one is scaled down to it after each update. None for no limit.

    Attributes
    ----------
    W : array (n_in, n_out)
        Weights.
    b : array (n_out,)
        Biases, unless ``bias`` is False.
    dW, db : arrays of the same shapes
        Gradients, overwritten by every backward pass.

    Raises
    ------
    ValueError
        If an argument is out of range or a name is unknown.

    References
    ----------
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: a simple way to prevent
    neural networks from overfitting", JMLR 15, 2014, section 5.1, for ``max_norm``.
    """

    name = "dense"
    W: Array
    b: Array
    dW: Array
    db: Array

    def __init__(
        self,
        units: int,
        activation: Any = "identity",
        *,
        init: Any = "auto",
        bias: bool = True,
        bias_init: Any = "zeros",
        max_norm: float | None = None,
    ) -> None:
        self.units = check_count("units", units)
        self.activation = activation
        self.init = init
        self.bias = check_flag("bias", bias)
        self.bias_init = bias_init
        self.max_norm = None if max_norm is None else check_positive("max_norm", max_norm)
        is_auto = isinstance(init, str) and init == "auto"
        self._f = Activation.resolve(activation).clone()  # one instance may serve many layers
        chosen = Initializer.resolve(self._f.default_init if is_auto else init)
        self._init = chosen.for_activation(self._f)
        self._bias_init = Initializer.resolve(bias_init)
        if not bias and self._bias_init.get_config() != {"type": "zeros"}:
            raise ValueError(f"bias_init must be left out with bias=False, got {bias_init!r}")

    def build(self, n_in: int) -> int:
        """Declare ``W`` and ``b``."""
        self.add_parameter("W", (n_in, self.units), self._init)
        if self.bias:
            self.add_parameter("b", (self.units,), self._bias_init, decay=False)
        self._f._attach(self.device, self.units)
        if self._f._parameters:
            raise ValueError(
                f"activation {self._f!r} has parameters: add it to the network as a separate layer "
                "after this one, with activation='identity' here"
            )
        return self.units

    def _detach(self) -> None:
        super()._detach()
        self._f._detach()

    def allocate(self, cache: Cache, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Create the buffers ``Z`` and ``dX`` and those of the activation."""
        xp = self.xp
        shape_out = (*shape[:-1], self.units)
        cache.Z = xp.empty(shape_out, dtype=dtype)
        cache.f = Cache(**{**vars(cache), "input_gradient": True})
        if self._f.gradient_from == "output":
            cache.f.A = cache.Z  # Z is not needed once A is computed
        self._f.allocate(cache.f, shape_out, dtype)
        if self.max_norm is not None and cache.training:
            cache.squares = xp.empty(self.units, dtype=dtype)
        if cache.input_gradient:
            cache.dX = xp.empty(shape, dtype=dtype)

    def forward(self, X: Array, cache: Cache) -> Array:
        """Compute ``A = f(X W + b)``."""
        ops = self.ops
        cache.X = X
        Z = ops.matmul(X, self.W, out=cache.Z)
        if self.bias:
            return self._f.forward_with_bias(Z, self.b, cache.f)
        return self._f.forward(Z, cache.f)

    def backward(self, dA: Array, cache: Cache) -> Array | None:
        """Write ``dW`` and ``db`` and return ``dX``."""
        ops = self.ops
        if self.bias:
            dZ = self._f.backward_with_bias(dA, cache.f, self.db)
        else:
            dZ = self._f.backward(dA, cache.f).astype(self.W.dtype, copy=False)
        ops.matmul(cache.X.swapaxes(-1, -2), dZ, out=self.dW)
        if not cache.input_gradient:
            return None
        return ops.matmul(dZ, self.W.swapaxes(-1, -2), out=cache.dX)

    @property
    def has_constraint(self) -> bool:
        """Whether there is a ``max_norm``."""
        return self.max_norm is not None

    def constrain(self, cache: Cache) -> None:
        """Scale down the columns of ``W`` whose norm is larger than ``max_norm``."""
        if self.max_norm is not None:
            squares = self.ops.square_sum(self.W, out=cache.squares)
            self.ops.limit_norms(self.W, squares, self.max_norm, out=self.W)
