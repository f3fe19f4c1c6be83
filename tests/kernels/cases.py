"""Calls of every fused operation: shapes, layouts and values, the exact result, and how near it.

A case is a dictionary of arguments. ``exact`` runs the reference in float64 on the very numbers
that a kernel is given. How far a kernel may be from that is measured in a natural unit: what
changing every input by one rounding does to the exact result, plus one rounding of that result. The
table :data:`TOLERANCE` says how many such units each operation may take, and why.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.conftest import slow
from xpnet import Device
from xpnet.kernels.catalogue import CATALOGUE, Elementwise, Resampled, Row
from xpnet.kernels.reference import NumpyOps

ROWS = {row.name: row for row in CATALOGUE}
# Whose elements have a random word each.
WITH_WORDS = [r.name for r in CATALOGUE if isinstance(r, Elementwise) and r.words]
# Which write elsewhere than where they read.
ELSEWHERE = ["gather", *(r.name for r in CATALOGUE if isinstance(r, Resampled))]

# The reference has no maximum and no mean of nothing.
NEEDS_COLUMNS = (
    *("mean", "softmax", "softmax_cross_entropy", "squared_error"),
    *("layer_norm", "layer_norm_grad", "variance_correction", "brightness_contrast"),
)


def is_defined(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether the reference has a result for operands of this shape that units can measure.

    Two normalised features are 1 and -1, whatever they were, so that a unit does not see how their
    mean was rounded; of the gradient of a single one nothing but rounding is left.
    """
    if (name, shape[-1]) in (("layer_norm", 2), ("layer_norm_grad", 1)):
        return False
    return 0 not in shape or name not in NEEDS_COLUMNS


def has_out(name: str, layout: str) -> bool:
    """Return whether an operation gives a result of this layout."""
    return any(o.name == "out" and o.layout == layout for o in ROWS[name].operands)


# How many units each operation may take, and why. A correctly rounded result is within half a unit.
TOLERANCE: dict[str, tuple[float, str]] = {
    "add_bias": (0.5, "one addition, correctly rounded"),
    "gather": (0.5, "one division of a byte, correctly rounded"),
    "relu": (0.5, "one addition"),
    "leaky_relu": (1, "an addition and a product"),
    "elu": (1.5, "an exponential to 1 unit and a product"),
    "sigmoid": (2, "an exponential to 1 unit, an addition, a quotient"),
    "tanh": (2, "an exponential to 1 unit, an addition, a quotient"),
    "gelu_tanh": (3, "the exponential of a cubic, whose three roundings it magnifies"),
    "softplus": (4, "an exponential, and a logarithm through a quotient and a polynomial"),
    "softsign": (1, "an addition and a quotient"),
    "relu_grad": (0, "exact"),
    "leaky_relu_grad": (0.5, "one product"),
    "elu_grad": (1, "an addition and a product"),
    "sigmoid_grad": (1, "a difference and two products"),
    "tanh_grad": (1, "two differences and two products"),
    "gelu_tanh_grad": (4, "as gelu_tanh, with twelve more operations"),
    "softplus_grad": (1, "an exponential to 1 unit and a product"),
    "softsign_grad": (1.5, "an addition, a square and a quotient"),
    "bias_grad": (10, "a sum: up to 32 additions one after another, then one for every 32 rows"),
    "mean": (8, "a sum of up to 1031 terms, in as few as 2 lanes"),
    "add_sum": (8, "a sum of up to 1031 terms, in as few as 2 lanes, and an addition"),
    "inverse_sum": (5, "a sum of up to 1031 terms, in as few as 2 lanes, and a quotient"),
    "shares": (5, "a sum of up to 1031 terms, in as few as 2 lanes, and a quotient"),
    "variance_correction": (5, "a sum of up to 1031 terms, in as few as 2 lanes, and a quotient"),
    "square_sum": (10, "a sum, as bias_grad"),
    "scale": (0.5, "one product"),
    "penalty_grad": (1.5, "two products and two sums"),
    "clip": (0, "exact"),
    "clip_factor": (5, "a sum of up to 1031 terms, its root and a quotient"),
    "limit_norms": (1.5, "a root, a quotient and a product"),
    "column_mean": (10, "a sum, as bias_grad"),
    "column_variance": (10, "a sum, as bias_grad"),
    "batch_norm_tick": (1.5, "a root and a quotient; a few products and sums"),
    "inverse_std": (1.5, "a root and a quotient"),
    "batch_norm": (1, "two products and two sums"),
    "scale_grad": (10, "a sum, as bias_grad"),
    "batch_norm_grad": (1.5, "five products and two sums"),
    "layer_norm": (8, "two sums of up to 1031 terms, a root and a quotient"),
    "layer_norm_grad": (8, "two sums of up to 1031 terms"),
    "squared_error": (5, "a sum of up to 1031 squares"),
    "poisson_deviance": (8, "a sum of up to 1031 terms, each of an exponential and a logarithm"),
    "dropout": (1, "the factor 1 / (1 - rate), and a product"),
    "flip": (0, "exact"),
    "shift": (0, "exact"),
    "rotate": (2, "a sine, a cosine and a few products; of places, which units() allows for"),
    "brightness_contrast": (8, "a sum of up to 1031 terms, in as few as 2 lanes; two products"),
    "gaussian_noise": (4, "a logarithm, a root and a quotient of polynomials, in float to 1e-7"),
    "softmax": (20, "a sum of up to 1031 exponentials, in as few as 2 lanes"),
    "sigmoid_cross_entropy": (10, "a sum of up to 1031 terms, many of them equal if clipped"),
    "softmax_cross_entropy": (
        8,
        "a sum of exponentials, of which INTERMEDIATE allows for most, and one of logits",
    ),
    "gradient_descent_update": (1, "two products and two sums"),
    "momentum_update": (1.5, "three products and three sums"),
    "rmsprop_update": (1.5, "the moment's rounding, halved by the root; a quotient"),
    "adam_tick": (0.5, "computed in float64, then rounded"),
    "average_update": (1.5, "a quotient, a product and three sums"),
    "nesterov_update": (1.5, "as momentum_update, with two products more"),
    "adam_update": (1.5, "as rmsprop_update, with the bias corrections in two factors"),
}

DEFAULT = (4.0, "a new row: a few operations, an exponential among them")

# A value on the way to the result that is not small where the result is, and is rounded too.
INTERMEDIATE: dict[tuple[str, str], float] = {
    ("softmax_cross_entropy", "losses"): 1.0,  # the sum of exponentials, at least 1
    ("softmax_cross_entropy", "dlogits"): 1.0,  # P, from which 1 is subtracted
}

# The same where an operation computes in float64 whatever its dtype. The power in adam_tick is off
# by up to two units in the last place on CUDA (CUDA C++ Programming Guide, "Mathematical
# Functions").
IN_DOUBLE: dict[tuple[str, str], float] = {
    ("adam_tick", "bias1"): 2.0,  # the power, at most 1, which is subtracted from 1
    ("adam_tick", "bias2"): 2.0,
    ("adam_tick", "eps"): 1.4e-5,  # through the root of 1 - 0.999^8: 1e-8 x 0.008^-1.5, twice half
}

SHAPES: dict[str, tuple[int, ...]] = {
    "one": (1, 1),
    "odd": (7, 13),
    "row": (1, 100),
    "column": (101, 1),
    "narrow": (75, 10),
    "wide": (3, 1031),
    "tall": (259, 33),
    "stack": (3, 5, 17),
    "no rows": (0, 5),
    "no columns": (4, 0),
}
VALUES = ("ordinary", "large", "zeros", "special")

_CONSTANTS: dict[str, Any] = {
    "slope": 0.1,
    "alpha": 0.7,
    "rate": 0.3,
    "seed": 0x123456789ABCDEF,
    "layer": 3,
    "purpose": 5,
    "beta": 0.9,
    "beta1": 0.9,
    "beta2": 0.999,
    "weight": 0.1,
    "eps": 1e-8,
    "eps_const": 1e-8,
    "epsilon_hat": True,
    "unbiased": True,
    "divide_by": 255.0,
    "l1": 0.3,
    "l2": 0.2,
    "limit": 1.0,
    "max_norm": 1.5,
    "momentum": 0.1,
    "smoothing": 0.1,
    "probability": 0.5,
    "pixels": 2,
    "degrees": 30.0,
    "fill": -0.5,
    "brightness": 0.2,
    "contrast": 0.3,
    "std": 0.4,
}
# Running means of squares, sums of squares, weights of samples, and counts.
_POSITIVE = ("v", "s", "squares", "variance", "running_variance", "weights", "counts")
_SCALES = {
    "learning_rate": 0.01,
    "bias1": 0.19,
    "bias2": 0.002,
    "eps": 1e-8,
    "weight_decay": 0.1,
    "correction": 1.1,
}


def draw(rng: np.random.Generator, shape: tuple[int, ...], values: str, dtype: Any) -> Any:
    """Draw an array of one class of values."""
    ordinary = rng.standard_normal(shape) * 3
    if values == "large":
        ordinary = rng.choice([-1e3, -100, -30, 1, 30, 100, 1e3], shape) * rng.random(shape)
    elif values == "zeros":
        ordinary = np.where(rng.random(shape) < 0.6, rng.choice([-0.0, 0.0], shape), ordinary)
    elif values == "special":
        special = rng.choice([np.inf, -np.inf, np.nan, 0.0, 1e3], shape)
        ordinary = np.where(rng.random(shape) < 0.2, special, ordinary)
    return ordinary.astype(dtype)


def case(
    name: str,
    shape: tuple[int, ...],
    values: str = "ordinary",
    dtype: Any = np.float32,
    *,
    optional: bool = True,
    shared: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Make the arguments of one call.

    Parameters
    ----------
    name : str
        The operation's.
    shape : tuple of int
        Of operands of layout ``each``.
    values : str
        One of :data:`VALUES`.
    dtype : dtype
        float32 or float64.
    optional : bool
        Whether optional operands are given.
    shared : bool
        Whether an operand of layout ``single`` has one value for all rows.
    """
    row = ROWS[name]
    rng = np.random.default_rng([seed, *name.encode()])
    arguments: dict[str, Any] = {}
    for operand in row.operands:
        if operand.optional and not optional:
            continue
        if operand.name == "out" and name != "gather":
            continue
        own = {
            "each": shape,
            "column": (*shape[:-2], shape[-1]),
            "row": shape[:-1],
            "single": (*shape[:-1], 1),
        }[operand.layout]
        if operand.layout == "single" and (shared or operand.name in ("step", "addend")):
            own = (1,)  # one value for all rows
        if operand.use == "out":
            arguments[operand.name] = np.full(own, np.nan, dtype)
        elif operand.name == "step":
            arguments["step"] = np.full(own, 7, np.int64)
        elif operand.type == "int64":
            arguments[operand.name] = rng.integers(0, max(shape[-1], 1), own)
        elif operand.name in _SCALES:
            arguments[operand.name] = (_SCALES[operand.name] * (1 + rng.random(own))).astype(dtype)
        elif operand.name == "labels":
            arguments[operand.name] = np.clip(rng.random(own) * 1.5 - 0.25, 0, 1).astype(dtype)
        else:
            array = draw(rng, own, values, dtype)
            arguments[operand.name] = np.abs(array) if operand.name in _POSITIVE else array
    if "A" in arguments:  # an output of the activation, not any number
        activation = name.removesuffix("_grad")
        constants = [_CONSTANTS[c.name] for c in row.numbers]
        with np.errstate(all="ignore"):
            arguments["A"] = getattr(NumpyOps(np), activation)(arguments["A"], *constants)
    for constant in row.numbers:
        if constant.name == "n_decay":
            arguments["n_decay"] = 2 * shape[-1] // 3 if optional else 0
        elif constant.name == "clip":
            arguments["clip"] = 0.0 if optional else 0.1
            # A long sum of equal terms, the clipped ones, loses a little the same way every time.
            arguments["smoothing"] = 0.1 if optional or shape[-1] <= 100 else 0.0
        elif constant.name == "halved":
            arguments["halved"] = not optional
        elif constant.formula is None:
            arguments[constant.name] = _CONSTANTS.get(constant.name, 0.5)
    if "height" in arguments:
        arguments["height"], arguments["width"] = image_size(shape[-1])
    if name == "gather":
        n = 50
        arguments["X"] = rng.integers(0, 256, (n, *shape[1:])).astype(np.uint8)
        arguments["indices"] = rng.integers(0, n, shape[0])
        arguments["out"] = np.zeros(shape, dtype)
    return arguments


def image_size(n_features: int) -> tuple[int, int]:
    """Take features for an image of 3, 2 or 1 channels that is not higher than wide."""
    n_channels = next(n for n in (3, 2, 1) if n_features % n == 0)
    n_pixels = max(n_features // n_channels, 1)
    height = max(n for n in range(1, n_pixels + 1) if n_pixels % n == 0 and n * n <= n_pixels)
    return height, n_pixels // height


def _has_options(name: str) -> bool:
    """Return whether ``optional`` and ``shared`` make a difference to :func:`case`."""
    one, other = (case(name, (7, 13), optional=given, shared=given) for given in (True, False))
    return one.keys() != other.keys() or not all(
        np.array_equal(one[key], other[key], equal_nan=True) for key in one
    )


WITH_OPTIONS = [name for name in ROWS if _has_options(name)]
# Operations, and which of their inputs: the usual or the rare.
SWEEPS = [*((name, "usual") for name in ROWS), *(slow(name, "rare") for name in WITH_OPTIONS)]


def sweep(name: str, which: str) -> list[tuple[str, tuple[int, ...], bool]]:
    """List the values, the shape and ``optional`` of many calls of an operation.

    The usual calls are those with optional operands, and with ordinary values those without them;
    the rare calls are the rest. See :func:`case` for what else ``optional`` changes.
    """
    return [
        (values, shape, optional)
        for values, shape in itertools.product(VALUES, SHAPES.values())
        for optional in ((True, False) if name in WITH_OPTIONS else (True,))
        if is_defined(name, shape)
        and which == ("usual" if optional or values == "ordinary" else "rare")
    ]


def copies(arguments: dict[str, Any]) -> dict[str, Any]:
    """Copy the arrays among arguments."""
    return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}


def call(operation: Any, row: Row, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call an operation on copies of its arguments, and give everything that it wrote."""
    return call_in_place(operation, row, copies(arguments))


def call_in_place(operation: Any, row: Row, own: dict[str, Any]) -> dict[str, Any]:
    """Call an operation on the very arguments, and give everything that it wrote."""
    with np.errstate(all="ignore"):
        result = operation(**own)
    written = {o.name: own[o.name] for o in row.operands if o.use != "in" and o.name in own}
    if result is not None:
        written["out"] = result
    return written


def on_device(device: Device, arguments: dict[str, Any]) -> dict[str, Any]:
    """Copy NumPy's arrays among arguments to a device, one that is given twice only once.

    A copy is C-contiguous. What else there is, such as an array of a CUDA device, whose layout may
    be what a test is about, stays as it is.
    """
    arrays = {id(v): v for v in arguments.values() if isinstance(v, np.ndarray)}
    own = {key: device.asarray(array.copy()) for key, array in arrays.items()}
    return {k: own.get(id(v), v) for k, v in arguments.items()}


def call_on(device: Device, operation: Any, row: Row, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call an operation as :func:`call` does, on a device, and bring what it wrote to the host.

    Arguments are as :func:`on_device` takes them. What is returned must be the very ``out`` that
    was given, and nothing where the operation has none.
    """
    own = on_device(device, arguments)
    with device.activate():
        result = operation(**own)
    outputs = [operand.name for operand in row.operands if operand.use != "in"]
    assert result is own.get("out", result)
    assert (result is not None) == ("out" in outputs)
    written = {name: own[name] for name in outputs if name in own}
    if result is not None:
        written["out"] = result
    return {name: device.to_host(array) for name, array in written.items()}


def exact(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run the reference in float64."""
    return call(getattr(NumpyOps(np), name), ROWS[name], _in_float64(arguments))


def units(name: str, arguments: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Measure, for every element written, what one rounding of each input does to it.

    Each floating-point input is moved alone, and for the sake of sums all of them with random
    signs. To this come one rounding of the result, those of :data:`INTERMEDIATE` and
    :data:`IN_DOUBLE`, where a sample is read between its pixels one of their places, along both
    axes of the image, and what becomes zero because it is too small.
    """
    operation, row = getattr(NumpyOps(np), name), ROWS[name]
    eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    step = 32 * eps
    wide = _in_float64(arguments)
    inputs = [k for k, v in wide.items() if isinstance(v, np.ndarray) and v.dtype == np.float64]
    rng = np.random.default_rng(1)
    with np.errstate(all="ignore"):
        center = call(operation, row, wide)
        alone: dict[str, Any] = dict.fromkeys(center, 0.0)
        together: dict[str, Any] = dict.fromkeys(center, 0.0)
        for k in inputs:
            moved = call(operation, row, {**wide, k: wide[k] * (1 + step)})
            for key in center:
                alone[key] += np.nan_to_num(np.abs(moved[key] - center[key]) / 32)
        for _ in range(4):
            signs = {k: wide[k] * (1 + step * rng.choice([-1, 1], wide[k].shape)) for k in inputs}
            moved = call(operation, row, {**wide, **signs})
            for key in center:
                distance = np.nan_to_num(np.abs(moved[key] - center[key]) / 32)
                together[key] = np.maximum(together[key], distance)
        lost = _underflows(name, wide, center, tiny)
        return {
            key: eps * (np.abs(value) + INTERMEDIATE.get((name, key), 0.0))
            + np.maximum(alone[key], together[key])
            + eps * _per_place(name, wide)
            + float(np.finfo(np.float64).eps) * IN_DOUBLE.get((name, key), 0.0)
            + lost[key]
            for key, value in center.items()
        }


class _WithSigmoid(NumpyOps):
    """The reference, with sigmoids that a function has changed."""

    def __init__(self, changed: Callable[[Any], Any]) -> None:
        super().__init__(np)
        self.changed = changed

    def sigmoid(self, Z: Any, b: Any = None, out: Any = None) -> Any:
        S = self.changed(super().sigmoid(Z, b))
        if out is None:
            return S
        out[...] = S
        return out


def _underflows(
    name: str, arguments: dict[str, Any], center: dict[str, Any], tiny: float
) -> dict[str, Any]:
    """Bound what subnormal numbers on the way contribute to the results.

    The host's loops take them for zero, and CuPy compiles every kernel so that in float32 they are
    (its compiler.py, ``-ftz=true``). Most are as small in the result, or are multiplied by an
    operand. A sigmoid near 0 is multiplied before.
    """
    if name not in _SIGMOID_ON_THE_WAY:
        return dict.fromkeys(center, tiny * _largest(arguments))
    own = {**arguments, "A": arguments["A"] + tiny} if "A" in arguments else arguments
    moved = call(getattr(_WithSigmoid(lambda S: S + tiny), name), ROWS[name], own)
    lost = {key: np.nan_to_num(np.abs(moved[key] - center[key])) for key in center}
    if "db" in lost:
        lost["db"] = NumpyOps(np).bias_grad(lost["out"])
    return {key: value + tiny for key, value in lost.items()}


def _largest(arguments: dict[str, Any]) -> float:
    """Return the largest finite number among the operands, or 1."""
    arrays = [a for a in arguments.values() if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    return max([1.0, *(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in arrays)])


# Computed within, or read as A, which near 0 is one.
_SIGMOID_ON_THE_WAY = ("gelu_tanh", "gelu_tanh_grad", "sigmoid_grad", "softplus_grad")


def flushed(array: Any) -> Any:
    """Take subnormal numbers for zero."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return array
    return np.where(np.abs(array) < np.finfo(array.dtype).tiny, array.dtype.type(0), array)


def _per_place(name: str, arguments: dict[str, Any]) -> Any:
    """Bound what a sample changes by, where it is read elsewhere by a part of the image's size."""
    if name != "rotate":
        return 0.0
    pixels = np.abs(arguments["X"])
    pixels = np.where(np.isfinite(pixels), pixels, 0).max(axis=-1, initial=0, keepdims=True)
    size = arguments["height"] + arguments["width"]
    return 2 * size * np.maximum(pixels, abs(arguments["fill"]))


class Expected:
    """What a call should write, and how far from it a kernel may be.

    Computed once, in a dozen runs of the reference, then compared with every kernel's results.

    Attributes
    ----------
    exact, unit : dict of arrays
        Of :func:`exact` and :func:`units`.
    """

    def __init__(self, name: str, arguments: dict[str, Any], dtype: Any) -> None:
        self.name, self.dtype = name, np.dtype(dtype)
        self.exact, self.unit = exact(name, arguments), units(name, arguments, dtype)
        row = ROWS[name]
        self._in_dtype = call(getattr(NumpyOps(np), name), row, arguments)
        self._with_zeros = call(getattr(_WithSigmoid(flushed), name), row, arguments)

    def ratios(self, written: dict[str, Any]) -> dict[str, float]:
        """Measure how far results are from the exact ones, in units.

        What is not finite must be the reference's in float64, or the reference's in the dtype
        itself, subnormal sigmoids kept or taken for zero: infinity times a number that underflows
        in one of them is nan there and infinite in the other.
        """
        name = self.name
        assert written.keys() == self.exact.keys()
        worst = {}
        for key, found in written.items():
            expected = self.exact[key]
            assert found.shape == expected.shape, (name, key)
            if found.dtype.kind != "f":
                np.testing.assert_array_equal(found, expected)
                continue
            assert found.dtype == self.dtype, (name, key)
            with np.errstate(all="ignore"):
                rounded = expected.astype(self.dtype)
                error = np.abs(found - expected) / self.unit[key]
            is_finite = np.isfinite(found) & np.isfinite(rounded)
            if not is_finite.all():
                is_same = _same(found, rounded) | _same(found, self._in_dtype[key])
                is_same |= _same(found, self._with_zeros[key])
                assert (is_same | is_finite).all(), (
                    f"{name}: {key} is {found[~is_same & ~is_finite][:5]} where the reference "
                    f"gives {rounded[~is_same & ~is_finite][:5]}"
                )
            worst[key] = float(error[is_finite].max(initial=0))
        return worst

    def assert_near(self, written: dict[str, Any]) -> None:
        """Compare what a call wrote with the exact results, within :data:`TOLERANCE`."""
        for key, worst in self.ratios(written).items():
            limit = tolerance(self.name, key)
            assert worst <= limit, (
                f"{self.name}: {key} is off by {worst:.2f} units, {limit} are allowed"
            )


def assert_near(name: str, written: dict[str, Any], arguments: dict[str, Any], dtype: Any) -> None:
    """Compare what a single call wrote; see :class:`Expected`."""
    Expected(name, arguments, dtype).assert_near(written)


def tolerance(name: str, key: str) -> float:
    """Look up how many units a result may be off, and what is summed over the rows beside it."""
    own = TOLERANCE.get(name, DEFAULT)[0]
    return own + (TOLERANCE["bias_grad"][0] if key in ("db", "penalty") else 0)


def _same(a: Any, b: Any) -> Any:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _in_float64(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.astype(np.float64)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
        else value
        for key, value in arguments.items()
    }
