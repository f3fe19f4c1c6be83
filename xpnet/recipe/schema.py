"""Checks a recipe's tables against the keys, and fills in defaults."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from xpnet.nn.interfaces import Layer
from xpnet.nn.losses import Loss
from xpnet.recipe.changes import set_value
from xpnet.recipe.errors import RecipeError, missing, nearest, shown, unknown, wrong
from xpnet.recipe.keys import KEYS, TABLES
from xpnet.recipe.kinds import Choice, Component, Components
from xpnet.recipe.signatures import options
from xpnet.spaces import KINDS, Space

__all__ = ["layers_with_init", "resolve"]

_BY_PATH = {key.path: key for key in KEYS}
# For values that are mistaken for keys, as in ``standardise = true``: the key of each.
_BY_CHOICE = {c: key.path for key in KEYS if isinstance(key.kind, Choice) for c in key.kind.choices}


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check a recipe's tables and fill in every default.

    Parameters
    ----------
    given : mapping
        Tables as TOML gives them.

    Returns
    -------
    dict
        All keys that apply to the recipe's data set, in the order of :data:`KEYS`; under
        ``search``, if the recipe has that table, paths of keys and their scales.

    Raises
    ------
    RecipeError
        If a key is unknown, missing, or has an invalid value. The message gives the key's path,
        the value given, what was expected, and the nearest valid name.
    """
    search = given.get("search")
    given = {key: value for key, value in given.items() if key != "search"}
    flat = dict(_flatten(given))
    for path, value in flat.items():
        if path not in _BY_PATH:
            raise unknown(path, value, (*_options(), *_BY_PATH, *TABLES), _BY_CHOICE)
    dataset = _BY_PATH["data.dataset"]
    if dataset.path not in flat:
        raise missing(dataset.path, dataset.kind.name, dataset.meaning)
    name = dataset.kind.check(dataset.path, flat[dataset.path])
    resolved: dict[str, Any] = {}
    for key in KEYS:
        if not key.applies_to(name):
            if key.path in flat:
                raise RecipeError(
                    f"{key.path} (got {shown(flat[key.path])}) is not for {name}, only for "
                    f"{', '.join(key.only)}"
                )
            continue
        if key.path not in flat and key.is_required:
            raise missing(key.path, key.kind.name, key.meaning)
        value = said = flat.get(key.path, key.default_for(name))
        if key.path == "network.layers":
            value = layers_with_init(value, resolved["network"]["init"])
        table, _, last = key.path.rpartition(".")
        within = resolved.setdefault(table, {}) if table else resolved
        within[last] = key.kind.check(key.path, value)
        if key.path == "network.layers":
            within[last] = list(map(_without_networks_init, said, within[last]))
    _check_combinations(resolved, flat)
    if search is not None:
        resolved["search"] = _search(search, resolved)
    return resolved


def _check_combinations(resolved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise a RecipeError if keys that are valid by themselves contradict each other."""
    if resolved["rng"] == "numpy-legacy":
        seeds = {"seed": resolved["seed"], "training.seed": resolved["training"]["seed"]}
        for path, seed in seeds.items():
            if seed != "auto" and seed >= 2**32:
                raise wrong(path, 'below 2**32 with rng = "numpy-legacy"', seed)
    if resolved["early_stopping"]["patience"] == "never":
        for key in KEYS:
            said = given.get(key.path, key.default)
            if key.path.startswith("early_stopping.") and said != key.default:
                raise RecipeError(
                    f"{key.path} (got {shown(said)}) has no effect without early_stopping.patience"
                )
    if resolved["data"]["standardise_target"]:
        loss = Loss.resolve(resolved["loss"])
        if loss.has_classes:
            raise wrong("data.standardise_target", "false with a classification loss", True)
        if not loss.has_negatives:
            expected = f"false with {loss.name}, which is for numbers >= 0"
            raise wrong("data.standardise_target", expected, True)


def _search(search: Any, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the table ``[search]`` with paths as its keys, after checking its scales.

    The ends of each scale are tried in the recipe with all defaults filled in, as in a trial, and
    under each condition that lets the hyper-parameter exist.
    """
    if not isinstance(search, dict):
        raise wrong("search", "a table [search]", search)
    tables = _scales("", search)
    if not tables:
        raise RecipeError(
            "search must name a key of the recipe and its scale, such as "
            "optimizer.learning_rate = { log_uniform = [1e-4, 0.1] }, got an empty table"
        )
    for path in tables:
        if path.partition(".")[0] == "data" and path not in _SEARCHED_DATA:
            raise RecipeError(
                f"search.{path} is not allowed: all trials use the same data; from [data] you can "
                f"search {' and '.join(_SEARCHED_DATA)}"
            )
        if path in ("description", "device", "precision", "search"):
            raise RecipeError(f"search.{path} is not allowed: it is the same for all trials")
    try:
        space = Space.from_tables(tables)
    except ValueError as error:
        raise RecipeError(f"search.{error}") from error
    for path, scale in space.items():
        earlier = list(space)[: list(space).index(path)]
        for other in earlier:
            if other.startswith(f"{path}."):
                raise RecipeError(
                    f"search.{path} must come before search.{other}, which it would overwrite"
                )
        within = [other for other in earlier if path.startswith(f"{other}.")]
        for before in space.all_before(path, within):
            for setting in scale.extremes():
                changed: dict[str, Any] = copy.deepcopy(dict(values))
                point = {**before, path: setting}
                try:
                    for name, value in space.resolve(point).items():
                        set_value(changed, name, copy.deepcopy(value))
                    resolve(changed)
                except RecipeError as error:
                    where = "".join(f" with {name} {shown(before[name])}" for name in before)
                    raise RecipeError(
                        f"search.{path}, at {shown(setting)}{where}: {error}"
                    ) from error
    return space.to_tables()


_SEARCHED_DATA = ("data.divide_by", "data.normalise")


def _scales(path: str, table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the scales by path; TOML may have nested them in tables of tables."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in table.items():
        name = f"{path}.{key}" if path else key
        if not isinstance(value, dict):
            kinds = ", ".join(KINDS)
            expected, near = f"a table with one of {kinds}", nearest(key, tuple(KINDS))
            raise wrong(f"search.{name}", expected, value, near=near)
        is_scale = not value or any(word in (*KINDS, "points", "when") for word in value)
        inner = {name: value} if is_scale else _scales(name, value)
        for other, scale in inner.items():
            if other in found:
                raise RecipeError(f"search.{other} is given twice")
            found[other] = scale
    return found


def _options() -> Iterator[str]:
    """Yield the paths of the components' options, such as ``optimizer.learning_rate``.

    They come in reverse order of the keys: if several have one name, :func:`unknown` takes the
    last, and ``eps`` more often means the optimizer's than a layer's.
    """
    for key in reversed(KEYS):
        if isinstance(key.kind, (Component, Components)):
            path = f"{key.path}.N" if isinstance(key.kind, Components) else key.path
            for component in key.kind.kind.known().values():
                yield from (f"{path}.{option.name}" for option in options(component))


def layers_with_init(layers: Any, init: Any) -> Any:
    """Add ``network.init`` to the layers that have weights and no ``init`` of their own.

    Parameters
    ----------
    layers, init : object
        ``network.layers`` and ``network.init``. If ``layers`` is not a list, it is returned
        unchanged.
    """
    if not isinstance(layers, list):
        return layers
    known = Layer.known()
    given = [{"type": layer} if isinstance(layer, str) else layer for layer in layers]
    return [
        {**layer, "init": init}
        if isinstance(layer, dict)
        and "init" not in layer
        and layer.get("type") in tuple(known)  # the type may be unhashable
        and "init" in {option.name for option in options(known[layer["type"]])}
        else layer
        for layer in given
    ]


def _without_networks_init(given: Any, checked: Any) -> Any:
    """Leave out a layer's ``init`` if the recipe does, so that ``network.init`` applies.

    Otherwise changing ``network.init`` in a saved recipe would have no effect.
    """
    if isinstance(checked, str) or (isinstance(given, dict) and "init" in given):
        return checked
    return {key: option for key, option in checked.items() if key != "init"}


def _flatten(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if "." in key:  # in quotes, so it is a name, not a path
            raise unknown(f'"{key}"', value, (*_BY_PATH, *TABLES))
        if key not in TABLES:
            yield key, value
        elif isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            raise wrong(key, f"a table [{key}]", value)
