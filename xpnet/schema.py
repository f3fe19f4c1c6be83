"""What a recipe may say: every key with its type, default, unit and meaning.

The same table checks recipes, fills in what they leave out, and writes the reference page:
``python -m xpnet.schema`` prints it.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xpnet.data.named import GENERATED, NAMES, WEIGHTED, is_file_name
from xpnet.data.preprocessing import NORMALISATIONS
from xpnet.device import PRECISIONS
from xpnet.kinds import (
    REQUIRED,
    Boolean,
    Choice,
    ClassWeight,
    Component,
    Components,
    Initialization,
    Kind,
    Number,
    RecipeError,
    Text,
    missing,
    nearest,
    options,
    plain,
    shown,
    unknown,
    wrong,
)
from xpnet.nn.base import (
    Activation,
    Augmentation,
    Configurable,
    Initializer,
    Layer,
    Loss,
    Optimizer,
    Schedule,
)
from xpnet.nn.schedules import MONITORS
from xpnet.spaces import KINDS, Space

__all__ = [
    "KEYS",
    "Key",
    "RecipeError",
    "layers_with_init",
    "reference_page",
    "resolve",
    "set_value",
]


@dataclass(frozen=True)
class Key:
    """One key of a recipe.

    Attributes
    ----------
    path : str
        With the table that it is in: ``"training.epochs"``.
    kind : Kind
    default : object
        What it is where a recipe does not say; ``REQUIRED`` where it must. A dictionary has a
        default for each data set.
    unit : str
        ``"-"`` where it has none.
    meaning : str
    only : tuple of str
        Data sets, or endings of files, that know the key; all where empty.
    """

    path: str
    kind: Kind
    default: Any
    unit: str
    meaning: str
    only: tuple[str, ...] = ()

    @property
    def is_required(self) -> bool:
        """Whether a recipe must say it."""
        return self.default is REQUIRED

    def default_for(self, dataset: str) -> Any:
        """Give the default that holds for a data set."""
        return self.default[dataset] if isinstance(self.default, dict) else self.default

    def applies_to(self, dataset: str) -> bool:
        """Tell whether a recipe with this data set may say it."""
        return not self.only or dataset in self.only or dataset.lower().endswith(self.only)


@dataclass(frozen=True)
class _DataSet:
    """A data set that is known by name, or a file."""

    name: str = "name of a data set or a file"

    def check(self, path: str, value: Any) -> str:
        """Return the value."""
        text = Text(self.name, ".+").check(path, value)
        if text not in NAMES and not is_file_name(text):
            known = f"{self.name} (.npz, .csv, .h5 or idx; {', '.join(NAMES)})"
            raise wrong(path, known, text, near=nearest(text, NAMES))
        return text


_BITS = 63  # what a TOML integer holds

KEYS = (
    Key("description", Text("string of one line"), "", "-", "One line for `--list`."),
    Key(
        "seed",
        Number(0, 2**_BITS - 1, whole=True),
        0,
        "-",
        "Of the weights and of the order in which samples are visited. With "
        '`rng = "numpy-legacy"` below 2^32.',
    ),
    Key(
        "rng",
        Choice(("numpy", "numpy-legacy")),
        "numpy",
        "-",
        "What weights are drawn from: NumPy's PCG64; or `RandomState` with weights drawn "
        "feature-major, as the course notebooks do.",
    ),
    Key(
        "dtype",
        Choice(("float32", "float64")),
        "float32",
        "-",
        "Of parameters, activations and gradients.",
    ),
    Key(
        "device",
        Text('"cpu", "cuda", "cuda:N" or "auto"', r"cpu|cuda|cuda:\d{1,4}|auto"),
        "cpu",
        "-",
        "Where to train. `--device` and the environment variable `XPNET_DEVICE` come first.",
    ),
    Key(
        "precision",
        Choice(PRECISIONS),
        "float32",
        "-",
        "What products of float32 matrices are computed in: `tf32` rounds their elements to 10 "
        "bits of mantissa and takes the tensor cores of a GPU, from Ampere on. The environment "
        "variable `XPNET_PRECISION` comes first.",
    ),
    Key(
        "loss",
        Component(Loss),
        REQUIRED,
        "nats; squares of the numbers to be predicted",
        "What is minimised: its mean over the training samples. It decides what the data's labels "
        "are: with `mean_squared_error` and `poisson_deviance` numbers to be predicted, with the "
        "others classes.",
    ),
    Key(
        "optimizer",
        Component(Optimizer),
        REQUIRED,
        "-",
        "The update rule.",
    ),
    Key(
        "schedule",
        Component(Schedule),
        "constant",
        "-",
        "How the learning rate changes: a factor on the optimizer's.",
    ),
    Key(
        "data.dataset",
        _DataSet(),
        REQUIRED,
        "-",
        f"{', '.join(f'`{name}`' for name in NAMES)}; or a file of your own, `.npz`, `.csv`, "
        "`.h5` or idx.",
    ),
    Key(
        "data.target",
        Text("string", ".+"),
        REQUIRED,
        "-",
        "The column that holds the labels, or the numbers to be predicted. On the command line "
        "also `--target`.",
        only=(".csv",),
    ),
    Key(
        "data.sample_weight",
        Text('"none" or string', ".+"),
        "none",
        "samples",
        "How much each training sample counts, in the column of a `.csv` file, which is then no "
        "feature, or else in the array of this name. Costs and scores of validation and testing, "
        "and those after training, count all samples the same.",
        only=WEIGHTED,
    ),
    Key(
        "data.n_samples",
        Number(10, 10**9, whole=True),
        400,
        "samples",
        "How many points are drawn.",
        only=tuple(GENERATED),
    ),
    Key(
        "data.noise",
        Number(0),
        {name: noise for name, (_, noise) in GENERATED.items()},
        "coordinates; `flower`: radians and radius",
        "Standard deviation of the noise.",
        only=tuple(GENERATED),
    ),
    Key(
        "data.divide_by",
        Number(0, open_low=True, word="auto"),
        "auto",
        "features",
        "Features are divided by this; `auto` is 255 for 8-bit features with values above 1, "
        "else 1.",
    ),
    Key(
        "data.normalise",
        Choice(NORMALISATIONS),
        "none",
        "-",
        "What is done after the division. `standardise`: each feature loses its mean and is "
        "divided by its standard deviation; `min-max`: each feature is mapped linearly, so that "
        "the training samples span [0, 1]; both as the training samples say. `per-image`: each "
        "sample loses the mean of its own features and is divided by their standard deviation.",
    ),
    Key(
        "data.standardise_target",
        Boolean(),
        False,
        "-",
        "Whether each number to be predicted loses its mean over the training samples and is "
        "divided by its standard deviation. Costs are then in units of its variance; predictions "
        "are scaled back. Only with a loss for numbers.",
    ),
    Key(
        "data.test_fraction",
        Number(0, 1, open_low=True, open_high=True),
        0.2,
        "fraction",
        "Share of the samples held out for testing, stratified by their classes if they have any, "
        "where the data have no test part.",
    ),
    Key(
        "data.validation_fraction",
        Number(0, 1, open_high=True),
        0.0,
        "fraction",
        "Share of the training samples held out for validation in the same way, where the data "
        "have no validation part.",
    ),
    Key(
        "data.seed",
        Number(0, 2**32 - 1, whole=True),
        0,
        "-",
        "Of the points drawn and of the split.",
    ),
    Key(
        "network.init",
        Initialization,
        "auto",
        "-",
        "How weights are drawn in layers that do not say; `auto` takes what suits the layer's "
        "activation.",
    ),
    Key(
        "network.layers",
        Components(Layer),
        REQUIRED,
        "-",
        "From the features to the logits. The last has as many outputs as there are classes, or "
        "one for two classes under `sigmoid_cross_entropy`; or one for each number to be "
        "predicted.",
    ),
    Key(
        "training.epochs",
        Number(1, 10**9, whole=True),
        REQUIRED,
        "epochs",
        "Passes over the training samples.",
    ),
    Key(
        "training.batch_size",
        Number(1, 10**9, whole=True, word="full"),
        "full",
        "samples",
        "Samples in a minibatch; `full` takes all of them at once.",
    ),
    Key(
        "training.shuffle",
        Boolean(),
        True,
        "-",
        "Whether each epoch visits the samples in a new random order.",
    ),
    Key(
        "training.augmentation",
        Components(Augmentation, may_be_empty=True),
        [],
        "-",
        "What is done to the samples of every step at random, one after another; what is evaluated "
        "is the data as they are.",
    ),
    Key(
        "training.seed",
        Number(0, 2**_BITS - 1, whole=True, word="auto"),
        "auto",
        "-",
        "Of the order in which samples are visited and of what layers draw; `auto` takes the "
        "recipe's `seed`.",
    ),
    Key(
        "training.class_weight",
        ClassWeight(),
        "none",
        "samples",
        "How much a sample of each class counts: a list with a number for each; or `balanced`, "
        "such that all classes count the same.",
    ),
    Key(
        "training.l1",
        Number(0),
        0.0,
        "cost per unit of weight",
        "Coefficient of a penalty in the cost, the sum of the weights' magnitudes.",
    ),
    Key(
        "training.l2",
        Number(0),
        0.0,
        "cost per squared unit of weight",
        "Coefficient of a penalty in the cost, half the sum of the squares of the weights.",
    ),
    Key(
        "training.penalty",
        Choice(("mean", "sum", "batch")),
        "mean",
        "-",
        "What the penalties are added to: the mean of the losses, or their sum over the training "
        "samples, which is then divided by their number: the course's `lambda` is `l2` with `sum`; "
        "or that over the batch, divided by its number: scikit-learn's `alpha` is `l2` with "
        "`batch`.",
    ),
    Key(
        "training.clip_value",
        Number(0, open_low=True, word="none"),
        "none",
        "cost per unit of parameter",
        "Largest that an element of the gradient may be; larger ones are brought down to it.",
    ),
    Key(
        "training.clip_norm",
        Number(0, open_low=True, word="none"),
        "none",
        "cost per unit of parameter",
        "Longest that the whole gradient may be; a longer one is brought down to it.",
    ),
    Key(
        "training.average",
        Number(0, 1, open_high=True, word="none"),
        "none",
        "-",
        "Decay of a moving average of the parameters, which is then what is evaluated and kept.",
    ),
    Key(
        "training.report_every",
        Number(1, 10**9, whole=True),
        1,
        "epochs",
        "Between reports of cost and accuracy, or R2; the first and the last epoch are always "
        "reported.",
    ),
    Key(
        "early_stopping.patience",
        Number(1, 10**9, whole=True, word="never"),
        "never",
        "epochs",
        "Training stops when what is watched has not improved for so many; noticed at reports.",
    ),
    Key(
        "early_stopping.monitor",
        Choice(MONITORS),
        "validation_cost",
        "-",
        "What is watched: a number of the reports. Under a loss for numbers accuracy is R2.",
    ),
    Key(
        "early_stopping.min_delta",
        Number(0),
        0.0,
        "as what is watched",
        "By how much it must be better than the best so far.",
    ),
    Key(
        "early_stopping.restore_best",
        Boolean(),
        True,
        "-",
        "Whether the parameters of the best reported epoch are kept, or the last ones.",
    ),
)

_BY_PATH = {key.path: key for key in KEYS}
# A value that is taken for a key, as in ``standardise = true``, leads to its key.
_BY_CHOICE = {c: key.path for key in KEYS if isinstance(key.kind, Choice) for c in key.kind.choices}
_TABLES = tuple(dict.fromkeys(key.path.partition(".")[0] for key in KEYS if "." in key.path))


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check a recipe's tables and fill in every default.

    Parameters
    ----------
    given : mapping
        As TOML gives it.

    Returns
    -------
    dict
        All keys that apply to the recipe's data set, in the order of :data:`KEYS`; and what it
        says under ``search``, paths of keys and their scales.

    Raises
    ------
    RecipeError
        If a key is not known, missing, or has an impossible value. The message gives the key's
        path, what came and what was expected, and the nearest valid name.
    """
    search = given.get("search")
    given = {key: value for key, value in given.items() if key != "search"}
    flat = dict(_flatten(given))
    for path, value in flat.items():
        if path not in _BY_PATH:
            raise unknown(path, value, (*_options(), *_BY_PATH, *_TABLES), _BY_CHOICE)
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
            value = _with_init(value, resolved["network"]["init"])
        table, _, last = key.path.rpartition(".")
        within = resolved.setdefault(table, {}) if table else resolved
        within[last] = key.kind.check(key.path, value)
        if key.path == "network.layers":
            within[last] = list(map(_without_networks_init, said, within[last]))
    if resolved["rng"] == "numpy-legacy":
        seeds = {"seed": resolved["seed"], "training.seed": resolved["training"]["seed"]}
        for path, seed in seeds.items():
            if seed != "auto" and seed >= 2**32:
                raise wrong(path, 'below 2**32 with rng = "numpy-legacy"', seed)
    if resolved["early_stopping"]["patience"] == "never":
        for key in KEYS:
            said = flat.get(key.path, key.default)
            if key.path.startswith("early_stopping.") and said != key.default:
                raise RecipeError(
                    f"{key.path} (got {shown(said)}) says nothing without early_stopping.patience"
                )
    if resolved["data"]["standardise_target"]:
        loss = Loss.resolve(resolved["loss"])
        if loss.has_classes:
            raise wrong("data.standardise_target", "false with a loss for classes", True)
        if not loss.has_negatives:
            expected = f"false with {loss.name}, which is for numbers >= 0"
            raise wrong("data.standardise_target", expected, True)
    if search is not None:
        resolved["search"] = _search(search, resolved)
    return resolved


def _search(search: Any, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the table ``[search]`` with paths as its keys, having tried what the scales end in.

    Each in the recipe with every default filled in, as a trial does it, and wherever it exists.
    """
    if not isinstance(search, dict):
        raise wrong("search", "a table [search]", search)
    tables = _scales("", search)
    if not tables:
        raise RecipeError(
            "search must name a key of the recipe and its scale, as "
            "optimizer.learning_rate = { log_uniform = [1e-4, 0.1] }, got an empty table"
        )
    for path in tables:
        if path.partition(".")[0] == "data" and path not in _SEARCHED_DATA:
            raise RecipeError(
                f"search.{path} cannot be: all trials have the same data; of [data] there may be "
                f"{', '.join(_SEARCHED_DATA)}"
            )
        if path in ("description", "device", "precision", "search"):
            raise RecipeError(f"search.{path} cannot be: it is the same for all trials")
    try:
        space = Space.from_tables(tables)
    except ValueError as error:
        raise RecipeError(f"search.{error}") from error
    for path, scale in space.items():
        earlier = list(space)[: list(space).index(path)]
        for other in earlier:
            if other.startswith(f"{path}."):
                raise RecipeError(
                    f"search.{path} must stand before search.{other}, which it would undo"
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
    """Find the scales, which TOML may have put into tables of tables."""
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
                raise RecipeError(f"search.{other} is said twice")
            found[other] = scale
    return found


def set_value(tables: dict[str, Any], path: str, value: Any) -> None:
    """Set one key of a recipe's tables, or an option of a component in them.

    Parameters
    ----------
    tables : dict
        Changed in place.
    path : str
        As ``network.layers.0.units``; members of a list are counted from 0.
    value : object
        As TOML gives it.

    Raises
    ------
    RecipeError
        If there is no such place.
    """
    words = path.split(".")
    if words[0] == "search":
        words[1:] = _as_named(words[1:], tables.get("search"))
    within: Any = tables
    for depth, word in enumerate(words[:-1], start=1):
        so_far = ".".join(words[:depth])
        slot = _slot(within, word, so_far)
        if isinstance(within, dict):
            within.setdefault(word, {})
        if isinstance(within[slot], str):  # a component that was given by its name alone
            within[slot] = {"type": within[slot]}
        within = within[slot]
        if not isinstance(within, (dict, list)):
            raise RecipeError(f"{path} is not a key of a recipe: {so_far} holds no keys")
    within[_slot(within, words[-1], path)] = value


def _as_named(words: list[str], search: Any) -> list[str]:
    """Join the words that are one name in a table ``[search]``, as in a recipe written out."""
    for n in range(len(words), 1, -1):
        name = ".".join(words[:n])
        if isinstance(search, dict) and name in search:
            return [name, *words[n:]]
    return words


def _slot(within: dict[str, Any] | list[Any], word: str, path: str) -> Any:
    """Give the key of a table, or the position in a list, that a word means."""
    if isinstance(within, dict):
        return word
    if not re.fullmatch("[0-9]{1,9}", word) or int(word) >= len(within):
        counted = f"members are counted from 0 to {len(within) - 1}"
        raise RecipeError(
            f"{path} is not a key of a recipe: {counted if within else 'the list has no members'}"
        )
    return int(word)


def _options() -> Iterator[str]:
    """Give the paths of the components' options, such as ``optimizer.learning_rate``."""
    kinds: dict[str, type[Configurable]] = {
        "network.layers.N": Layer,
        "loss": Loss,
        "optimizer": Optimizer,
        "schedule": Schedule,
        "training.augmentation.N": Augmentation,
    }
    for path, kind in kinds.items():
        for component in kind.known().values():
            yield from (f"{path}.{option.name}" for option in options(component))


def _with_init(layers: Any, init: Any) -> Any:
    """Give the layers that have weights, and do not say how they are drawn, the network's way."""
    if not isinstance(layers, list):
        return layers
    known = Layer.known()
    given = [{"type": layer} if isinstance(layer, str) else layer for layer in layers]
    return [
        {**layer, "init": init}
        if isinstance(layer, dict)
        and "init" not in layer
        and layer.get("type") in tuple(known)
        and "init" in {option.name for option in options(known[layer["type"]])}
        else layer
        for layer in given
    ]


def _without_networks_init(given: Any, checked: Any) -> Any:
    """Leave a layer's ``init`` out where the recipe does, so that ``network.init`` is what counts.

    Otherwise to change it in a recipe that was written out would change nothing.
    """
    if isinstance(checked, str) or (isinstance(given, dict) and "init" in given):
        return checked
    return {key: option for key, option in checked.items() if key != "init"}


def layers_with_init(network: Mapping[str, Any]) -> list[Any]:
    """Give a checked recipe's layers, those that do not say it drawn as ``network.init`` says.

    Parameters
    ----------
    network : mapping
        The table ``[network]`` that :func:`resolve` gave.

    Returns
    -------
    list
        As :class:`xpnet.nn.Network` takes them.
    """
    layers: list[Any] = _with_init(network["layers"], network["init"])
    return layers


def _flatten(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if "." in key:  # quoted, hence not the path that it looks like
            raise unknown(f'"{key}"', value, (*_BY_PATH, *_TABLES))
        if key not in _TABLES:
            yield key, value
        elif isinstance(value, dict):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            raise wrong(key, f"a table [{key}]", value)


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
        "This page is written by `make docs` from `xpnet/schema.py`.",
    ]
    for table in ("", *_TABLES):
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
            if component.__module__.partition(".")[0] != "xpnet":
                continue
            if kind is Layer and issubclass(component, Activation):
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
