"""Hyper-parameters and the scales on which they are searched.

A scale maps [0, 1] to the values of a hyper-parameter so that equal lengths are equally important:
a learning rate is mapped by its logarithm, a momentum by the logarithm of its distance from 1. The
samples of a search, the points of a grid and the axes of pictures all use this one mapping.
"""

from xpnet.spaces.scales import (
    KINDS,
    PLAIN,
    Choice,
    Fixed,
    Integer,
    LogInteger,
    LogUniform,
    OneMinusLogUniform,
    Range,
    Scale,
    Uniform,
)
from xpnet.spaces.space import Space

__all__ = [
    "KINDS",
    "PLAIN",
    "Choice",
    "Fixed",
    "Integer",
    "LogInteger",
    "LogUniform",
    "OneMinusLogUniform",
    "Range",
    "Scale",
    "Space",
    "Uniform",
]
