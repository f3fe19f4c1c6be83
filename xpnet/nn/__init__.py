"""The mathematics: layers, activations, initializers, losses, optimizers and the network."""

from xpnet.nn.activations import (
    ELU,
    GELUTanh,
    Identity,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
)
from xpnet.nn.base import Activation, Cache, Initializer, Layer, Loss, Optimizer
from xpnet.nn.gradient_check import GradientCheck, gradient_check
from xpnet.nn.initializers import (
    HeNormal,
    HeUniform,
    LeCunNormal,
    LeCunUniform,
    Normal,
    Ones,
    Uniform,
    XavierNormal,
    XavierUniform,
    Zeros,
)
from xpnet.nn.layers import Dense
from xpnet.nn.losses import SigmoidCrossEntropy, SoftmaxCrossEntropy
from xpnet.nn.network import Network
from xpnet.nn.optimizers import Adam, GradientDescent
from xpnet.nn.step import TrainingStep

__all__ = [
    "ELU",
    "Activation",
    "Adam",
    "Cache",
    "Dense",
    "GELUTanh",
    "GradientCheck",
    "GradientDescent",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "Layer",
    "LeCunNormal",
    "LeCunUniform",
    "LeakyReLU",
    "Loss",
    "Network",
    "Normal",
    "Ones",
    "Optimizer",
    "ReLU",
    "Sigmoid",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Softsign",
    "Tanh",
    "TrainingStep",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "gradient_check",
]
