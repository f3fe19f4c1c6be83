"""Pictures of a study: importance, slices, parallel coordinates, best of n trials.

Each function gives the bytes of a PNG file, as those of :mod:`xpnet.report` do: the same input
gives the same bytes, and pyplot is not used.
"""

from xpnet.search.pictures.best_of import draw_best
from xpnet.search.pictures.importance import draw_importances
from xpnet.search.pictures.parallel import draw_parallel
from xpnet.search.pictures.slices import draw_slices

__all__ = ["draw_best", "draw_importances", "draw_parallel", "draw_slices"]
