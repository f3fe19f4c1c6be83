"""Estimators for scikit-learn: its parameters, xpnet's networks."""

from __future__ import annotations

from xpnet.estimators.logistic import LogisticRegression
from xpnet.estimators.mlp import MLPClassifier, MLPRegressor

__all__ = ["LogisticRegression", "MLPClassifier", "MLPRegressor"]
