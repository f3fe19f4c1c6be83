"""Train networks, evaluate them, and save and load networks and models."""

from __future__ import annotations

from xpnet.training.checkpoint import load_network, save_network
from xpnet.training.evaluation import evaluate
from xpnet.training.history import History, Report
from xpnet.training.interruption import Interruption
from xpnet.training.lbfgs import minimize
from xpnet.training.loop import fit
from xpnet.training.model import Model, load_model, save_model
from xpnet.training.recorder import DivergenceError
from xpnet.training.state import TrainingState
from xpnet.training.stopping import EarlyStopping

__all__ = [
    "DivergenceError",
    "EarlyStopping",
    "History",
    "Interruption",
    "Model",
    "Report",
    "TrainingState",
    "evaluate",
    "fit",
    "load_model",
    "load_network",
    "minimize",
    "save_model",
    "save_network",
]
