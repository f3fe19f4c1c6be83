"""The reference operations against independent formulas in extended precision."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from xpnet.kernels.reference import NumpyOps, ReferenceOps

LONG = np.longdouble
ORDINARY = np.concatenate([np.linspace(-6, 6, 41), [-0.0, 0.0, 1e-8, -1e-8]])
LARGE = np.array([-1e3, -100.0, -30.0, 30.0, 100.0, 1e3])
TANH_GELU = LONG(2) / LONG(np.pi)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _gelu_inner(z):
    return np.sqrt(TANH_GELU) * (z + LONG(0.044715) * z**3)


# name: (function, derivative, constants), each written as in a textbook, in extended precision,
# whose exponent range keeps exp(1000) finite.
ACTIVATIONS: dict[str, tuple[Any, Any, tuple[float, ...]]] = {
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z), ()),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2, ()),
    "relu": (lambda z: np.where(z > 0, z, 0), lambda z: np.where(z > 0, 1, 0), ()),
    "leaky_relu": (
        lambda z: np.where(z > 0, z, LONG(0.1) * z),
        lambda z: np.where(z > 0, 1, LONG(0.1)),
        (0.1,),
    ),
    "elu": (
        lambda z: np.where(z > 0, z, LONG(0.7) * np.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 1, LONG(0.7) * np.exp(np.minimum(z, 0))),
        (0.7,),
    ),
    "gelu_tanh": (
        lambda z: z / 2 * (1 + np.tanh(_gelu_inner(z))),
        lambda z: (
            (1 + np.tanh(_gelu_inner(z))) / 2
            + z
            / 2
            / np.cosh(np.clip(_gelu_inner(z), -5000, 5000)) ** 2
            * np.sqrt(TANH_GELU)
            * (1 + 3 * LONG(0.044715) * z**2)
        ),
        (),
    ),
    "softplus": (lambda z: np.logaddexp(LONG(0), z), _sigmoid, ()),
    "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: 1 / (1 + np.abs(z)) ** 2, ()),
}
GRADIENT_FROM_INPUT = {"gelu_tanh", "softsign"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("values", [ORDINARY, LARGE], ids=["ordinary", "large"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(dev, name, values, dtype):
    function, derivative, constants = ACTIVATIONS[name]
    ops = dev.ops
    z = values.astype(dtype)
    upstream = np.linspace(-2, 2, len(z)).astype(dtype)
    exact = function(z.astype(LONG))
    exact_gradient = upstream.astype(LONG) * derivative(z.astype(LONG))
    with dev.activate():
        Z = dev.asarray(z)
        A = getattr(ops, name)(Z, *constants)
        kept = Z if name in GRADIENT_FROM_INPUT else A
        dZ = getattr(ops, f"{name}_grad")(dev.asarray(upstream), kept, *constants)
    eps = np.finfo(dtype).eps
    for found, expected in ((A, exact), (dZ, exact_gradient)):
        host = dev.to_host(found)
        assert host.dtype == dtype
        error = np.abs(host.astype(LONG) - expected)
        # relative where the value is large, absolute below 1
        assert np.all(error <= 8 * eps * np.maximum(np.abs(expected), 1)), float(error.max())


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "elu", "softsign", "tanh", "gelu_tanh"])
def test_relative_accuracy_for_small_results(dev, name):
    """No cancellation where the result is tiny: forms such as (1 + tanh)/2 fail this."""
    function, _, constants = ACTIVATIONS[name]
    z = np.array([-30.0, -10.0, -1e-8, 1e-8]) if name in ("sigmoid", "softplus") else [1e-8, -1e-8]
    with dev.activate():
        found = dev.to_host(getattr(dev.ops, name)(dev.asarray(np.array(z)), *constants))
    exact = function(np.array(z, LONG))
    assert np.all(np.abs(found.astype(LONG) / exact - 1) < 1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_in_place_and_into_out(dev, name):
    _, _, constants = ACTIVATIONS[name]
    z = np.linspace(-3, 3, 35).reshape(5, 7)
    with dev.activate():
        for operation, inputs in (
            (getattr(dev.ops, name), [z]),
            (getattr(dev.ops, f"{name}_grad"), [np.cos(z), z]),
        ):
            first = [dev.asarray(array.copy()) for array in inputs]
            expected = dev.to_host(operation(*first, *constants)).copy()
            out = dev.xp.empty_like(first[0])
            assert operation(*first, *constants, out=out) is out
            np.testing.assert_array_equal(dev.to_host(out), expected)
            assert operation(*first, *constants, out=first[0]) is first[0]
            np.testing.assert_array_equal(dev.to_host(first[0]), expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_of_nan_is_nan(dev, name):
    """A diverged value must not be hidden on its way to the loss."""
    _, _, constants = ACTIVATIONS[name]
    with dev.activate():
        A = getattr(dev.ops, name)(dev.asarray(np.array([np.nan, 1.0])), *constants)
    assert np.isnan(dev.to_host(A)[0])
    assert np.isfinite(dev.to_host(A)[1])


@pytest.mark.parametrize(
    ("name", "at_minus", "at_plus"),
    [
        ("sigmoid", 0, 1),
        ("tanh", -1, 1),
        ("relu", 0, np.inf),
        ("leaky_relu", -np.inf, np.inf),
        ("elu", -0.7, np.inf),
        ("softplus", 0, np.inf),
        ("gelu_tanh", np.nan, np.inf),
        ("softsign", np.nan, np.nan),
    ],
)
def test_activation_at_infinity(dev, name, at_minus, at_plus):
    _, _, constants = ACTIVATIONS[name]
    with dev.activate():
        A = getattr(dev.ops, name)(dev.asarray(np.array([-np.inf, np.inf])), *constants)
    np.testing.assert_array_equal(dev.to_host(A), [at_minus, at_plus])


def test_softmax(dev):
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0], [-1e3, -1e3, -1e3]])
    exact = np.exp(logits.astype(LONG))
    exact /= exact.sum(axis=1, keepdims=True)
    with dev.activate():
        found = dev.to_host(dev.ops.softmax(dev.asarray(logits)))
    np.testing.assert_allclose(found, exact.astype(float), rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [1.0, 1e3])
def test_sigmoid_cross_entropy(dev, dtype, magnitude):
    rng = np.random.default_rng(0)
    z = (magnitude * rng.standard_normal((7, 3))).astype(dtype)
    y = rng.random((7, 3)).astype(dtype)
    y[0], y[1] = 0, 1
    exact_z, exact_y = z.astype(LONG), y.astype(LONG)
    a, one_minus_a = _sigmoid(exact_z), _sigmoid(-exact_z)
    losses = -(exact_y * np.log(a) + (1 - exact_y) * np.log(one_minus_a)).sum(axis=1)
    _check_loss(dev, dev.ops.sigmoid_cross_entropy, z, y, losses, (a - exact_y) / 7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_cross_entropy_keeps_its_digits_for_confident_answers(dev, dtype):
    z = np.array([0.5, 5, 10, 15, 20, 30, 80], dtype)
    exact = np.log1p(np.exp(-z.astype(LONG)))
    for y, sign in ((1, 1), (0, -1)):
        with dev.activate():
            logits = dev.asarray((sign * z)[:, None])
            losses = dev.xp.empty(len(z), dtype=dtype)
            labels = dev.xp.full((len(z), 1), y, dtype=dtype)
            dev.ops.sigmoid_cross_entropy(logits, labels, losses)
        assert np.all(np.abs(dev.to_host(losses) / exact - 1) < 4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [1.0, 1e3])
def test_softmax_cross_entropy(dev, dtype, magnitude):
    rng = np.random.default_rng(1)
    z = (magnitude * rng.standard_normal((7, 4))).astype(dtype)
    y = rng.integers(0, 4, 7)
    p = np.exp(z.astype(LONG))
    p /= p.sum(axis=1, keepdims=True)
    gradient = p.copy()
    gradient[np.arange(7), y] -= 1
    _check_loss(dev, dev.ops.softmax_cross_entropy, z, y, -np.log(p[np.arange(7), y]), gradient / 7)


def _check_loss(dev, operation, z, y, exact_losses, exact_gradient):
    eps = np.finfo(z.dtype).eps
    with dev.activate():
        logits, labels = dev.asarray(z), dev.asarray(y)
        losses = dev.xp.empty(len(z), dtype=z.dtype)
        dlogits = dev.xp.empty_like(logits)
        operation(logits, labels, losses, dlogits)
        only = dev.xp.empty_like(losses)
        operation(logits, labels, only)
    found = dev.to_host(losses)
    assert found.dtype == z.dtype
    np.testing.assert_array_equal(dev.to_host(only), found)
    scale = np.maximum(np.abs(z).max(), 1)
    assert np.all(np.abs(found - exact_losses) <= 16 * eps * scale)
    assert np.all(np.abs(dev.to_host(dlogits) - exact_gradient) <= 8 * eps)


def test_products_sums_and_gather(dev):
    rng = np.random.default_rng(2)
    X, W, b = rng.standard_normal((5, 3)), rng.standard_normal((3, 4)), rng.standard_normal(4)
    rows = np.array([4, 0, 4])
    with dev.activate():
        Z = dev.ops.matmul(dev.asarray(X), dev.asarray(W))
        dev.ops.add_bias(Z, dev.asarray(b), out=Z)
        np.testing.assert_allclose(dev.to_host(Z), X @ W + b, rtol=1e-13)
        dW = dev.ops.matmul(dev.asarray(X).swapaxes(-1, -2), Z)
        np.testing.assert_allclose(dev.to_host(dW), X.T @ (X @ W + b), rtol=1e-12)
        np.testing.assert_allclose(
            dev.to_host(dev.ops.bias_grad(Z)), (X @ W + b).sum(axis=0), rtol=1e-13
        )
        np.testing.assert_array_equal(
            dev.to_host(dev.ops.gather(dev.asarray(X), dev.asarray(rows))), X[rows]
        )
        np.testing.assert_allclose(
            dev.to_host(dev.ops.mean(dev.asarray(X))), X.mean(axis=1, keepdims=True), rtol=1e-14
        )


def test_a_leading_axis_stacks_networks(dev):
    """Every operation of a step over (K, n, d) equals K steps over (n, d)."""
    rng = np.random.default_rng(3)
    X, W, b = (rng.standard_normal(shape) for shape in ((2, 5, 3), (2, 3, 4), (2, 4)))
    y = rng.integers(0, 4, (2, 5))

    def step(X, W, b, y):
        ops, xp = dev.ops, dev.xp
        X, W, b, y = (dev.asarray(array) for array in (X, W, b, y))
        A = ops.tanh(ops.add_bias(ops.matmul(X, W), b))
        losses, dA = xp.empty(A.shape[:-1]), xp.empty_like(A)
        ops.softmax_cross_entropy(A, y, losses, dA)
        dZ = ops.tanh_grad(dA, A)
        dW, db = ops.matmul(X.swapaxes(-1, -2), dZ), ops.bias_grad(dZ)
        return [dev.to_host(array) for array in (ops.mean(losses), dW, db)]

    def binary(Z, Y):
        ops, xp = dev.ops, dev.xp
        Z, Y = dev.asarray(Z), dev.asarray(Y)
        losses, dZ = xp.empty(Z.shape[:-1]), xp.empty_like(Z)
        ops.sigmoid_cross_entropy(Z, Y, losses, dZ)
        return [dev.to_host(losses), dev.to_host(dZ)]

    with dev.activate():
        Z, Y = rng.standard_normal((2, 5, 3)), rng.random((2, 5, 3))
        for k in range(2):
            for whole, single in zip(binary(Z, Y), binary(Z[k], Y[k]), strict=True):
                np.testing.assert_array_equal(whole[k], single)
        stacked = step(X, W, b, y)
        for k in range(2):
            for whole, single in zip(stacked, step(X[k], W[k], b[k], y[k]), strict=True):
                np.testing.assert_allclose(whole[k], single, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("epsilon_hat", [False, True])
def test_adam_scalars_are_exact(dev, dtype, epsilon_hat):
    """Bias corrections come from float64: in float32 1 - 0.999 would be 1e-5 off."""
    with dev.activate():
        step = dev.xp.zeros(1, dtype=np.int64)
        bias1, bias2, eps = (dev.xp.zeros(1, dtype=dtype) for _ in range(3))
        for t in range(1, 4):
            dev.ops.adam_tick(step, bias1, bias2, eps, 0.9, 0.999, 1e-8, epsilon_hat)
            expected = 1e-8 / np.sqrt(1 - 0.999**t) if epsilon_hat else 1e-8
            for found, exact in ((bias1, 1 - 0.9**t), (bias2, 1 - 0.999**t), (eps, expected)):
                assert dev.to_host(found)[0] == dtype(exact)
            assert dev.to_host(step)[0] == t


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_decay", [0, 3, 5])
@pytest.mark.parametrize("name", ["gradient_descent", "momentum", "nesterov", "rmsprop", "adam"])
def test_update_rules(dev, name, n_decay, dtype):
    """Three steps, written as in the papers, in extended precision."""
    rng = np.random.default_rng(4)
    param, grads = rng.standard_normal(5).astype(dtype), rng.standard_normal((3, 5)).astype(dtype)
    rate, decay = LONG(dtype(0.05)), LONG(dtype(0.3))
    p, first, second = param.astype(LONG), np.zeros(5, LONG), np.zeros(5, LONG)
    for t, gradient in enumerate(grads, start=1):
        g = gradient.astype(LONG)
        p = p - rate * decay * np.where(np.arange(5) < n_decay, p, 0)
        if name == "gradient_descent":
            p = p - rate * g
        elif name == "momentum":
            first = LONG(0.9) * first + LONG(0.1) * g
            p = p - rate * first
        elif name == "nesterov":
            first = LONG(0.9) * first + LONG(0.1) * g
            p = p - rate * (LONG(0.9) * first + LONG(0.1) * g)
        elif name == "rmsprop":
            second = LONG(0.9) * second + (1 - LONG(0.9)) * g**2
            p = p - rate * g / (np.sqrt(second) + LONG(1e-8))
        else:
            first = LONG(0.9) * first + (1 - LONG(0.9)) * g
            second = LONG(0.999) * second + (1 - LONG(0.999)) * g**2
            corrected = first / (1 - LONG(0.9) ** t), second / (1 - LONG(0.999) ** t)
            p = p - rate * corrected[0] / (np.sqrt(corrected[1]) + LONG(1e-8))

    with dev.activate():
        ops, xp = dev.ops, dev.xp
        found = dev.asarray(param.copy())
        m, v = xp.zeros_like(found), xp.zeros_like(found)
        step = xp.zeros(1, dtype=np.int64)
        bias1, bias2, eps = (xp.zeros(1, dtype=dtype) for _ in range(3))
        learning_rate, weight_decay = (xp.full(1, value, dtype=dtype) for value in (0.05, 0.3))
        decays = (weight_decay, n_decay)
        for gradient in grads:
            g = dev.asarray(gradient)
            if name == "gradient_descent":
                ops.gradient_descent_update(found, g, learning_rate, *decays)
            elif name == "momentum":
                ops.momentum_update(found, g, m, learning_rate, 0.9, 0.1, *decays)
            elif name == "nesterov":
                ops.nesterov_update(found, g, m, learning_rate, 0.9, 0.1, *decays)
            elif name == "rmsprop":
                ops.rmsprop_update(found, g, v, learning_rate, 0.9, 1e-8, *decays)
            else:
                ops.adam_tick(step, bias1, bias2, eps, 0.9, 0.999, 1e-8, False)
                scalars = (learning_rate, bias1, bias2, eps)
                ops.adam_update(found, g, m, v, *scalars, 0.9, 0.999, *decays)
    # rounding 1 - beta^t is magnified by Adam's first, long steps
    error = np.abs(dev.to_host(found) - p).max()
    assert error < 16 * np.finfo(dtype).eps * np.abs(param).max(), float(error)


def test_fused_operation_replaces_the_reference():
    ops = ReferenceOps(np, {"relu": lambda Z, out=None: "fused"})
    assert ops.relu(np.zeros(1)) == "fused"
    assert ops.fused == {"relu"}
    assert ReferenceOps(np).relu(np.array([-1.0])) == 0


@pytest.mark.parametrize("name", ["rulu", "_store", "xp"])
def test_unknown_fused_operation(name):
    with pytest.raises(ValueError, match=f"unknown operation '{name}'"):
        ReferenceOps(np, {name: len})


@pytest.mark.parametrize("shape", [(70_000,), (2, 40_000), (32_768,), (5,), (0,), (3, 0)])
@pytest.mark.parametrize("n_decay", [0, 4, 33_000])
def test_numpys_blocks_are_the_whole(shape, n_decay):
    rng = np.random.default_rng(0)
    arrays = [rng.random(shape, np.float32) for _ in range(4)]
    single = (*shape[:-1], 1)
    rate, bias1, bias2, eps = (
        np.full(single, value, np.float32) for value in (0.01, 0.3, 0.2, 1e-8)
    )
    decay = np.full(single, 0.1, np.float32)
    found = []
    for table in (ReferenceOps(np), NumpyOps(np)):
        param, grad, m, v = (array.copy() for array in arrays)
        table.adam_update(param, grad, m, v, rate, bias1, bias2, eps, 0.9, 0.999, decay, n_decay)
        found.append((param, m, v))
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_overrides_keep_the_signature():
    for name, method in inspect.getmembers(NumpyOps, inspect.isfunction):
        base = getattr(ReferenceOps, name)
        assert inspect.signature(method) == inspect.signature(base), name
