"""Writes the reference page of all keys, ``docs/recipes.md``: ``python -m xpnet.recipe.page``."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from xpnet.nn.augmentation import Augmentation
from xpnet.nn.interfaces import Activation, Initializer, Layer
from xpnet.nn.losses import Loss
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.registry import is_own
from xpnet.nn.schedules import Schedule
from xpnet.recipe.keys import KEYS, TABLES, Key
from xpnet.recipe.signatures import REQUIRED, options, plain
from xpnet.spaces import KINDS

__all__ = ["reference_page"]

# Units of components' options, where they have one.
_UNITS = {
    "units": "outputs",
    "std": "weights",
    "limit": "weights",
    "value": "weights",
    "eps": "cost per weight",
    "batch_norm.eps": "squared features",
    "layer_norm.eps": "squared features",
    "pixels": "pixels",
    "padding": "pixels",
    "degrees": "degrees",
    "fill": "features",
    "brightness": "features",
    "gaussian_noise.std": "features",
}


def reference_page() -> str:
    """Write the reference of all keys, in Markdown."""
    lines = [
        "# Keys of a recipe",
        "",
        "A recipe is a TOML file. `python train.py --show NAME` prints a shipped one with every",
        "value filled in; `--set KEY=VALUE` changes one. Members of a list are counted from 0:",
        "`--set network.layers.0.units=32`.",
        "",
        "`make docs` writes this page from `xpnet/recipe/keys.py` and the components' docstrings.",
    ]
    for table in ("", *TABLES):
        lines += ["", f"## [{table}]" if table else "## At the top", ""]
        lines += ["| key | type | default | unit | meaning |", "|---|---|---|---|---|"]
        lines += [
            f"| `{key.path}` | {_cell(key.kind.name)} | {_cell(_default(key.default))} | "
            f"{_cell(key.unit)} | {_cell(key.meaning + _only(key))} |"
            for key in KEYS
            if key.path.rpartition(".")[0] == table
        ]
    lines += _search_page()
    lines += [
        "",
        "## Layers, activations, initializers, losses, optimizers, schedules, augmentations",
        "",
        'Each is given by name, `"adam"`, or as a table with its options,',
        '`{ type = "adam", learning_rate = 0.01 }`. Those that you define in Python are known by',
        "their names as soon as they are defined.",
    ]
    for kind in (Layer, Activation, Initializer, Loss, Optimizer, Schedule, Augmentation):
        lines += ["", f"### {kind.__name__}", ""]
        lines += ["| type | option | type of option | default | unit | meaning |"]
        lines += ["|---|---|---|---|---|---|"]
        for name, component in kind.known().items():
            if not is_own(component) or (kind is Layer and issubclass(component, Activation)):
                continue
            summary = inspect.cleandoc(component.__doc__ or "").partition("\n")[0]
            lines.append(f"| `{name}` | | | | | {_cell(summary)} |")
            lines += [
                f"| | `{option.name}` | {_type(option.type)} | {_cell(_default(option.default))} | "
                f"{_unit(name, option.name)} | {_cell(option.meaning)} |"
                for option in options(component)
            ]
        if kind is Layer:
            lines += ["", "Every activation is also a layer of its own."]
    return "\n".join(lines) + "\n"


def _search_page() -> list[str]:
    """Write the section on the table that is not one of keys and values."""
    lines = [
        "",
        "## [search]",
        "",
        "Hyper-parameters that `python train.py search RECIPE` looks for: keys of this page, and",
        "options of components, each with its scale. See [Searching](search.md).",
        "",
        "```toml",
        "[search]",
        "optimizer.learning_rate = { log_uniform = [1e-4, 1e-1] }",
        "network.layers.0.units = { log_integer = [16, 256], points = 2 }",
        "```",
        "",
        "| scale | what it is |",
        "|---|---|",
    ]
    for word, scale in KINDS.items():
        given = {"choice": "[A, B, ...]` or `{ NAME = A, ... }", "fixed": "A"}
        form = f"{word} = {given.get(word, '[low, high]')}"
        summary = inspect.cleandoc(scale.__doc__ or "").partition("\n")[0]
        lines.append(f"| `{form}` | {_cell(summary)} |")
    return [
        *lines,
        "| `points = 3` | Of a range: how many points a grid has, the middles of as many equal "
        "parts of the scale. |",
        "| `when = { KEY = VALUE }` | The hyper-parameter exists only where another one, which "
        "stands before it, has this value, or one of a list. |",
    ]


def _unit(component: str, option: str) -> str:
    return _UNITS.get(f"{component}.{option}", _UNITS.get(option, "-"))


def _default(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    if value is None:
        return "left out"  # as TOML has no word for it
    if value == []:
        return "[]"
    if isinstance(value, dict):
        return ", ".join(f"`{name}`: {_default(inner)}" for name, inner in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def _only(key: Key) -> str:
    return f" Only for {', '.join(f'`{name}`' for name in key.only)}." if key.only else ""


def _type(text: str) -> str:
    """Translate what Python calls a type into TOML's words."""
    words = {"int": "integer", "float": "number", "bool": "boolean"}
    component = re.fullmatch(r"str, dict or (\w+)", text)
    if component:
        return component[1].lower()
    return re.sub(r"^\w+", lambda found: words.get(found[0], found[0]), text)


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference_page())
