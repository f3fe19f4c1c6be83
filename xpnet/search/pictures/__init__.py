"""Plots of a study: importance, slices, parallel coordinates, best of n trials.

Each function returns the bytes of a PNG file, as those of :mod:`xpnet.report` do: the same input
gives the same bytes, and pyplot is not used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from xpnet.search.pictures.best_of import draw_best
from xpnet.search.pictures.importance import draw_importances
from xpnet.search.pictures.parallel import draw_parallel
from xpnet.search.pictures.slices import draw_slices
from xpnet.search.results import comparable_values, sampled_values
from xpnet.search.study import Study

__all__ = ["draw_best", "draw_importances", "draw_parallel", "draw_slices", "study_pictures"]


def study_pictures(study: Study) -> dict[str, Callable[[], bytes]]:
    """Return functions that draw the pictures of a study, by file name.

    The picture of the best of n trials includes other studies in the storage on the same data.
    """
    curves = comparable_values(study)
    return {
        "importances.png": functools.partial(draw_importances, study),
        "slices.png": functools.partial(draw_slices, study),
        "parallel.png": functools.partial(draw_parallel, study),
        "best.png": functools.partial(
            draw_best,
            {name: values for name, values in curves.items() if values},
            is_maximised=study.is_maximised,
            objective=study.objective,
            title=study.recipe.name,
            so_far=sampled_values(study),
        ),
    }
