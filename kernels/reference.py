"""Every operation of xpnet as plain array expressions: the specification and the unfused path.

:class:`ReferenceOps` has the operations of a device without faster ones. Each method states its
equation, and is correct for both NumPy and CuPy because it uses only what the two share. Faster
implementations replace single methods and are tested against the methods here.

Conventions
-----------
Arrays are batch-major. Operations work on the last two axes, ``(..., n_samples, n_features)``;
leading axes stack independent networks. With ``out`` the result is written there and returned,
without it a new array is returned. ``out`` may be the array that is read, but must not overlap it
in part. An array that is changed in place must share no memory with another.

``<op>_grad`` multiplies an upstream gradient ``dA`` by the derivative of ``<op>``. It takes the
op's input ``Z`` or its output ``A``, whichever states the derivative best. ``<op>_update`` changes
its first arguments in place.

An activation includes the bias before it: with a row ``b`` of shape (..., n_features) it is applied
to ``Z_ij + b_j``. With ``db``, its gradient also writes the gradient of that bias there,
``db_j = sum_i dZ_ij``. A gradient stated in the input takes the same ``Z`` and ``b``.

All floating-point arrays of a call have the same dtype, float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

from xpnet.kernels.philox import philox4x32, random_words

__all__ = ["Array", "NumpyOps", "ReferenceOps"]

# A NumPy or CuPy array. They share no base class, and CuPy may not be installed.
Array: TypeAlias = Any

_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_GELU_CUBIC = 0.044715
_BLOCK = 32_768  # number of parameters that NumPy updates at a time

# Wichura's PPND16: coefficients of numerators and denominators, from the highest power down.
_CENTRAL_QUANTILE = (
    (
        *(2509.0809287301226727, 33430.575583588128105, 67265.770927008700853),
        *(45921.953931549871457, 13731.693765509461125, 1971.5909503065514427),
        *(133.14166789178437745, 3.3871328727963666080),
    ),
    (
        *(5226.4952788528545610, 28729.085735721942674, 39307.895800092710610),
        *(21213.794301586595867, 5394.1960214247511077, 687.18700749205790830),
        *(42.313330701600911252, 1.0),
    ),
)
_OUTER_QUANTILE = (
    (
        *(7.74545014278341407640e-4, 0.0227238449892691845833, 0.241780725177450611770),
        *(1.27045825245236838258, 3.64784832476320460504, 5.76949722146069140550),
        *(4.63033784615654529590, 1.42343711074968357734),
    ),
    (
        *(1.05075007164441684324e-9, 5.47593808499534494600e-4, 0.0151986665636164571966),
        *(0.148103976427480074590, 0.689767334985100004550, 1.67638483018380384940),
        *(2.05319162663775882187, 1.0),
    ),
)


class ReferenceOps:
    """The operations on one array module.

    Parameters
    ----------
    xp : module
        ``numpy`` or ``cupy``.
    fused : mapping of str to callable, optional
        Faster implementations by the name of the operation they replace, each with the signature
        of the method here.

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
                raise ValueError(f"fused: unknown operation {name!r}")
            setattr(self, name, implementation)

    # Products, sums and the gather of a minibatch.

    def matmul(self, A: Array, B: Array, out: Array | None = None) -> Array:
        """Matrix product, ``out = A @ B`` over the last two axes.

        Transposed views are read without a copy. ``out`` must be C-contiguous and share no memory
        with ``A`` or ``B``.
        """
        return self.xp.matmul(A, B, out=out)

    def gather(
        self,
        X: Array,
        indices: Array,
        out: Array | None = None,
        divide_by: float | None = None,
    ) -> Array:
        """Rows of a data set, ``out[i] = X[indices[i]]``, optionally divided by a number.

        Parameters
        ----------
        X : array (n, ...)
        indices : integer array (k,)
            Row numbers in ``[0, n)``. Not every device checks them.
        out : array (k, ...), optional
            An array of X's dtype, or of float32 or float64 if X is uint8.
        divide_by : float, optional
            Compute ``X[indices[i]] / divide_by`` in the dtype of ``out``, which is then required.
            This turns bytes into floats.
        """
        if divide_by is None and (out is None or out.dtype == X.dtype):
            return self._take(X, indices, out)
        if out is None:
            raise ValueError("divide_by needs out, whose dtype is the result's")
        out[...] = self._take(X, indices, None)
        return out if divide_by is None else self.xp.divide(out, divide_by, out=out)

    def _take(self, X: Array, indices: Array, out: Array | None) -> Array:
        return self.xp.take(X, indices, axis=0, out=out)

    def add_bias(self, Z: Array, b: Array, out: Array | None = None) -> Array:
        """Add one row ``b`` of shape (..., n_features) to every sample, ``out_ij = Z_ij + b_j``."""
        return self.xp.add(Z, b[..., None, :], out=out)

    def bias_grad(self, dZ: Array, out: Array | None = None) -> Array:
        """Sum over the samples, ``db_j = sum_i dZ_ij``.

        Every row of ``Z = X W + b`` depends on the bias with derivative 1, so the bias's gradient
        is the sum of the rows of ``dZ``.
        """
        return self.xp.sum(dZ, axis=-2, out=out)

    def mean(self, values: Array, weights: Array | None = None, out: Array | None = None) -> Array:
        """Mean over the last axis, which is kept with length 1.

        With ``weights``, as :meth:`shares` returns them, ``sum_i weights_i values_i``.
        """
        if weights is not None:
            return self.xp.sum(weights * values, axis=-1, keepdims=True, out=out)
        return self.xp.mean(values, axis=-1, keepdims=True, out=out)

    def add_sum(self, values: Array, addend: Array, out: Array | None = None) -> Array:
        """Sum over the last axis added to a number, ``addend + sum_i values_i``.

        ``addend`` has shape (1,), and the result (..., 1).
        """
        xp = self.xp
        return _store(addend + xp.sum(values, axis=-1, keepdims=True), out)

    def inverse_sum(self, weights: Array, out: Array | None = None) -> Array:
        """``1 / sum_i weights_i`` over the last axis, which is kept with length 1.

        0 if the sum is not positive.
        """
        xp = self.xp
        total = xp.sum(weights, axis=-1, keepdims=True)
        return _store(xp.where(total > 0, 1 / total, weights.dtype.type(0)), out)

    def shares(self, weights: Array, out: Array | None = None) -> Array:
        """Weights divided by their sum over the last axis; 0 if the sum is not positive."""
        xp = self.xp
        total = xp.sum(weights, axis=-1, keepdims=True)
        return _store(xp.where(total > 0, weights / total, weights.dtype.type(0)), out)

    def variance_correction(self, weights: Array, out: Array | None = None) -> Array:
        """Factor that makes the variance of weighted samples unbiased.

        It is ``1 / (1 - sum_i w_i^2)`` for weights that sum to 1 over the last axis
        (:meth:`shares`), which is kept with length 1. That is ``n / (n - 1)`` for n samples of
        equal weight, and in general for Kish's effective number of samples,
        ``n = 1 / sum_i w_i^2``. It is 0, for "no variance", if a single sample has all the weight,
        and -1, for "no samples", if all weights are 0. In float32, a sample with all but 1e-5 of
        the weight is hard to tell from one with all of it.

        References
        ----------
        Kish, "Survey sampling", 1965, section 11.7.
        """
        xp = self.xp
        squares = xp.sum(xp.square(weights), axis=-1, keepdims=True)
        is_several = (squares > 0) & (squares < 1)
        corrected = 1 / (1 - xp.where(is_several, squares, weights.dtype.type(0)))
        of_one = xp.where(squares > 0, weights.dtype.type(0), weights.dtype.type(-1))
        return _store(xp.where(is_several, corrected, of_one), out)

    def square_sum(self, X: Array, out: Array | None = None) -> Array:
        """Sum of squares over the rows, ``s_j = sum_i X_ij^2``."""
        return self.xp.sum(self.xp.square(X), axis=-2, out=out)

    def scale(self, X: Array, factor: Array, out: Array | None = None) -> Array:
        """``factor X``, with a factor of shape (..., 1)."""
        return self.xp.multiply(factor, X, out=out)

    # Activations and their gradients.

    def sigmoid(self, Z: Array, b: Array | None = None, out: Array | None = None) -> Array:
        """Logistic function, ``1 / (1 + exp(-Z))``, as ``exp(min(Z, 0)) / (1 + exp(-|Z|))``.

        Both exponents are at most 0, so nothing overflows. For negative ``Z`` the result keeps its
        relative accuracy down to the smallest normal number.
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

        For ``Z <= 0`` the derivative is ``alpha exp(Z) = A + alpha``. ``alpha`` must be positive,
        so that ``A`` and ``Z`` have the same sign.
        """
        return self._with_db(_store(self.xp.where(A > 0, dA, dA * (A + alpha)), out), db)

    def gelu_tanh(self, Z: Array, b: Array | None = None, out: Array | None = None) -> Array:
        """Gaussian error linear unit in its tanh form.

        ``A = Z/2 (1 + tanh(U))`` with ``U = sqrt(2/pi) (Z + 0.044715 Z^3)``, computed as
        ``Z sigmoid(2U)``. The two are equal, but the sigmoid keeps the digits that ``1 + tanh``
        loses for negative ``Z``. As in PyTorch, minus infinity gives nan.
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
        3 0.044715 Z^2)`` and ``1 - S = sigmoid(-2U)``. For ``|Z| >= 20`` the second term is
        negligible in any precision, so ``Z`` is clipped there; otherwise an overflowing ``Z^3``
        would give ``0 * inf``.
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

        From the output it would be ``(1 - |A|)^2``, which loses its digits for large ``Z``.
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

    # Augmentation: each sample is changed at random, by its own random words.

    def flip(
        self,
        X: Array,
        height: int,
        width: int,
        probability: float,
        seed: int,
        layer: int,
        step: Array,
        purpose: int,
        out: Array | None = None,
    ) -> Array:
        """Flip each image left to right with a given probability.

        ``out[y, x] = X[y, width - 1 - x]`` if the sample's first random word is below
        ``floor(2^32 probability)``, else ``X[y, x]``. Sample i has the words 4 i to 4 i + 3 of
        :func:`~xpnet.kernels.philox.random_words`, in this operation and the next three.

        Parameters
        ----------
        X : array (..., n_samples, n_features)
            Images in C order, ``(height, width)`` or ``(height, width, channels)``. The number of
            features must be a multiple of ``height width``, otherwise a ValueError is raised.
        height, width : int
            Size of the images in pixels, at least 1.
        probability : float
            Probability of a flip, in [0, 1].
        seed, layer, purpose : int
            Identify the random draw; see :func:`~xpnet.kernels.philox.random_words`.
        step : int64 array (1,)
            Number of the training step, which also identifies the draw.
        out : array like X, optional
            Must not be X.
        """
        words = self._words_of_samples(X, seed, layer, step, purpose)
        is_flipped = words[0].astype(self.xp.uint64)[:, None] < int(probability * 2**32)
        x = self.xp.arange(width)
        y = self.xp.arange(height)[None, :, None]
        x = self.xp.where(is_flipped, width - 1 - x, x)[:, None, :]
        return _store(self._pixels(X, height, width, y, x, 0.0).reshape(X.shape), out)

    def shift(
        self,
        X: Array,
        height: int,
        width: int,
        pixels: int,
        fill: float,
        seed: int,
        layer: int,
        step: Array,
        purpose: int,
        out: Array | None = None,
    ) -> Array:
        """Shift each image by random whole pixels along both axes.

        ``out[y, x] = X[y - down, x - right]``, or ``fill`` outside of the image. Both shifts are
        uniform in [-pixels, pixels]: ``floor(word (2 pixels + 1) / 2^32) - pixels``, from the
        sample's first and second random word. Their probabilities may differ by a relative
        ``(2 pixels + 1) / 2^32``.

        Parameters
        ----------
        pixels : int
            Largest shift, at least 0.
        fill : float
            Value of pixels outside of the image.
        X, height, width, seed, layer, step, purpose, out
            As for :meth:`flip`.
        """
        xp = self.xp
        words = self._words_of_samples(X, seed, layer, step, purpose)
        down, right = (
            (word.astype(xp.uint64) * (2 * pixels + 1) >> 32).astype(xp.int64) - pixels
            for word in words[:2]
        )
        y = xp.arange(height)[None, :, None] - down[:, None, None]
        x = xp.arange(width)[None, None, :] - right[:, None, None]
        return _store(self._pixels(X, height, width, y, x, fill).reshape(X.shape), out)

    def rotate(
        self,
        X: Array,
        height: int,
        width: int,
        degrees: float,
        fill: float,
        seed: int,
        layer: int,
        step: Array,
        purpose: int,
        out: Array | None = None,
    ) -> Array:
        """Rotate each image about its centre by a random angle.

        With the centre ``(c, d) = ((height - 1) / 2, (width - 1) / 2)``, ``out[y, x]`` is the image
        at ``v = c + cos(a) (y - c) + sin(a) (x - d)``, ``u = d + cos(a) (x - d) - sin(a) (y - c)``.
        With y downwards, the picture turns anticlockwise by a. Values between pixels are
        interpolated linearly along both axes; pixels outside of the image are ``fill``. The angle
        is uniform in [-degrees, degrees]: ``degrees (2 (word + 1/2) / 2^32 - 1)``, from the
        sample's first random word. Positions are computed in the dtype of X, to within a few
        roundings of the image's size.

        Parameters
        ----------
        degrees : float
            Largest angle, in [0, 180].
        fill : float
            Value of pixels outside of the image.
        X, height, width, seed, layer, step, purpose, out
            As for :meth:`flip`.
        """
        xp = self.xp
        words = self._words_of_samples(X, seed, layer, step, purpose)
        angle = math.radians(degrees) * self._symmetric(words[0])[:, None, None]
        sine, cosine = xp.sin(angle).astype(X.dtype), xp.cos(angle).astype(X.dtype)
        middle, center = (height - 1) / 2, (width - 1) / 2
        down = (xp.arange(height) - middle).astype(X.dtype)[None, :, None]
        right = (xp.arange(width) - center).astype(X.dtype)[None, None, :]
        v = middle + (cosine * down + sine * right)
        u = center + (cosine * right - sine * down)
        top, left = xp.floor(v), xp.floor(u)
        y, x = top.astype(xp.int64), left.astype(xp.int64)
        down, right = (v - top)[..., None], (u - left)[..., None]

        def row(y: Array) -> Array:
            start = self._pixels(X, height, width, y, x, fill)
            return (1 - right) * start + right * self._pixels(X, height, width, y, x + 1, fill)

        turned = (1 - down) * row(y) + down * row(y + 1)
        return _store(turned.reshape(X.shape), out)

    def brightness_contrast(
        self,
        X: Array,
        brightness: float,
        contrast: float,
        seed: int,
        layer: int,
        step: Array,
        purpose: int,
        out: Array | None = None,
    ) -> Array:
        """Change the brightness and contrast of each sample at random.

        ``out = X + b + c (X - m)`` with m the mean of the sample's features. For each sample b is
        uniform in [-brightness, brightness] and c in [-contrast, contrast], from its first and
        second random word as in :meth:`rotate`. Nothing is clipped.

        Parameters
        ----------
        X : array (..., n_samples, n_features)
        brightness, contrast : float
            Largest changes.
        seed, layer, step, purpose
            As for :meth:`flip`.
        out : array like X, optional
        """
        xp = self.xp
        words = self._words_of_samples(X, seed, layer, step, purpose)
        shape = (*X.shape[:-1], 1)
        b, c = (
            (amount * self._symmetric(word)).astype(X.dtype).reshape(shape)
            for amount, word in zip((brightness, contrast), words[:2], strict=True)
        )
        return xp.add(X, b + c * (X - xp.mean(X, axis=-1, keepdims=True)), out=out)

    def gaussian_noise(
        self,
        X: Array,
        std: float,
        seed: int,
        layer: int,
        step: Array,
        purpose: int,
        out: Array | None = None,
    ) -> Array:
        """Add normal noise, ``out = X + std N`` with N standard normal, element by element.

        Element i, in C order, takes word i of :func:`~xpnet.kernels.philox.random_words`: N is the
        quantile of the standard normal distribution at ``(word + 1/2) / 2^32``. It is finite for
        every word, at most 6.34 in magnitude. The fused float32 operation is accurate to 1e-7 of
        the value and a few roundings.

        Parameters
        ----------
        X : array
            At most ``2**34`` elements.
        std : float
            Standard deviation of the noise.
        seed, layer, step, purpose
            As for :meth:`flip`.
        out : array like X, optional

        References
        ----------
        Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied
        Statistics 37, 1988: PPND16 and, for float32, PPND7.
        """
        words = random_words(self.xp, X.size, seed, layer=layer, step=step, purpose=purpose)
        noise = self._normal(words).reshape(X.shape).astype(X.dtype)
        return self.xp.add(X, std * noise, out=out)

    def _words_of_samples(
        self, X: Array, seed: int, layer: int, step: Array, purpose: int
    ) -> tuple[Array, Array, Array, Array]:
        """Draw four words for every sample of every network in the stack."""
        xp = self.xp
        numbers = xp.arange(math.prod(X.shape[:-1]), dtype=xp.uint64)
        key = (seed & 0xFFFFFFFF, seed >> 32)
        return philox4x32(xp, (numbers, layer, step, purpose), key)

    def _symmetric(self, word: Array) -> Array:
        """Convert words to numbers from -1 to 1, in float64."""
        return (word.astype(self.xp.float64) + (0.5 - 2**31)) * 2.0**-31

    def _pixels(self, X: Array, height: int, width: int, y: Array, x: Array, fill: float) -> Array:
        """Return the pixels at (y, x) of every image, (n_images, height, width, n_channels)."""
        xp = self.xp
        n_columns = X.shape[-1]
        if height < 1 or width < 1 or n_columns % (height * width):
            raise ValueError(
                f"X must have a multiple of {height} x {width} columns, got {n_columns}"
            )
        n_images, n_channels = math.prod(X.shape[:-1]), n_columns // (height * width)
        image = xp.arange(n_images)[:, None, None]
        is_inside = ((y >= 0) & (y < height) & (x >= 0) & (x < width))[..., None]
        place = (image * height + xp.clip(y, 0, height - 1)) * width + xp.clip(x, 0, width - 1)
        pixels = xp.take(X.reshape(n_images * height * width, n_channels), place, axis=0)
        return xp.where(is_inside, pixels, X.dtype.type(fill))

    def _normal(self, words: Array) -> Array:
        """Return the standard normal quantiles at ``(word + 1/2) / 2^32``, in float64.

        The table's third part, for ``sqrt(-log p) > 5``, is not needed: p is at least 2^-33.
        """
        xp = self.xp
        q = (words.astype(xp.float64) + (0.5 - 2**31)) * 2.0**-32
        distance = xp.abs(q)
        p = 0.5 - distance
        near = distance * _quotient(_CENTRAL_QUANTILE, 0.180625 - distance * distance)
        far = _quotient(_OUTER_QUANTILE, xp.sqrt(-xp.log(p)) - 1.6)
        return xp.where(distance > 0.425, far, near) * xp.sign(q)

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

        The scaling keeps the mean of each element. The map is linear and symmetric, so its gradient
        is the same operation on ``dA``. The same arguments draw the same mask, so no mask needs to
        be stored. Element ``i``, in C order, is dropped if word ``i`` of
        :func:`~xpnet.kernels.philox.random_words` is below ``floor(2^32 rate)``: the same elements
        on every device and in every dtype.

        Parameters
        ----------
        X : array
            At most ``2**34`` elements.
        rate : float
            Probability of 0, in [0, 1); otherwise a ValueError is raised.
        seed, layer, purpose : int
            Identify the random draw; see :func:`~xpnet.kernels.philox.random_words`.
        step : int64 array (1,)
            Number of the training step, which also identifies the draw.

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

    def penalty_grad(
        self,
        grad: Array,
        param: Array,
        factor: Array,
        l1: float,
        l2: float,
        out: Array | None = None,
        penalty: Array | None = None,
    ) -> Array:
        """Add the gradient of ``factor sum_ij l1 |W_ij| + l2 / 2 W_ij^2`` to another gradient.

        ``out = grad + factor (l1 sign(W) + l2 W)``; the derivative of ``|W|`` at 0 is taken as 0.

        Parameters
        ----------
        grad, param : arrays (..., n_rows, n_columns)
        factor : array (..., n_rows, 1) or (1,)
            A factor that may change from step to step.
        l1, l2 : float
            Strengths of the penalties.
        out : array like grad, optional
        penalty : array (..., n_columns), optional
            Overwritten with the penalty, summed over the rows.
        """
        xp = self.xp
        if penalty is not None:
            terms = l1 * xp.abs(param) + 0.5 * l2 * xp.square(param)
            xp.sum(factor * terms, axis=-2, out=penalty)
        return xp.add(grad, factor * (l1 * xp.sign(param) + l2 * param), out=out)

    def clip(self, X: Array, limit: float, out: Array | None = None) -> Array:
        """``min(max(X, -limit), limit)``."""
        return self.xp.clip(X, -limit, limit, out=out)

    def clip_factor(self, squares: Array, max_norm: float, out: Array | None = None) -> Array:
        """Factor that reduces the norm of a vector to ``max_norm``; 1 if the norm is smaller.

        ``min(1, max_norm / (norm + 1e-6))``, where ``norm^2`` is the sum of ``squares`` over the
        last axis, which is kept with length 1. The constant 1e-6 is PyTorch's.

        References
        ----------
        Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks",
        ICML 2013, algorithm 1.
        """
        xp = self.xp
        norm = xp.sqrt(xp.sum(squares, axis=-1, keepdims=True))
        return xp.minimum(max_norm / (norm + 1e-6), 1, out=out)

    def limit_norms(
        self, W: Array, squares: Array, max_norm: float, out: Array | None = None
    ) -> Array:
        """Scale the columns of ``W`` that are longer than ``max_norm`` down to that length.

        Parameters
        ----------
        W : array (..., n_in, n_out)
            A column holds the weights of one unit.
        squares : array (..., n_out)
            The columns' sums of squares; see :meth:`square_sum`.
        max_norm : float
        out : array like W, optional

        References
        ----------
        Srivastava et al. 2014, section 5.1 (max-norm regularization).
        """
        xp = self.xp
        norm = xp.sqrt(squares)[..., None, :]
        # A norm that overflows leaves the weights unchanged, so that the error stays visible.
        is_longer = (norm > max_norm) & xp.isfinite(norm)
        return _store(xp.where(is_longer, W * (max_norm / norm), W), out)

    # Normalisation. A sample's weight is its share in the mean; the weights sum to 1.

    def column_mean(self, X: Array, weights: Array, out: Array | None = None) -> Array:
        """Mean over the samples, ``mean_j = sum_i w_i X_ij``, with weights (..., n_samples, 1)."""
        return self.xp.sum(weights * X, axis=-2, out=out)

    def column_variance(
        self, X: Array, weights: Array, mean: Array, out: Array | None = None
    ) -> Array:
        """Variance over the samples, ``sum_i w_i (X_ij - mean_j)^2``, given their mean."""
        return self.xp.sum(weights * self.xp.square(X - mean[..., None, :]), axis=-2, out=out)

    def batch_norm_tick(
        self,
        mean: Array,
        variance: Array,
        correction: Array,
        running_mean: Array,
        running_variance: Array,
        inverse_std: Array,
        momentum: float,
        eps: float,
        unbiased: bool,
    ) -> None:
        """Update the running statistics by those of a batch, and compute ``1 / sqrt(var + eps)``.

        ``running += momentum (statistic - running)``. The running variance follows the variance
        times ``correction``, which makes it unbiased: ``n / (n - 1)`` for n samples. A correction
        of 0 leaves the running variance unchanged, a negative one both statistics. If not
        ``unbiased``, corrections of at least 0 count as 1.

        Parameters
        ----------
        mean, variance : arrays (..., n_features)
        correction : array (..., 1)
        running_mean, running_variance, inverse_std : arrays (..., n_features)
            Overwritten.
        momentum, eps : float
        unbiased : bool
        """
        xp = self.xp
        is_sampled = correction >= 0
        if not unbiased:
            one = correction.dtype.type(1)
            correction = xp.where(is_sampled, one, -one)
        running_mean += xp.where(is_sampled, momentum * (mean - running_mean), 0)
        follow = momentum * (correction * variance - running_variance)
        running_variance += xp.where(correction > 0, follow, running_variance.dtype.type(0))
        inverse_std[...] = 1 / xp.sqrt(variance + eps)

    def inverse_std(self, variance: Array, eps: float, out: Array | None = None) -> Array:
        """``1 / sqrt(variance + eps)``."""
        xp = self.xp
        return xp.divide(1, xp.sqrt(variance + eps), out=out)

    def batch_norm(
        self,
        X: Array,
        mean: Array,
        inverse_std: Array,
        gamma: Array,
        beta: Array,
        normalized: Array,
        out: Array | None = None,
    ) -> Array:
        """``out = gamma normalized + beta`` with ``normalized = (X - mean) inverse_std``.

        Parameters
        ----------
        X : array (..., n_samples, n_features)
        mean, inverse_std, gamma, beta : arrays (..., n_features)
        normalized : array like X
            Overwritten.
        out : array like X, optional

        References
        ----------
        Ioffe and Szegedy, "Batch normalization", ICML 2015, algorithm 1.
        """
        xp = self.xp
        normalized[...] = (X - mean[..., None, :]) * inverse_std[..., None, :]
        return xp.add(gamma[..., None, :] * normalized, beta[..., None, :], out=out)

    def scale_grad(self, dA: Array, normalized: Array, out: Array | None = None) -> Array:
        """Gradient of a scale, ``dgamma_j = sum_i dA_ij normalized_ij``."""
        return self.xp.sum(dA * normalized, axis=-2, out=out)

    def batch_norm_grad(
        self,
        dA: Array,
        normalized: Array,
        weights: Array,
        inverse_std: Array,
        gamma: Array,
        dgamma: Array,
        dbeta: Array,
        out: Array | None = None,
    ) -> Array:
        """Gradient of the input of :meth:`batch_norm`, whose statistics depend on it too.

        ``dX_ij = gamma_j inverse_std_j (dA_ij - w_i (dbeta_j + normalized_ij dgamma_j))``, with
        ``dgamma`` and ``dbeta`` the gradients of scale and shift; see
        :class:`xpnet.nn.BatchNorm` for the derivation.

        Parameters
        ----------
        dA, normalized : arrays (..., n_samples, n_features)
        weights : array (..., n_samples, 1)
        inverse_std, gamma, dgamma, dbeta : arrays (..., n_features)
        out : array like dA, optional
        """
        along = dbeta[..., None, :] + normalized * dgamma[..., None, :]
        factor = (gamma * inverse_std)[..., None, :]
        return self.xp.multiply(factor, dA - weights * along, out=out)

    def layer_norm(
        self,
        X: Array,
        gamma: Array,
        beta: Array,
        inverse_std: Array,
        normalized: Array,
        eps: float,
        out: Array | None = None,
    ) -> Array:
        """``out = gamma normalized + beta``, normalised over the features of each sample.

        ``normalized_ij = (X_ij - mean_i) / sqrt(var_i + eps)`` with mean and (biased) variance of
        row i.

        Parameters
        ----------
        X : array (..., n_samples, n_features)
        gamma, beta : arrays (..., n_features)
        inverse_std : array (..., n_samples)
            Overwritten with ``1 / sqrt(var_i + eps)``.
        normalized : array like X
            Overwritten.
        eps : float
        out : array like X, optional

        References
        ----------
        Ba, Kiros and Hinton, "Layer normalization", arXiv 1607.06450, equation 3.
        """
        xp = self.xp
        centred = X - xp.mean(X, axis=-1, keepdims=True)
        inverse_std[...] = 1 / xp.sqrt(xp.mean(xp.square(centred), axis=-1) + eps)
        normalized[...] = centred * inverse_std[..., None]
        return xp.add(gamma[..., None, :] * normalized, beta[..., None, :], out=out)

    def layer_norm_grad(
        self,
        dA: Array,
        normalized: Array,
        inverse_std: Array,
        gamma: Array,
        out: Array | None = None,
    ) -> Array:
        """Gradient of the input of :meth:`layer_norm`.

        With ``G = gamma dA``: ``dX_ij = inverse_std_i (G_ij - mean_k G_ik - normalized_ij mean_k
        G_ik normalized_ik)``, the means over the features; see :class:`xpnet.nn.LayerNorm` for the
        derivation.

        Parameters
        ----------
        dA, normalized : arrays (..., n_samples, n_features)
        inverse_std : array (..., n_samples)
        gamma : array (..., n_features)
        out : array like dA, optional
        """
        xp = self.xp
        G = gamma[..., None, :] * dA
        mean = xp.mean(G, axis=-1, keepdims=True)
        along = xp.mean(G * normalized, axis=-1, keepdims=True)
        return xp.multiply(inverse_std[..., None], G - mean - normalized * along, out=out)

    # Losses on logits: the loss of every sample and the gradient of their mean, in one pass.

    def softmax(self, logits: Array, out: Array | None = None) -> Array:
        """``P_ij = exp(Z_ij) / sum_k exp(Z_ik)``.

        Subtracting each row's maximum does not change the quotient, and keeps every exponent at
        most 0.
        """
        xp = self.xp
        E = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
        return xp.divide(E, xp.sum(E, axis=-1, keepdims=True), out=out)

    def sigmoid_cross_entropy(
        self,
        logits: Array,
        labels: Array,
        losses: Array,
        dlogits: Array | None = None,
        weights: Array | None = None,
        smoothing: float = 0.0,
        clip: float = 0.0,
    ) -> None:
        """Binary cross-entropy of each sample, summed over its outputs.

        ``l_i = sum_j softplus(Z_ij) - Y_ij Z_ij``, which is ``-Y log A - (1 - Y) log(1 - A)``
        with ``A = sigmoid(Z)``, simplified; its derivative is ``A - Y``. Computed as
        ``(max(Z, 0) - Y Z) + log1p(exp(-|Z|))``: for a confident positive the bracket is exactly 0,
        while ``softplus(Z) - Z`` would lose all its digits.

        Parameters
        ----------
        logits : array (..., n_samples, n_outputs)
        labels : array of the same shape and dtype
            Probabilities of the positive class, in [0, 1].
        losses : array (..., n_samples)
            Overwritten with ``l``.
        dlogits : array like logits, optional
            Overwritten with the gradient of the mean of ``l``, ``(A - Y) / n_samples``; with
            weights, ``weights_i (A - Y)``.
        weights : array (..., n_samples), optional
            The samples' shares in the mean; see :meth:`shares`.
        smoothing : float
            In [0, 1): ``Y`` becomes ``(1 - smoothing) Y + smoothing / 2``.
        clip : float
            In [0, 1/2). If it is not 0, ``l`` is ``-Y log A - (1 - Y) log(1 - A)`` of the rounded
            ``A``, clipped to ``[clip, 1 - clip]``. The gradient is not affected.
        """
        xp = self.xp
        labels = labels + smoothing * (0.5 - labels)
        if clip > 0:
            A = xp.clip(self.sigmoid(logits), clip, 1 - clip)
            B = xp.maximum(1 - A, clip)  # 1 - clip may round to 1
            terms = -labels * xp.log(A) - (1 - labels) * xp.log(B)
        else:
            linear = xp.maximum(logits, 0) - labels * logits
            terms = linear + xp.log1p(xp.exp(-xp.abs(logits)))
        xp.sum(terms, axis=-1, out=losses)
        if dlogits is not None:
            xp.subtract(self.sigmoid(logits), labels, out=dlogits)
            self._average(dlogits, weights)

    def softmax_cross_entropy(
        self,
        logits: Array,
        labels: Array,
        losses: Array,
        dlogits: Array | None = None,
        weights: Array | None = None,
        smoothing: float = 0.0,
        clip: float = 0.0,
    ) -> None:
        """Cross-entropy of each sample's softmax.

        ``l_i = log sum_k exp(Z_ik) - sum_k T_ik Z_ik``, where the targets ``T_i`` sum to 1: without
        smoothing, 1 for the sample's class and 0 for the others. Its derivative is ``P - T``.

        Parameters
        ----------
        logits : array (..., n_samples, n_classes)
        labels : integer array (..., n_samples)
            Classes in [0, n_classes), which are not checked.
        losses : array (..., n_samples)
            Overwritten with ``l``.
        dlogits : array like logits, optional
            Overwritten with the gradient of the mean of ``l``, ``(P - T) / n_samples``; with
            weights, ``weights_i (P - T)``.
        weights : array (..., n_samples), optional
            The samples' shares in the mean; see :meth:`shares`.
        smoothing : float
            In [0, 1): targets are ``(1 - smoothing) onehot + smoothing / n_classes``.
        clip : float
            In [0, 1/2). If it is not 0, ``l`` is ``-sum_k T_ik log P_ik`` of the rounded
            probabilities, clipped to ``[clip, 1 - clip]``. The gradient is not affected.

        References
        ----------
        Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016,
        section 7, for the smoothing.
        """
        xp = self.xp
        n_classes = logits.shape[-1]
        shifted = logits - xp.max(logits, axis=-1, keepdims=True)
        E = xp.exp(shifted)
        total = xp.sum(E, axis=-1, keepdims=True)
        onehot = (labels[..., None] == xp.arange(n_classes)).astype(logits.dtype)
        targets = onehot + smoothing * (1 / n_classes - onehot)
        if clip > 0:
            terms = targets * xp.log(xp.clip(E / total, clip, 1 - clip))
            xp.negative(xp.sum(terms, axis=-1), out=losses)
        else:
            # The logit of a class with target 0 may be minus infinity.
            terms = xp.where(targets > 0, targets * shifted, logits.dtype.type(0))
            xp.subtract(xp.log(total)[..., 0], xp.sum(terms, axis=-1), out=losses)
        if dlogits is not None:
            xp.divide(E, total, out=dlogits)
            xp.subtract(dlogits, targets, out=dlogits)
            self._average(dlogits, weights)

    def squared_error(
        self,
        predictions: Array,
        targets: Array,
        losses: Array,
        dlogits: Array | None = None,
        weights: Array | None = None,
        halved: bool = False,
    ) -> None:
        """Squared error of each sample, the mean over its outputs.

        ``l_i = 1/m sum_j (Z_ij - Y_ij)^2`` for m outputs; its derivative is ``2/m (Z - Y)``. With
        ``halved`` the losses are half of that, and the gradient is ``Z - Y``, that of half the sum
        over the outputs.

        Parameters
        ----------
        predictions, targets : arrays (..., n_samples, n_outputs)
        losses : array (..., n_samples)
            Overwritten with ``l``.
        dlogits : array like predictions, optional
            Overwritten with the gradient of the mean of ``l``, or of its weighted mean.
        weights : array (..., n_samples), optional
            The samples' shares in the mean; see :meth:`shares`.
        halved : bool
        """
        xp = self.xp
        xp.mean(xp.square(predictions - targets), axis=-1, out=losses)
        if halved:
            xp.multiply(losses, 0.5, out=losses)
        if dlogits is not None:
            xp.subtract(predictions, targets, out=dlogits)
            if not halved:
                xp.multiply(dlogits, 2 / predictions.shape[-1], out=dlogits)
            self._average(dlogits, weights)

    def poisson_deviance(
        self,
        logits: Array,
        counts: Array,
        losses: Array,
        dlogits: Array | None = None,
        weights: Array | None = None,
    ) -> None:
        """Half the Poisson deviance of each sample from ``exp(Z)``, summed over its outputs.

        ``l_i = sum_j exp(Z_ij) - Y_ij Z_ij + (Y_ij log Y_ij - Y_ij)``, where ``Y log Y`` is 0 at
        ``Y = 0``; its derivative is ``exp(Z) - Y``. Computed as ``(exp(Z) - Y) + Y (log Y - Z)``:
        near the minimum, ``Z = log Y``, both brackets are small, while ``Y Z`` and ``Y log Y``
        would cancel.

        Parameters
        ----------
        logits : array (..., n_samples, n_outputs)
            ``Z``, the logarithms of the expected values.
        counts : array of the same shape and dtype
            ``Y``, real numbers >= 0.
        losses : array (..., n_samples)
            Overwritten with ``l``.
        dlogits : array like logits, optional
            Overwritten with the gradient of the mean of ``l``, ``(exp(Z) - Y) / n_samples``; with
            weights, ``weights_i (exp(Z) - Y)``.
        weights : array (..., n_samples), optional
            The samples' shares in the mean; see :meth:`shares`.

        References
        ----------
        McCullagh and Nelder, "Generalized linear models", 1989, section 2.3, table 2.1 and the
        deviances below it.
        """
        xp = self.xp
        one = counts.dtype.type(1)
        logarithm = xp.log(xp.where(counts > 0, counts, one))
        apart = xp.where(counts > 0, counts * (logarithm - logits), one - one)
        expected = xp.exp(logits)
        xp.sum((expected - counts) + apart, axis=-1, out=losses)
        if dlogits is not None:
            xp.subtract(expected, counts, out=dlogits)
            self._average(dlogits, weights)

    def _average(self, gradient: Array, weights: Array | None) -> None:
        """Turn the gradients of the losses into the gradient of their mean."""
        if weights is not None:
            self.xp.multiply(weights[..., None], gradient, out=gradient)
        else:
            self.xp.divide(gradient, gradient.shape[-2], out=gradient)

    # Optimizers. Values that change from step to step are arrays, which broadcast.

    # With weight_decay the first n_decay parameters of a network, its weights, decay before the
    # update, param -= learning_rate weight_decay param. This is decoupled weight decay (Loshchilov
    # and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2), which does not
    # enter the moments of the gradient. It is an argument of each update because a separate
    # operation would read and write all weights once more: with one, Adam was 1.1 to 1.3 times as
    # slow (100,000 to 4,000,000 weights, float32, AMD EPYC family 25 model 1).

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
        _decay(param, learning_rate, weight_decay, n_decay)
        param -= learning_rate * grad

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

        ``weight = 1`` is the classical form (Polyak 1964). ``weight = 1 - beta`` is the form of
        Andrew Ng's Deep Learning Specialization, a running average of the gradients.

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
        _decay(param, learning_rate, weight_decay, n_decay)
        velocity *= beta
        velocity += weight * grad
        param -= learning_rate * velocity

    def nesterov_update(
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
        """Nesterov's momentum, which looks ahead along the velocity.

        ``velocity = beta velocity + weight grad``, ``param -= learning_rate (beta velocity +
        weight grad)``. Here ``param`` is the point at which Sutskever et al. take the gradient.

        Parameters
        ----------
        param, velocity, grad, learning_rate, beta, weight, weight_decay, n_decay
            As for :meth:`momentum_update`.

        References
        ----------
        Nesterov, "A method of solving a convex programming problem with convergence rate
        O(1/k^2)", 1983; Sutskever, Martens, Dahl and Hinton, "On the importance of initialization
        and momentum in deep learning", ICML 2013, equations 3 and 4; Bengio, Boulanger-Lewandowski
        and Pascanu, "Advances in optimizing recurrent networks", 2013, equation 7, for this form.
        """
        _decay(param, learning_rate, weight_decay, n_decay)
        velocity *= beta
        velocity += weight * grad
        param -= learning_rate * (beta * velocity + weight * grad)

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
        _decay(param, learning_rate, weight_decay, n_decay)
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
        """Advance Adam's step count, and compute its bias corrections and epsilon.

        ``step += 1``, ``bias_k = 1 - beta_k^step``, computed in float64. ``eps`` becomes
        ``eps_const``. With ``epsilon_hat`` it becomes ``eps_const / sqrt(bias2)``, which turns the
        update of Algorithm 1 into the form at the end of section 2.

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
            ``1 - beta`` is computed in float64; in float32 ``1 - 0.999`` is wrong by 1e-5.
        weight_decay : array (..., 1), optional
        n_decay : int

        References
        ----------
        Kingma and Ba 2015, Algorithm 1.
        """
        xp = self.xp
        _decay(param, learning_rate, weight_decay, n_decay)
        m *= beta1
        m += (1.0 - beta1) * grad
        v *= beta2
        v += (1.0 - beta2) * xp.square(grad)
        param -= learning_rate * (m / bias1) / (xp.sqrt(v / bias2) + eps)

    def average_update(self, average: Array, values: Array, step: Array, beta: float) -> None:
        """Exponential moving average, ``average = b average + (1 - b) values``.

        ``b = min(beta, (1 + t) / (10 + t))`` at step t, so that the average soon forgets its
        initial value.

        Parameters
        ----------
        average : array (..., n)
            Overwritten.
        values : array like average
        step : int64 array (1,)
            ``t``, from 1.
        beta : float
        """
        t = step.astype(average.dtype)
        kept = self.xp.minimum(average.dtype.type(beta), (1 + t) / (10 + t))
        average += (1 - kept) * (values - average)


class NumpyOps(ReferenceOps):
    """The reference operations, with versions that are faster in NumPy."""

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
        """One step of Adam in blocks, so that intermediate results stay in the cache."""
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


def _decay(param: Array, learning_rate: Array, weight_decay: Array | None, n_decay: int) -> None:
    """Apply decoupled weight decay to the first ``n_decay`` columns."""
    if weight_decay is not None and n_decay > 0:
        param[..., :n_decay] -= learning_rate * weight_decay * param[..., :n_decay]


def _quotient(coefficients: Any, x: Array) -> Array:
    """Return the quotient of two polynomials, evaluated by Horner's rule."""
    values = []
    for polynomial in coefficients:
        value = polynomial[0]
        for coefficient in polynomial[1:]:
            value = value * x + coefficient
        values.append(value)
    return values[0] / values[1]


def _store(result: Array, out: Array | None) -> Array:
    if out is None:
        return result
    out[...] = result
    return out
