"""Pictures of a run: learning curves, mistakes, confusion, predicted numbers, signals by layer.

Each function gives the bytes of a PNG file. The same input gives the same bytes, whatever style
matplotlib is set to, and no window or figure of the caller's is touched: pyplot is not used.
"""

from xpnet.report.classification import draw_confusion, draw_mistakes
from xpnet.report.curves import draw_curves
from xpnet.report.diagnosis import draw_diagnosis
from xpnet.report.figures import plotting_problem
from xpnet.report.predictions import draw_predictions

__all__ = [
    "draw_confusion",
    "draw_curves",
    "draw_diagnosis",
    "draw_mistakes",
    "draw_predictions",
    "plotting_problem",
]
