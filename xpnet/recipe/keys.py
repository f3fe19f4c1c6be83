"""The table of a recipe's keys, each with its kind, default, unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xpnet.data.named import GENERATED, NAMES, WEIGHTED, is_file_name
from xpnet.data.preprocessing import NORMALISATIONS
from xpnet.device import PRECISIONS
from xpnet.nn.augmentation import Augmentation
from xpnet.nn.interfaces import Layer
from xpnet.nn.losses import Loss
from xpnet.nn.optimizers import Optimizer
from xpnet.nn.schedules import MONITORS, Schedule
from xpnet.recipe.errors import nearest, wrong
from xpnet.recipe.kinds import (
    Boolean,
    Choice,
    ClassWeight,
    Component,
    Components,
    Initialization,
    Kind,
    Number,
    Text,
)
from xpnet.recipe.signatures import REQUIRED

__all__ = ["KEYS", "TABLES", "Key"]


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
        Text("string", ".+", word="none"),
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
        GENERATED,
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

TABLES = tuple(dict.fromkeys(key.path.partition(".")[0] for key in KEYS if "." in key.path))
