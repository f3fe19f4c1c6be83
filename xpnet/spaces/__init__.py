"""Hyper-parameters and the scales on which they are looked for.

A scale maps [0, 1] to the values that a hyper-parameter may have, so that equal lengths matter
alike: a learning rate by its logarithm, a momentum by the logarithm of what it lacks to 1. Where a
search draws, how a grid is laid and how a picture's axis runs all follow from that one map.
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
