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
from xpnet.nn.augmentation import (
    Augmentation,
    BrightnessContrast,
    Flip,
    GaussianNoise,
    ImageAugmentation,
    RandomCrop,
    Rotate,
    Shift,
)
from xpnet.nn.batch import Batch
from xpnet.nn.captured import CapturedSteps
from xpnet.nn.diagnosis import Diagnosis, LayerDiagnosis, diagnose
from xpnet.nn.dropout import Dropout
from xpnet.nn.gradient_check import GradientCheck, gradient_check
from xpnet.nn.initializers import (
    Constant,
    HeNormal,
    HeUniform,
    LeCunNormal,
    LeCunUniform,
    Normal,
    Ones,
    Orthogonal,
    Uniform,
    XavierNormal,
    XavierUniform,
    Zeros,
)
from xpnet.nn.interfaces import Activation, Cache, Initializer, Layer
from xpnet.nn.layers import Dense
from xpnet.nn.losses import (
    Loss,
    MeanSquaredError,
    PoissonDeviance,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from xpnet.nn.network import Network
from xpnet.nn.normalization import BatchNorm, LayerNorm
from xpnet.nn.optimizers import Adam, AdamW, GradientDescent, Momentum, Nesterov, Optimizer, RMSprop
from xpnet.nn.program import StepProgram
from xpnet.nn.regularization import MovingAverage, Regularizer
from xpnet.nn.schedules import (
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    NoDecay,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
)
from xpnet.nn.sparse import SparseSamples
from xpnet.nn.step import TrainingStep

__all__ = [
    "ELU",
    "Activation",
    "Adam",
    "AdamW",
    "Augmentation",
    "Batch",
    "BatchNorm",
    "BrightnessContrast",
    "Cache",
    "CapturedSteps",
    "Constant",
    "CosineDecay",
    "Dense",
    "Diagnosis",
    "Dropout",
    "ExponentialDecay",
    "Flip",
    "GELUTanh",
    "GaussianNoise",
    "GradientCheck",
    "GradientDescent",
    "HeNormal",
    "HeUniform",
    "Identity",
    "ImageAugmentation",
    "Initializer",
    "InverseTimeDecay",
    "Layer",
    "LayerDiagnosis",
    "LayerNorm",
    "LeCunNormal",
    "LeCunUniform",
    "LeakyReLU",
    "Loss",
    "MeanSquaredError",
    "Momentum",
    "MovingAverage",
    "Nesterov",
    "Network",
    "NoDecay",
    "Normal",
    "Ones",
    "Optimizer",
    "Orthogonal",
    "PoissonDeviance",
    "RMSprop",
    "RandomCrop",
    "ReLU",
    "ReduceOnPlateau",
    "Regularizer",
    "Rotate",
    "Schedule",
    "Shift",
    "Sigmoid",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Softsign",
    "SparseSamples",
    "StepDecay",
    "StepProgram",
    "Tanh",
    "TrainingStep",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "Zeros",
    "diagnose",
    "gradient_check",
]
