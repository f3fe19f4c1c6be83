"""Gradient checking: compare the backward pass with finite differences of the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array
from xpnet.nn.batch import Batch
from xpnet.nn.checks import check_count, check_positive
from xpnet.nn.interfaces import Layer
from xpnet.nn.losses import Loss, resolve_with_labels
from xpnet.nn.network import Network, load_batch
from xpnet.nn.regularization import Regularizer
from xpnet.random import check_seed

__all__ = ["GradientCheck", "gradient_check"]

_WIDTHS = tuple(10.0**-k for k in np.arange(2, 6.1, 0.5))  # step sizes h, tried in this order
_NOISE = 1e-9  # acceptable rounding error of a quotient, relative to the array's gradient
_CONVERGED = 1e-12  # largest difference of two extrapolations, relative to the gradient's scale
_ALWAYS_TRIED = 1e-3  # steps down to this one are tried despite rounding
_DEFAULT_FEATURES = 4
_FLOOR = 1e-4  # smallest norm an error is divided by, relative to the whole gradient's norm
_SCALE_SAMPLE = 32  # elements of each array that determine the scale


@dataclass(frozen=True)
class GradientCheck:
    """Result of :func:`gradient_check`.

    Attributes
    ----------
    errors : dict of str to float
        Relative error of the gradient for ``"X"`` and each parameter, ``|a - n| / max(|a| + |n|,
        1e-4 |whole|)``. ``a`` is the gradient from the backward pass, ``n`` the one from finite
        differences and ``|.|`` the Euclidean norm, all over the chosen elements; ``whole`` is
        ``n`` for all arrays together, with ``a`` in place of missing elements of ``n``. The error
        is infinite if any element of ``a`` is not finite, or if most of ``a`` (by its norm) could
        not be compared.
    skipped : dict of str to int
        Number of elements for which finite differences gave no derivative.
    checked : dict of str to int
        Number of elements that were compared.
    tolerance : float
        Every error must be below this.
    """

    errors: dict[str, float]
    skipped: dict[str, int]
    checked: dict[str, int]
    tolerance: float

    @property
    def worst(self) -> str:
        """Name of the array with the largest error."""
        return max(self.errors, key=lambda name: self.errors[name])

    @property
    def passed(self) -> bool:
        """Whether every error is below the tolerance; an array with nothing to compare fails."""
        return all(error < self.tolerance for error in self.errors.values())

    def __str__(self) -> str:
        lines = [f"gradient check {'passed' if self.passed else 'FAILED'}, worst: {self.worst}"]
        for name, error in self.errors.items():
            verdict = "" if error < self.tolerance else f"  not below {self.tolerance:g}"
            skipped = f", {self.skipped[name]} skipped" if self.skipped[name] else ""
            lines.append(
                f"  {name:<16} {error:9.2e}  ({self.checked[name]} elements{skipped}){verdict}"
            )
        return "\n".join(lines)


def gradient_check(
    model: Network | Layer,
    X: Any = None,
    y: Any = None,
    *,
    loss: str | dict[str, Any] | Loss | None = None,
    sample_weight: Any = None,
    l1: float = 0.0,
    l2: float = 0.0,
    n_features: int | None = None,
    batch_size: int = 5,
    seed: int = 0,
    tolerance: float = 1e-7,
    max_elements: int = 500,
    device: str | Device | None = None,
) -> GradientCheck:
    """Compare a backward pass with finite differences of the forward pass, in float64.

    The function that is differentiated is the mean loss if a loss is given, else ``sum(R *
    output)`` with a random upstream gradient ``R``, plus the penalties ``l1`` and ``l2`` on the
    weights. The check covers the gradients of every parameter and of the input, even if training
    does not need the latter. The network runs in training mode: batch normalisation uses the
    batch's statistics, and dropout is active, with one mask for the whole check.

    The central difference ``g(h) = (f(x + h) - f(x - h)) / 2h`` is extrapolated twice by
    Richardson's rule: ``g1(h) = (4 g(h/2) - g(h)) / 3`` has an error of order ``h^4``, and
    ``(16 g1(h/2) - g1(h)) / 15`` one of order ``h^6``. If the two disagree, the function is too
    steep for ``h = 1e-2`` or has a kink nearby, such as that of a ReLU; smaller steps are then
    tried as far as rounding allows. An element for which no step works, because it lies at or next
    to a kink, is skipped and counted. The check fails for an array of which most is skipped, by the
    norm of the gradient from the backward pass. This happens to a ReLU whose biases are exactly 0
    and whose preceding units are all inactive; small random biases avoid it.

    Parameters
    ----------
    model : Network or Layer
        Network or layer to check. A network is checked at its current parameters, in a float64
        copy; a layer as a new copy, at parameters drawn from the normal distribution with
        variance 1/4.
    X : array_like (n_samples, n_features), optional
        Input. By default drawn from the standard normal distribution.
    y : array_like, optional
        Labels; required if ``loss`` is given.
    loss : str, dict or Loss, optional
        Loss whose mean is differentiated.
    sample_weight : array_like (n_samples,), optional
        Weight of each sample in the mean loss and in batch normalisation.
    l1, l2 : float
        Coefficients of the penalties; see :class:`xpnet.nn.Regularizer`.
    n_features, batch_size : int
        Shape of the random ``X``. ``n_features`` applies only to a layer; it is 4 by default.
    seed : int
        Seed of all random numbers.
    tolerance : float
        Every error must be below this.
    max_elements : int
        Number of elements to compare in each array; they are chosen at random in a larger one.
    device : str, Device or None
        Device on which to check a layer; a network is checked on its own device.

    Returns
    -------
    GradientCheck

    Raises
    ------
    ValueError, TypeError
        If the arguments do not fit each other.

    References
    ----------
    LeVeque, "Finite difference methods for ordinary and partial differential equations", 2007,
    chapter 1, for the quotients and their errors.
    """
    rng = np.random.default_rng(check_seed(seed))
    check_positive("tolerance", tolerance)
    check_count("max_elements", max_elements)
    chosen = resolve_with_labels(loss, y)
    if loss is None and sample_weight is not None:
        raise ValueError("sample_weight was given without a loss: pass loss=... as well")
    regularizer = Regularizer(l1=l1, l2=l2)
    if isinstance(model, Network):
        if n_features is not None or device is not None:
            raise ValueError("n_features and device must be None for a network, which has its own")
        network = model.copy(dtype="float64")
    elif isinstance(model, Layer):
        if X is not None and np.ndim(X) == 2:
            if n_features not in (None, np.shape(X)[1]):
                raise ValueError(f"X has {np.shape(X)[1]} features, but n_features={n_features}")
            n_features = np.shape(X)[1]
        width = _DEFAULT_FEATURES if n_features is None else n_features
        network = Network([model.clone()], width, device=device, dtype="float64")
        with network.device.activate():
            for view in network.named_parameters().values():
                view[...] = network.device.asarray(0.5 * rng.standard_normal(view.shape))
    else:
        raise TypeError(f"model must be a Network or a Layer, got {model!r}")
    if X is None:
        shape = (check_count("batch_size", batch_size), network.n_features)
        X = rng.standard_normal(shape)
    X = load_batch(network, X)
    with network.device.activate():
        batch = Batch.of(network.device, len(X), np.float64, seed=seed)
        objective = _Objective(network, X, y, chosen, rng, batch, regularizer, sample_weight)
        analytic = objective.gradients()
        return _compare(objective, analytic, rng, tolerance, max_elements)


class _Objective:
    """Scalar function of a network's parameters and input, with its gradient.

    Attributes
    ----------
    rounding : float
        Approximate rounding error of the last value.
    """

    rounding = 0.0

    def __init__(
        self,
        network: Network,
        X: Any,
        y: Any,
        loss: Loss | None,
        rng: np.random.Generator,
        batch: Batch,
        regularizer: Regularizer,
        sample_weight: Any,
    ) -> None:
        device = network.device
        self.network, self.loss, self.regularizer = network, loss, regularizer
        self.X = device.xp.array(X)  # a copy: it is perturbed
        self.mean = device.xp.zeros(1)
        self.weights: dict[str, Array] = {}
        self.shares = np.full(len(X), 1 / len(X))
        if sample_weight is not None:
            weights = device.asarray(sample_weight, np.float64, name="sample_weight")
            if weights.shape != (len(X),):
                raise ValueError(f"sample_weight must have shape ({len(X)},), got {weights.shape}")
            if not bool((weights >= 0).all() & device.xp.isfinite(weights).all() & weights.any()):
                raise ValueError("sample_weight must be finite and at least 0, and not all 0")
            shares = device.ops.shares(weights, out=batch.weights[..., 0])
            device.ops.variance_correction(shares, out=batch.correction)
            self.weights["weights"] = shares
            self.shares = device.to_host(batch.weights)[:, 0].copy()
        self.caches = network.allocate(len(X), training=True, input_gradient=True, batch=batch)
        if loss is not None:
            self.y = loss.labels(device, y, network.n_outputs, np.float64)
            if len(self.y) != len(X):
                raise ValueError(
                    f"X and y must have the same length, got {len(X)} and {len(self.y)}"
                )
            self.losses = device.xp.empty(len(X))
        else:
            self.upstream = rng.standard_normal((len(X), network.n_outputs))

    def arrays(self) -> dict[str, Any]:
        return {"X": self.X, **self.network.named_parameters()}

    def value(self) -> float:
        device = self.network.device
        output = self.network.forward(self.X, self.caches)
        if self.loss is None:
            terms = self.upstream * device.to_host(output)
        else:
            self.loss.forward(device.ops, output, self.y, self.losses, self.mean, **self.weights)
            terms = device.to_host(self.losses) * self.shares
        if self.regularizer.has_penalty:
            l1, l2 = self.regularizer.l1, self.regularizer.l2
            weights = device.to_host(self.network.parameters)[: self.network.n_decayed]
            terms = np.append(terms, l1 * np.abs(weights).sum() + l2 / 2 * (weights**2).sum())
        self.rounding = float(np.finfo(float).eps * np.sum(np.abs(terms)))
        return float(np.sum(terms))

    def gradients(self) -> dict[str, npt.NDArray[np.float64]]:
        """Run the backward pass once."""
        device = self.network.device
        output = self.network.forward(self.X, self.caches)
        dA = device.xp.empty_like(output)
        if self.loss is None:
            dA[...] = device.asarray(self.upstream)
        else:
            self.loss.forward(
                device.ops, output, self.y, self.losses, self.mean, dA, **self.weights
            )
        self.network.gradients.fill(np.nan)  # elements that backward does not write must not pass
        dX: Array = self.network.backward(dA, self.caches)
        if dX.shape != self.X.shape or dX.dtype != self.X.dtype:
            raise TypeError(
                f"{type(self.network.layers[0]).__name__}.backward must return dX as "
                f"{self.X.dtype} {self.X.shape}, got {dX.dtype} {dX.shape}"
            )
        self.regularizer.apply(
            device.ops,
            self.network,
            self.mean,
            self.regularizer.allocate(self.network, len(self.X)),
        )
        found = {"X": device.to_host(dX).copy()}
        # In a network the layer before overwrites dX; a gradient that shares its memory would not
        # survive that, and must not pass here.
        try:
            dX[...] = np.nan
        except ValueError as error:
            layer = type(self.network.layers[0]).__name__
            raise TypeError(f"{layer}.backward must return a writable array") from error
        for name, gradient in self.network.named_gradients().items():
            found[name] = device.to_host(gradient).copy()
        return found


def _compare(
    objective: _Objective,
    analytic: dict[str, npt.NDArray[np.float64]],
    rng: np.random.Generator,
    tolerance: float,
    max_elements: int,
) -> GradientCheck:
    arrays = objective.arrays()
    at_center = objective.value()
    indices = {}
    for name, array in arrays.items():
        chosen = np.arange(array.size)
        if array.size > max_elements:
            chosen = np.sort(rng.choice(array.size, max_elements, replace=False))
        indices[name] = chosen
    scale = _scale(objective, arrays, indices)
    rounding = objective.rounding
    sampled = {name: analytic[name].reshape(-1)[indices[name]] for name in arrays}
    numeric: dict[str, npt.NDArray[np.float64]] = {}
    for name, array in arrays.items():
        # The backward pass influences only how small the steps may become, nothing else here.
        noise = max(_CONVERGED * scale, _NOISE * np.abs(sampled[name]).max())
        widths = [h for h in _WIDTHS if h >= _ALWAYS_TRIED or 2 * rounding / h <= noise]
        quotients = [
            _derivative(_along(objective, array, int(i)), at_center, rounding, scale, widths)
            for i in indices[name]
        ]
        numeric[name] = np.array([np.nan if q is None else q for q in quotients])
    # For a skipped element the value from the backward pass counts towards the whole.
    whole = float(
        np.sqrt(sum(np.sum(np.where(np.isnan(n), sampled[k], n) ** 2) for k, n in numeric.items()))
    )
    errors, skipped, checked = {}, {}, {}
    for name, n in numeric.items():
        known = ~np.isnan(n)
        skipped[name], checked[name] = int((~known).sum()), int(known.sum())
        a, left_out = sampled[name][known], sampled[name][~known]
        errors[name] = _error(a, n[known], whole)
        is_mostly_left_out = not known.any() or np.linalg.norm(left_out) > np.linalg.norm(a)
        if is_mostly_left_out or not np.isfinite(analytic[name]).all():
            errors[name] = float("inf")
    return GradientCheck(errors, skipped, checked, tolerance)


def _error(a: npt.NDArray[np.float64], n: npt.NDArray[np.float64], whole: float) -> float:
    difference = float(np.linalg.norm(a - n))
    against = max(float(np.linalg.norm(a) + np.linalg.norm(n)), _FLOOR * whole)
    return difference / against if against else 0.0


def _along(objective: _Objective, array: Any, index: int) -> Callable[[float], float]:
    """Return the objective as a function of a shift of one element."""
    place = np.unravel_index(index, array.shape)
    original = float(objective.network.device.to_host(array[place]))

    def shifted(h: float) -> float:
        array[place] = original + h
        value = objective.value()
        array[place] = original
        return value

    return shifted


def _scale(
    objective: _Objective, arrays: dict[str, Any], indices: dict[str, npt.NDArray[np.int64]]
) -> float:
    """Estimate the largest derivative, the scale that "small" refers to."""
    h = 1e-5
    largest = 0.0
    for name, array in arrays.items():
        for i in indices[name][:_SCALE_SAMPLE]:
            f = _along(objective, array, int(i))
            largest = max(largest, abs(f(h) - f(-h)) / (2 * h))
    return largest


def _derivative(
    f: Callable[[float], float],
    at_center: float,
    rounding: float,
    scale: float,
    widths: list[float],
) -> float | None:
    """Return the derivative at 0, or None if no step gives one."""
    for width in widths:
        sides = {h: (f(h), f(-h)) for h in (width, width / 2, width / 4)}
        g = [(up - down) / (2 * h) for h, (up, down) in sides.items()]
        coarse, fine = (4 * g[1] - g[0]) / 3, (4 * g[2] - g[1]) / 3
        best = (16 * fine - coarse) / 15
        # Where the function is smooth, the difference of the two one-sided quotients is
        # h f2 + h^3 f4 / 12 + ..., with the second and fourth derivatives. Its extrapolation to
        # h = 0 is the jump of the slope at 0, which central differences cannot see.
        bend = [(up - 2 * at_center + down) / h for h, (up, down) in sides.items()]
        jump = (8 * (2 * bend[2] - bend[1]) - (2 * bend[1] - bend[0])) / 7
        is_smooth = abs(jump) <= _CONVERGED * scale + 64 * rounding / width
        if is_smooth and abs(best - fine) <= _CONVERGED * scale + 2 * rounding / width:
            return best
    return None
