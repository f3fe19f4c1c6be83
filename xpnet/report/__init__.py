"""Plots of a run: learning curves, misclassified images, confusion, predictions, diagnosis.

Each function returns the bytes of a PNG file. The same input gives the same bytes for any setting
of matplotlib's style. The functions do not use pyplot, so your own figures are not affected.
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
