"""Scales as SciPy distributions, for scikit-learn's searches."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy import special, stats

from xpnet.spaces import (
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Range,
    Scale,
    Space,
    Uniform,
)

__all__ = ["scipy_distributions"]


class _OneMinusLogUniform(stats.rv_continuous):  # type: ignore[misc]
    """1 - 10^r, r uniform; shape parameters low and high."""

    def _argcheck(self, low: Any, high: Any) -> Any:
        return (low >= 0) & (low < high) & (high < 1)

    def _get_support(self, low: Any, high: Any) -> tuple[Any, Any]:
        return low, high

    def _pdf(self, x: Any, low: Any, high: Any) -> Any:
        return 1 / ((1 - x) * (np.log1p(-low) - np.log1p(-high)))

    def _cdf(self, x: Any, low: Any, high: Any) -> Any:
        return (np.log1p(-low) - np.log1p(-x)) / (np.log1p(-low) - np.log1p(-high))

    def _ppf(self, q: Any, low: Any, high: Any) -> Any:
        return -np.expm1(np.log1p(-low) + q * (np.log1p(-high) - np.log1p(-low)))


class _LogInteger(stats.rv_discrete):  # type: ignore[misc]
    """A log-uniform number from low - 1/2 to high + 1/2, rounded."""

    def _argcheck(self, low: Any, high: Any) -> Any:
        return (low >= 1) & (low < high)

    def _get_support(self, low: Any, high: Any) -> tuple[Any, Any]:
        return low, high

    def _pmf(self, k: Any, low: Any, high: Any) -> Any:
        return np.log1p(1 / (k - 0.5)) / _width(low, high)

    def _cdf(self, x: Any, low: Any, high: Any) -> Any:
        return _width(low, np.floor(x)) / _width(low, high)

    def _ppf(self, q: Any, low: Any, high: Any) -> Any:
        x = (low - 0.5) * np.exp(q * _width(low, high))
        k = np.clip(np.ceil(x - 0.5), low, high)
        # Because of rounding, k may be one above or below the least k with cdf(k) >= q.
        k = np.where(self._cdf(k, low, high) < q, np.minimum(k + 1, high), k)
        below = np.maximum(k - 1, low)
        return np.where(self._cdf(below, low, high) >= q, below, k)

    def _stats(self, low: Any, high: Any) -> tuple[Any, Any, None, None]:
        # SciPy's own sum stops before it has converged. Here the logarithm is expanded in powers of
        # 1 / k, and each power is summed over all k at once.
        first = high - low + 1.0
        second = (low + high) / 2 * first + (special.psi(high + 1) - special.psi(low)) / 12
        for n in range(1, 27):  # 4^-26 is less than a rounding
            first = first + _sum_of_powers(2.0 * n, low, high) / ((2 * n + 1) * 4.0**n)
            if n > 1:
                more = _sum_of_powers(2.0 * n - 1, low, high) / ((2 * n + 1) * 4.0**n)
                second = second + more
        mean, square = first / _width(low, high), second / _width(low, high)
        return mean, np.maximum(square - mean**2, 0), None, None


def _width(low: Any, high: Any) -> Any:
    """Return the difference of the logarithms of high + 1/2 and low - 1/2."""
    return np.log1p((high - low + 1) / (low - 0.5))


def _sum_of_powers(power: float, low: Any, high: Any) -> Any:
    """Sum k^-power from low to high."""
    return special.zeta(power, low) - special.zeta(power, high + 1)


_one_minus_log_uniform = _OneMinusLogUniform(name="one_minus_log_uniform")
_log_integer = _LogInteger(name="log_integer")


def scipy_distributions(space: Space) -> Any:
    """Convert a space to the ``param_distributions`` of scikit-learn's searches.

    Parameters
    ----------
    space : Space
        A space named after the estimator's parameters; see :meth:`Space.renamed`.

    Returns
    -------
    dict or list of dict
        Frozen SciPy distributions for ranges, and lists of values for choices, as
        :class:`sklearn.model_selection.RandomizedSearchCV` takes them. If some hyper-parameters are
        conditional, a list with one dictionary for each combination of settings that conditions
        depend on. All combinations are equally likely.

    Examples
    --------
    >>> from xpnet.search import LogUniform, Space, scipy_distributions
    >>> space = Space({"learning_rate_init": LogUniform(1e-4, 0.1)})
    >>> float(scipy_distributions(space)["learning_rate_init"].median().round(6))
    0.003162
    """
    above = {other for scale in space.values() for other in scale.condition}
    if not above:
        return {name: _of_scipy(scale) for name, scale in space.items()}
    listed: list[dict[str, Any]] = []
    # Combinations that differ only in a hyper-parameter that does not exist are kept as duplicates,
    # so that each combination is drawn with the right probability.
    corners = [
        [(name, setting) for setting in _settings(scale)]
        for name, scale in space.items()
        if name in above
    ]
    for corner in itertools.product(*corners):
        chosen = dict(corner)
        found: dict[str, Any] = {}
        for name, scale in space.items():
            if not space.exists(name, {key: chosen[key] for key in found if key in chosen}):
                continue
            found[name] = [scale.value(chosen[name])] if name in chosen else _of_scipy(scale)
        listed.append(found)
    return listed


def _settings(scale: Scale) -> list[Any]:
    if isinstance(scale, Integer):
        return list(range(scale.low, scale.high + 1))
    return scale.extremes()  # all settings of a choice or a fixed value


def _of_scipy(scale: Scale) -> Any:
    if isinstance(scale, Range):
        low, high = scale.low, scale.high
        makers: dict[type[Range], Any] = {
            Uniform: lambda: stats.uniform(low, high - low),
            LogUniform: lambda: stats.loguniform(low, high),
            OneMinusLogUniform: lambda: _one_minus_log_uniform(low, high),
            Integer: lambda: stats.randint(low, high + 1),
            LogInteger: lambda: _log_integer(low, high),
        }
        return makers[type(scale)]()
    return [scale.value(setting) for setting in scale.extremes()]
