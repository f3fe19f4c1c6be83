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

# Units of components' options; the others have none.
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
    """Return the reference page of all keys, in Markdown."""
    lines = [
        "# Keys of a recipe",
        "",
        "A recipe is a TOML file that describes a data set, a network and its training.",
        "`xpnet train --show NAME` prints a recipe with all defaults filled in. `--set KEY=VALUE`",
        "changes a value; lists are indexed from 0: `--set network.layers.0.units=32`.",
        "",
        "`make docs` writes this page from `xpnet/recipe/keys.py` and the components' docstrings.",
    ]
    for table in ("", *TABLES):
        lines += ["", f"## [{table}]" if table else "## Top level", ""]
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
        'Give each by its name, `"adam"`, or as a table with options,',
        '`{ type = "adam", learning_rate = 0.01 }`. A class that you define in Python is available',
        "under its name as soon as it is defined.",
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
            lines += ["", "Every activation can also be used as a layer."]
    return "\n".join(lines) + "\n"


def _search_page() -> list[str]:
    """Return the section on the table ``[search]``, whose keys are those of other tables."""
    lines = [
        "",
        "## [search]",
        "",
        "Hyper-parameters that `xpnet search RECIPE` varies: keys of this page and options of",
        "components, each with its scale. See [Searching for hyper-parameters](search.md).",
        "",
        "```toml",
        "[search]",
        "optimizer.learning_rate = { log_uniform = [1e-4, 1e-1] }",
        "network.layers.0.units = { log_integer = [16, 256], points = 2 }",
        "```",
        "",
        "| scale | meaning |",
        "|---|---|",
    ]
    for word, scale in KINDS.items():
        given = {"choice": "[A, B, ...]` or `{ NAME = A, ... }", "fixed": "A"}
        form = f"{word} = {given.get(word, '[low, high]')}"
        summary = inspect.cleandoc(scale.__doc__ or "").partition("\n")[0]
        lines.append(f"| `{form}` | {_cell(summary)} |")
    return [
        *lines,
        "| `points = 3` | Added to a range: number of points in a grid, at the middles of equal "
        "parts of the scale. |",
        "| `when = { KEY = VALUE }` | Conditional hyper-parameter: it exists only if an earlier "
        "one has this value, or one of a list. |",
    ]


def _unit(component: str, option: str) -> str:
    return _UNITS.get(f"{component}.{option}", _UNITS.get(option, "-"))


def _default(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    if value is None:
        return "left out"  # TOML has no null
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
    """Replace Python's names of types by TOML's."""
    words = {"int": "integer", "float": "number", "bool": "boolean"}
    component = re.fullmatch(r"str, dict or (\w+)", text)
    if component:
        return component[1].lower()
    return re.sub(r"^\w+", lambda found: words.get(found[0], found[0]), text)


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference_page())
