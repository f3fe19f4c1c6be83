"""Every operation of xpnet as plain array expressions: the specification and the unfused path.

:class:`ReferenceOps` is the table of operations that a device offers when nothing faster is at
hand. Each method states its equation and is correct for NumPy and CuPy alike, because it uses
only names that both share. Faster implementations replace single methods and are tested against
the ones here.

Conventions
-----------
Arrays are batch-major, and the mathematics runs over the last two axes, ``(..., n_samples,
n_features)``: a leading axis stacks independent networks. With ``out`` the result is written
there and returned; without it a new array is returned. ``out`` may be the very array that is
read, never one that overlaps it in part; an array that is changed in place shares memory with no
other. ``<op>_grad`` multiplies an upstream gradient ``dA`` by
the derivative of ``<op>``; it is given whichever of the op's input ``Z`` and output ``A`` states
that derivative best. ``<op>_update`` changes its first arguments in place.

An activation takes the bias in front of it along: with a row ``b`` of shape (..., n_features) it
is applied to ``Z_ij + b_j``. Its gradient, with ``db``, also writes there the gradient of that
bias, ``db_j = sum_i dZ_ij``. A gradient that is stated in the input is given the same ``Z`` and
``b``.

All floating-point arrays of one call have one dtype, float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

from xpnet.kernels.philox import random_words

__all__ = ["Array", "NumpyOps", "ReferenceOps"]

# A NumPy or CuPy array: the two share no base class, and neither may be imported for the other.
Array: TypeAlias = Any

_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_GELU_CUBIC = 0.044715
_BLOCK = 32_768  # parameters that NumPy updates at a time


class ReferenceOps:
    """The operations on one array module.

    Parameters
    ----------
    xp : module
        ``numpy`` or ``cupy``.
    fused : mapping of str to callable, optional
        Faster implementations, by the name of the operation they replace; each has exactly the
        signature of the method here.

    Raises
    ------
    ValueError
        If ``fused`` names an operation that does not exist.
    """

    def __init__(
        self, xp: ModuleType, fused: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self.xp = xp
        self.fused = frozenset(fused or ())
        for name, implementation in (fused or {}).items():
            if name.startswith("_") or not callable(getattr(type(self), name, None)):
                raise ValueError(f"fused: there is no operation named {name!r}")
            setattr(self, name, implementation)

    # Products, sums and the gather of a minibatch.

    def matmul(self, A: Array, B: Array, out: Array | None = None) -> Array:
        """Matrix product, ``out = A @ B`` over the last two axes.

        Transposed views are read as they are, without a copy. ``out`` must be C-contiguous and
        share no memory with ``A`` or ``B``.
        """
        return self.xp.matmul(A, B, out=out)

    def gather(
        self,
        X: Array,
        indices: Array,
        out: Array | None = None,
        divide_by: float | None = None,
    ) -> Array:
        """Rows of a data set, ``out[i] = X[indices[i]]``, divided by a number if one is given.

        Parameters
        ----------
        X : array (n, ...)
        indices : integer array (k,)
            They must lie in ``[0, n)``. Not every device checks that.
        out : array (k, ...), optional
            Of X's dtype; or, where X is uint8, of float32 or float64.
        divide_by : float, optional
            Bytes become numbers this way, ``X[indices[i]] / divide_by``, computed in the dtype of
            ``out``, which must then be given.
        """
        if divide_by is None and (out is None or out.dtype == X.dtype):
            return self._take(X, indices, out)
        if out is None:
            raise ValueError("out must be given with divide_by: its dtype is the result's")
        out[...] = self._take(X, indices, None)
        return out if divide_by is None else self.xp.divide(out, divide_by, out=out)

    def _take(self, X: Array, indices: Array, out: Array | None) -> Array:
        return self.xp.take(X, indices, axis=0, out=out)

    def add_bias(self, Z: Array, b: Array, out: Array | None = None) -> Array:
        """Add one row ``b`` of shape (..., n_features) to every sample, ``out_ij = Z_ij + b_j``."""
        return self.xp.add(Z, b[..., None, :], out=out)

    def bias_grad(self, dZ: Array, out: Array | None = None) -> Array:
        """Sum over the samples, ``db_j = sum_i dZ_ij``.

        A bias reaches every row of ``Z = X W + b`` with derivative 1, so its gradient is the
        sum of the rows of ``dZ``.
        """
        return self.xp.sum(dZ, axis=-2, out=out)

    def mean(self, values: Array, out: Array | None = None) -> Array:
        """Mean over the last axis, which stays with length 1."""
        return self.xp.mean(values, axis=-1, keepdims=True, out=out)

    # Activations and their gradients.

    def sigmoid(self, Z: Array, b: Array | None = None, out: Array | None = None) -> Array:
        """Logistic function, ``1 / (1 + exp(-Z))``, as ``exp(min(Z, 0)) / (1 + exp(-|Z|))``.

        Both exponents are at most 0, so nothing overflows, and the relative accuracy holds
        down to the smallest normal number for negative ``Z``.
        """
        Z = self._biased(Z, b, out)
        xp = self.xp
        return xp.divide(xp.exp(xp.minimum(Z, 0)), 1 + xp.exp(-xp.abs(Z)), out=out)

    def sigmoid_grad(
        self, dA: Array, A: Array, out: Array | None = None, db: Array | None = None
    ) -> Array:
        """``dZ = dA A (1 - A)``, from the output."""
        return self._with_db(self.xp.multiply(dA, A * (1 - A), out=out), db)

    def tanh(self, Z: Array, b: Array | None = None, out: Array | None = None) -> Array:
        """Hyperbolic tangent."""
        Z = self._biased(Z, b, out)
        return self.xp.tanh(Z, out=out)

    def tanh_grad(
        self, dA: Array, A: Array, out: Array | None = None, db: Array | None = None
    ) -> Array:
        """``dZ = dA (1 - A^2)``, from the output, as ``dA (1 - A) (1 + A)``."""
        return self._with_db(self.xp.multiply(dA, (1 - A) * (1 + A), out=out), db)

    def relu(self, Z: Array, b: Array | None = None, out: Array | None = None) -> Array:
        """Rectified linear unit, ``max(Z, 0)``."""
        Z = self._biased(Z, b, out)
        return self.xp.maximum(Z, 0, out=out)

    def relu_grad(
        self, dA: Array, A: Array, out: Array | None = None, db: Array | None = None
    ) -> Array:
        """``dZ = dA [A > 0]``, from the output; the derivative at 0 is 0."""
        return self._with_db(self.xp.multiply(dA, A > 0, out=out), db)

    def leaky_relu(
        self, Z: Array, slope: float, b: Array | None = None, out: Array | None = None
    ) -> Array:
        """``max(Z, 0) + slope min(Z, 0)``."""
        Z = self._biased(Z, b, out)
        xp = self.xp
        return xp.add(xp.maximum(Z, 0), slope * xp.minimum(Z, 0), out=out)

    def leaky_relu_grad(
        self, dA: Array, A: Array, slope: float, out: Array | None = None, db: Array | None = None
    ) -> Array:
        """``dZ = dA`` where ``A > 0``, else ``slope dA``, from the output (``slope >= 0``)."""
        return self._with_db(_store(self.xp.where(A > 0, dA, slope * dA), out), db)

    def elu(
        self, Z: Array, alpha: float, b: Array | None = None, out: Array | None = None
    ) -> Array:
        """``max(Z, 0) + alpha (exp(min(Z, 0)) - 1)``."""
        Z = self._biased(Z, b, out)
        xp = self.xp
        return xp.add(xp.maximum(Z, 0), alpha * xp.expm1(xp.minimum(Z, 0)), out=out)

    def elu_grad(
        self, dA: Array, A: Array, alpha: float, out: Array | None = None, db: Array | None = None
    ) -> Array:
        """``dZ = dA`` where ``A > 0``, else ``dA (A + alpha)``, from the output.

        For ``Z <= 0`` the derivative is ``alpha exp(Z) = A + alpha``; it needs ``alpha > 0``,
        which makes the signs of ``A`` and ``Z`` agree.
        """
        return self._with_db(_store(self.xp.where(A > 0, dA, dA * (A + alpha)), out), db)

    def gelu_tanh(self, Z: Array, b: Array | None = None, out: Array | None = None) -> Array:
        """Gaussian error linear unit in its tanh form.

        ``A = Z/2 (1 + tanh(U))`` with ``U = sqrt(2/pi) (Z + 0.044715 Z^3)``, as ``Z sigmoid(2U)``:
        the two are equal, and the sigmoid keeps the digits that ``1 + tanh`` loses for negative
        ``Z``. As in PyTorch, minus infinity gives nan.
        """
        Z = self._biased(Z, b, out)
        U = _SQRT_2_OVER_PI * (Z + _GELU_CUBIC * Z * Z * Z)
        return self.xp.multiply(Z, self.sigmoid(2 * U), out=out)

    def gelu_tanh_grad(
        self,
        dA: Array,
        Z: Array,
        b: Array | None = None,
        out: Array | None = None,
        db: Array | None = None,
    ) -> Array:
        """Gradient of :meth:`gelu_tanh`, from the input.

        With ``S = sigmoid(2U)``: ``dZ = dA (S + Z S (1 - S) 2 dU/dZ)``, ``dU/dZ = sqrt(2/pi) (1 +
        3 0.044715 Z^2)`` and ``1 - S = sigmoid(-2U)``. From ``|Z| = 20`` on the second term is
        negligible in any precision; clipping it there keeps an overflowing ``Z^3`` from giving
        ``0 * inf``.
        """
        Z = self._biased(Z, b)
        xp = self.xp
        C = xp.clip(Z, -20, 20)
        U = _SQRT_2_OVER_PI * (C + _GELU_CUBIC * C * C * C)
        S = self.sigmoid(2 * U)
        slope = 2 * _SQRT_2_OVER_PI * (1 + 3 * _GELU_CUBIC * C * C)
        return self._with_db(xp.multiply(dA, S + C * S * self.sigmoid(-2 * U) * slope, out=out), db)

    def softplus(self, Z: Array, b: Array | None = None, out: Array | None = None) -> Array:
        """``log(1 + exp(Z))``, as ``max(Z, 0) + log1p(exp(-|Z|))``, which cannot overflow."""
        Z = self._biased(Z, b, out)
        xp = self.xp
        return xp.add(xp.maximum(Z, 0), xp.log1p(xp.exp(-xp.abs(Z))), out=out)

    def softplus_grad(
        self, dA: Array, A: Array, out: Array | None = None, db: Array | None = None
    ) -> Array:
        """``dZ = dA sigmoid(Z)``, from the output: ``sigmoid(Z) = 1 - exp(-A)``."""
        return self._with_db(self.xp.multiply(dA, -self.xp.expm1(-A), out=out), db)

    def softsign(self, Z: Array, b: Array | None = None, out: Array | None = None) -> Array:
        """``Z / (1 + |Z|)``. An infinite ``Z`` gives nan."""
        Z = self._biased(Z, b, out)
        return self.xp.divide(Z, 1 + self.xp.abs(Z), out=out)

    def softsign_grad(
        self,
        dA: Array,
        Z: Array,
        b: Array | None = None,
        out: Array | None = None,
        db: Array | None = None,
    ) -> Array:
        """``dZ = dA / (1 + |Z|)^2``, from the input.

        The output would give ``(1 - |A|)^2``, which loses its digits for large ``Z``.
        """
        Z = self._biased(Z, b)
        xp = self.xp
        return self._with_db(xp.divide(dA, xp.square(1 + xp.abs(Z)), out=out), db)

    def _biased(self, Z: Array, b: Array | None, out: Array | None = None) -> Array:
        return Z if b is None else self.add_bias(Z, b, out=out)

    def _with_db(self, dZ: Array, db: Array | None) -> Array:
        if db is not None:
            self.bias_grad(dZ, out=db)
        return dZ

    # Regularisation.

    def dropout(
        self,
        X: Array,
        rate: float,
        seed: int,
        layer: int,
        step: Array,
        purpose: int,
        out: Array | None = None,
    ) -> Array:
        """Inverted dropout: each element is 0 with probability ``rate``, else ``X / (1 - rate)``.

        The mean of an element is thereby what it was. The map is linear and symmetric, so its
        gradient is the same operation on ``dA``; the same arguments draw the same mask, which
        nothing needs to keep. Element ``i``, in C order, is dropped where word ``i`` of
        :func:`~xpnet.kernels.philox.random_words` is below ``floor(2^32 rate)``: the same
        elements on every device and in every dtype.

        Parameters
        ----------
        X : array
            At most ``2**34`` elements.
        rate : float
            In [0, 1), or a ValueError is raised.
        seed, layer, purpose : int
            What the draw is for; see :func:`~xpnet.kernels.philox.random_words`.
        step : int64 array (1,)
            Changes from step to step.

        References
        ----------
        Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
        JMLR 15, 2014, section 4 and, for the inverted form, section 10.
        """
        if not 0 <= rate < 1:
            raise ValueError(f"rate must lie in [0, 1), got {rate}")
        xp = self.xp
        words = random_words(xp, X.size, seed, layer=layer, step=step, purpose=purpose)
        dropped = words.reshape(X.shape) < xp.uint32(int(rate * 2**32))
        return _store(xp.where(dropped, X.dtype.type(0), (1 / (1 - rate)) * X), out)

    # Losses on logits: the loss of every sample and the gradient of their mean, in one pass.

    def softmax(self, logits: Array, out: Array | None = None) -> Array:
        """``P_ij = exp(Z_ij) / sum_k exp(Z_ik)``.

        Subtracting each row's maximum changes nothing in the quotient and keeps every exponent
        at most 0.
        """
        xp = self.xp
        E = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
        return xp.divide(E, xp.sum(E, axis=-1, keepdims=True), out=out)

    def sigmoid_cross_entropy(
        self, logits: Array, labels: Array, losses: Array, dlogits: Array | None = None
    ) -> None:
        """Binary cross-entropy of each sample, summed over its outputs.

        ``l_i = sum_j softplus(Z_ij) - Y_ij Z_ij``, which is ``-Y log A - (1 - Y) log(1 - A)``
        with ``A = sigmoid(Z)`` put in and simplified; its derivative is ``A - Y``. Computed as
        ``(max(Z, 0) - Y Z) + log1p(exp(-|Z|))``: for a confident positive the bracket is exactly
        0, where ``softplus(Z) - Z`` would cancel to nothing.

        Parameters
        ----------
        logits : array (..., n_samples, n_outputs)
        labels : array of the same shape and dtype
            Probabilities of the positive class, in [0, 1].
        losses : array (..., n_samples)
            Overwritten with ``l``.
        dlogits : array like logits, optional
            Overwritten with the gradient of the mean of ``l``, ``(A - Y) / n_samples``.
        """
        xp = self.xp
        linear = xp.maximum(logits, 0) - labels * logits
        xp.sum(linear + xp.log1p(xp.exp(-xp.abs(logits))), axis=-1, out=losses)
        if dlogits is not None:
            xp.subtract(self.sigmoid(logits), labels, out=dlogits)
            xp.divide(dlogits, logits.shape[-2], out=dlogits)

    def softmax_cross_entropy(
        self, logits: Array, labels: Array, losses: Array, dlogits: Array | None = None
    ) -> None:
        """Cross-entropy of each sample's softmax.

        ``l_i = log sum_k exp(Z_ik) - Z_iy`` with ``y`` the sample's class; its derivative is
        ``P - onehot(y)``.

        Parameters
        ----------
        logits : array (..., n_samples, n_classes)
        labels : integer array (..., n_samples)
            Classes in [0, n_classes); no device checks them.
        losses : array (..., n_samples)
            Overwritten with ``l``.
        dlogits : array like logits, optional
            Overwritten with the gradient of the mean of ``l``, ``(P - onehot) / n_samples``.
        """
        xp = self.xp
        shifted = logits - xp.max(logits, axis=-1, keepdims=True)
        E = xp.exp(shifted)
        total = xp.sum(E, axis=-1, keepdims=True)
        of_label = xp.take_along_axis(shifted, labels[..., None], axis=-1)
        losses[...] = (xp.log(total) - of_label)[..., 0]
        if dlogits is not None:
            onehot = labels[..., None] == xp.arange(logits.shape[-1])
            xp.divide(E, total, out=dlogits)
            xp.subtract(dlogits, onehot, out=dlogits)
            xp.divide(dlogits, logits.shape[-2], out=dlogits)

    # Optimizers. What changes from step to step comes as an array that broadcasts.

    # With weight_decay the first n_decay parameters of a network, its weights, are pulled towards
    # 0: their gradient is grad + weight_decay param, which is that of the loss plus
    # weight_decay / 2 times the sum of their squares.

    def gradient_descent_update(
        self,
        param: Array,
        grad: Array,
        learning_rate: Array,
        weight_decay: Array | None = None,
        n_decay: int = 0,
    ) -> None:
        """``param -= learning_rate grad``.

        Parameters
        ----------
        param : array (..., n)
            Overwritten.
        grad : array like param
        learning_rate : array (..., 1)
        weight_decay : array (..., 1), optional
        n_decay : int
        """
        param -= learning_rate * _decayed(grad, param, weight_decay, n_decay)

    def momentum_update(
        self,
        param: Array,
        grad: Array,
        velocity: Array,
        learning_rate: Array,
        beta: float,
        weight: float,
        weight_decay: Array | None = None,
        n_decay: int = 0,
    ) -> None:
        """``velocity = beta velocity + weight grad``, ``param -= learning_rate velocity``.

        ``weight = 1`` is the classical form (Polyak 1964), ``weight = 1 - beta`` the course's: a
        running average of the gradients.

        Parameters
        ----------
        param, velocity : arrays (..., n)
            Overwritten.
        grad : array like param
        learning_rate : array (..., 1)
        beta, weight : float
        weight_decay : array (..., 1), optional
        n_decay : int

        References
        ----------
        Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
        """
        velocity *= beta
        velocity += weight * _decayed(grad, param, weight_decay, n_decay)
        param -= learning_rate * velocity

    def rmsprop_update(
        self,
        param: Array,
        grad: Array,
        s: Array,
        learning_rate: Array,
        beta: float,
        eps: float,
        weight_decay: Array | None = None,
        n_decay: int = 0,
    ) -> None:
        """``s = beta s + (1 - beta) grad^2``, ``param -= learning_rate grad / (sqrt(s) + eps)``.

        Parameters
        ----------
        param, s : arrays (..., n)
            Overwritten.
        grad : array like param
        learning_rate : array (..., 1)
        beta, eps : float
        weight_decay : array (..., 1), optional
        n_decay : int

        References
        ----------
        Hinton, Srivastava and Swersky, "Neural networks for machine learning", lecture 6e, 2012.
        """
        xp = self.xp
        grad = _decayed(grad, param, weight_decay, n_decay)
        s *= beta
        s += (1.0 - beta) * xp.square(grad)
        param -= learning_rate * grad / (xp.sqrt(s) + eps)

    def adam_tick(
        self,
        step: Array,
        bias1: Array,
        bias2: Array,
        eps: Array,
        beta1: float,
        beta2: float,
        eps_const: float,
        epsilon_hat: bool,
    ) -> None:
        """Advance Adam's step count and what follows from it.

        ``step += 1``, ``bias_k = 1 - beta_k^step``, computed in float64. ``eps`` becomes
        ``eps_const``, or with ``epsilon_hat`` ``eps_const / sqrt(bias2)``, which turns the
        update of Algorithm 1 into the form of section 2.

        Parameters
        ----------
        step : int64 array (..., 1)
        bias1, bias2, eps : arrays (..., 1)
            Overwritten.
        """
        xp = self.xp
        step += 1
        exact2 = 1 - beta2**step
        bias1[...] = 1 - beta1**step
        bias2[...] = exact2
        eps[...] = eps_const / xp.sqrt(exact2) if epsilon_hat else eps_const

    def adam_update(
        self,
        param: Array,
        grad: Array,
        m: Array,
        v: Array,
        learning_rate: Array,
        bias1: Array,
        bias2: Array,
        eps: Array,
        beta1: float,
        beta2: float,
        weight_decay: Array | None = None,
        n_decay: int = 0,
    ) -> None:
        """One step of Adam.

        ``m = beta1 m + (1 - beta1) grad``, ``v = beta2 v + (1 - beta2) grad^2``,
        ``param -= learning_rate (m / bias1) / (sqrt(v / bias2) + eps)``.

        Parameters
        ----------
        param, m, v : arrays of one shape and dtype
            Overwritten.
        grad : array like param
        learning_rate, bias1, bias2, eps : arrays that broadcast against param
        beta1, beta2 : float
            ``1 - beta`` is taken in float64: in float32 ``1 - 0.999`` would be 1e-5 off.
        weight_decay : array (..., 1), optional
        n_decay : int

        References
        ----------
        Kingma and Ba 2015, Algorithm 1.
        """
        xp = self.xp
        grad = _decayed(grad, param, weight_decay, n_decay)
        m *= beta1
        m += (1.0 - beta1) * grad
        v *= beta2
        v += (1.0 - beta2) * xp.square(grad)
        param -= learning_rate * (m / bias1) / (xp.sqrt(v / bias2) + eps)


class NumpyOps(ReferenceOps):
    """The reference operations, where NumPy has a spelling of its own that suits it better."""

    def adam_update(
        self,
        param: Array,
        grad: Array,
        m: Array,
        v: Array,
        learning_rate: Array,
        bias1: Array,
        bias2: Array,
        eps: Array,
        beta1: float,
        beta2: float,
        weight_decay: Array | None = None,
        n_decay: int = 0,
    ) -> None:
        """One step of Adam, block by block: what is computed in between stays in the cache."""
        for start in range(0, param.shape[-1], _BLOCK):
            block = (..., slice(start, start + _BLOCK))
            super().adam_update(
                param[block],
                grad[block],
                m[block],
                v[block],
                learning_rate,
                bias1,
                bias2,
                eps,
                beta1,
                beta2,
                weight_decay,
                max(n_decay - start, 0),
            )

    def _take(self, X: Array, indices: Array, out: Array | None) -> Array:
        # In its default mode NumPy's take fills out through a buffer of the same size;
        # mode="clip" writes it directly.
        return self.xp.take(X, indices, axis=0, out=out, mode="clip")


def _decayed(grad: Array, param: Array, weight_decay: Array | None, n_decay: int) -> Array:
    """Add the gradient of ``weight_decay / 2 ||param||^2`` over the first ``n_decay`` columns."""
    if weight_decay is None or n_decay == 0:
        return grad
    decayed = grad.copy()
    decayed[..., :n_decay] += weight_decay * param[..., :n_decay]
    return decayed


def _store(result: Array, out: Array | None) -> Array:
    if out is None:
        return result
    out[...] = result
    return out
