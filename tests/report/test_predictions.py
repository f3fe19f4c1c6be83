"""Predicted numbers against the true ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.pictures import assert_nothing_cut_off, size, words
from xpnet.report import draw_predictions
from xpnet.report.predictions import _predictions_figure

pytestmark = pytest.mark.host


@pytest.mark.parametrize("n_targets", [1, 2, 5, 12])
def test_predictions(n_targets):
    rng = np.random.default_rng(0)
    true = rng.normal(5, 10.0 ** rng.integers(-3, 9, n_targets), (50, n_targets))
    predicted = true + rng.normal(size=true.shape) * true.std(axis=0)
    figure = _predictions_figure(true, predicted, "surface")
    n_shown = min(n_targets, 9)
    assert len(figure.axes) == n_shown
    for k, axes in enumerate(figure.axes):
        (points,) = axes.collections
        expected = np.stack([true[:, k], predicted[:, k]], axis=1)
        np.testing.assert_allclose(points.get_offsets(), expected)
        (diagonal,) = axes.get_lines()
        assert axes.get_xlim() == axes.get_ylim() == tuple(diagonal.get_xdata())
        np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
        residual = ((true[:, k] - predicted[:, k]) ** 2).sum()
        R2 = 1 - residual / ((true[:, k] - true[:, k].mean()) ** 2).sum()
        name = f"target {k}, " if n_targets > 1 else ""
        assert axes.get_title() == f"{name}R2 {R2:.4f}"
        box = axes.get_window_extent()
        assert box.width == pytest.approx(box.height)
    assert {"true", "predicted", "surface"} <= set(words(figure))
    more = f"; 9 of {n_targets} targets shown" if n_targets > 9 else ""
    assert f"50 test samples{more}" in words(figure)
    assert_nothing_cut_off(figure)
    width, height = size(draw_predictions(true, predicted, title="surface"))
    assert (width, height) == figure.canvas.get_width_height()


def test_predictions_that_cannot_be_drawn():
    figure = _predictions_figure([1.0, np.nan, 1e200, 3.0], [1.0, 2.0, 2.0, np.inf], "t")
    (axes,) = figure.axes
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[1.0, 1.0]]
    figure = _predictions_figure([np.nan], [1.0], "t")
    assert "no finite values" in words(figure)
    assert "1 test sample" in words(figure)
    for true, predicted in (([1.0], [1.0, 2.0]), (np.zeros((2, 0)), np.zeros((2, 0)))):
        with pytest.raises(ValueError, match="true and predicted must both have shape "):
            draw_predictions(true, predicted, title="t")
