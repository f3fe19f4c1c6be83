"""One of each of xpnet's own classes, for tests that must hold for all of a kind.

The classes come from the register, so that a new one is tested as soon as it is defined. Arguments
without a default, and other values than the defaults, come from :data:`EXAMPLES` or follow from the
annotation; where neither knows one, the error says what to add.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import numpy as np

import xpnet
from xpnet import nn
from xpnet.nn.registry import Configurable, is_own

__all__ = [
    "EXAMPLES",
    "KINDS",
    "labels_for",
    "losses_by_outputs",
    "make",
    "one_of_each",
    "own",
    "required",
    "variants",
]

Part = TypeVar("Part", bound=Configurable)

KINDS = (
    nn.Layer,
    nn.Activation,
    nn.Initializer,
    nn.Loss,
    nn.Optimizer,
    nn.Schedule,
    nn.Augmentation,
)
# Values for arguments of these names, where those of BY_TYPE do not serve.
EXAMPLES: dict[str, Any] = {
    "activation": "tanh",
    "bias_init": "ones",
    "init": "ones",
    "max_norm": 0.1,
    "monitor": "cost",
    "per": "step",
    "units": 5,
}
# Two, so that one differs from the default.
BY_TYPE: dict[str, tuple[Any, ...]] = {
    "bool": (True, False),
    "float": (0.3, 0.4),
    "int": (2, 3),
}


def own(kind: type[Part]) -> list[type[Part]]:
    """Give xpnet's own classes of a kind; activations are not given as layers."""
    found = [cls for cls in kind.known().values() if is_own(cls)]
    return [cls for cls in found if kind is not nn.Layer or not issubclass(cls, nn.Activation)]


def required(cls: type[Configurable]) -> dict[str, Any]:
    """Give a value for each of a class's arguments that has no default."""
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: _example(cls, p) for p in parameters if p.default is p.empty}


def make(cls: type[Part], **options: Any) -> Part:
    """Make one, with its defaults but for those options that its class has."""
    known = inspect.signature(cls).parameters
    return cls(**required(cls), **{name: v for name, v in options.items() if name in known})


def variants(part: Part) -> list[Part]:
    """Give copies of which each has another value for one of the arguments."""
    arguments = part._arguments()
    found = []
    for parameter in inspect.signature(type(part)).parameters.values():
        value = _example(type(part), parameter, arguments[parameter.name])
        try:
            found.append(type(part)(**{**arguments, parameter.name: value}))
        except (TypeError, ValueError) as error:
            raise LookupError(_advice(type(part), parameter)) from error
    return found


def one_of_each(kind: type[Part], **options: Any) -> list[Part]:
    """Make one of each of xpnet's own classes of a kind; see :func:`own` and :func:`make`."""
    return [make(cls, **options) for cls in own(kind)]


def labels_for(loss: nn.Loss, rng: np.random.Generator, n: int, n_outputs: int) -> list[Any]:
    """Draw labels in every form that a loss takes: classes, 0 and 1 for each output, and numbers.

    The list is empty where the loss is not for so many outputs.
    """
    shape = n, n_outputs
    forms: list[Any] = [rng.integers(0, 2, shape)]
    if loss.has_classes:
        forms = [*([rng.integers(0, n_outputs, n)] * (n_outputs > 1)), *forms, rng.random(shape)]
    else:
        forms = [3 * rng.standard_normal(shape), rng.poisson(3, shape), *forms]
    return [y for y in forms if _takes(loss, y, n_outputs)]


def losses_by_outputs(*numbers: int, **options: Any) -> list[tuple[nn.Loss, int]]:
    """Make one of each loss for each of these numbers of outputs that it can have."""
    rng = np.random.default_rng(0)
    found = [(loss, n) for loss in one_of_each(nn.Loss, **options) for n in numbers]
    found = [(loss, n) for loss, n in found if labels_for(loss, rng, 2, n)]
    left_out = {loss.name for loss in one_of_each(nn.Loss)} - {loss.name for loss, _ in found}
    assert not left_out, f"no labels for {left_out}: add their form to labels_for in {__file__}"
    return found


def _takes(loss: nn.Loss, y: Any, n_outputs: int) -> bool:
    try:
        loss.labels(xpnet.device("cpu"), y, n_outputs, np.float64)
    except (TypeError, ValueError):
        return False
    return True


def _example(cls: type[Configurable], parameter: inspect.Parameter, but: Any = None) -> Any:
    """Give a value for an argument that is not this one."""
    annotation = parameter.annotation
    kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    values = [*BY_TYPE.get(kind.partition(" ")[0], ())]
    if parameter.name in EXAMPLES:
        values.insert(0, EXAMPLES[parameter.name])
    for value in values:
        if value != but:
            return value
    raise LookupError(_advice(cls, parameter))


def _advice(cls: type[Configurable], parameter: inspect.Parameter) -> str:
    return (
        f"tests need a value for {parameter.name!r} of {cls.__name__}: add one that it takes, and "
        f"that is not its default, to EXAMPLES in {__file__}"
    )
