"""The table of all keys of a recipe: kind, default, unit and meaning of each."""

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
        Table and name of the key, such as ``"training.epochs"``.
    kind : Kind
        Values that the key accepts.
    default : object
        Value if the recipe does not give one; ``REQUIRED`` if it must. A dictionary holds one
        default for each data set.
    unit : str
        ``"-"`` if the value has no unit.
    meaning : str
        What the key does, for the reference page.
    only : tuple of str
        Data sets, or file name endings, that the key applies to; all if empty.
    """

    path: str
    kind: Kind
    default: Any
    unit: str
    meaning: str
    only: tuple[str, ...] = ()

    @property
    def is_required(self) -> bool:
        """Whether a recipe must give the key."""
        return self.default is REQUIRED

    def default_for(self, dataset: str) -> Any:
        """Return the default for a data set."""
        return self.default[dataset] if isinstance(self.default, dict) else self.default

    def applies_to(self, dataset: str) -> bool:
        """Return whether a recipe with this data set may give the key."""
        return not self.only or dataset in self.only or dataset.lower().endswith(self.only)


@dataclass(frozen=True)
class _DataSet:
    """The name of a data set, or a file."""

    name: str = "name of a data set or a file"

    def check(self, path: str, value: Any) -> str:
        """Return the value."""
        text = Text(self.name, ".+").check(path, value)
        if text not in NAMES and not is_file_name(text):
            known = f"{self.name} (.npz, .csv, .h5 or idx; {', '.join(NAMES)})"
            raise wrong(path, known, text, near=nearest(text, NAMES))
        return text


_BITS = 63  # of a TOML integer, without its sign

KEYS = (
    Key(
        "description", Text("string of one line"), "", "-", "Description in one line, for `--list`."
    ),
    Key(
        "seed",
        Number(0, 2**_BITS - 1, whole=True),
        0,
        "-",
        "Seed of the weights and of the order of the samples. It must be below 2^32 with `rng = "
        '"numpy-legacy"`.',
    ),
    Key(
        "rng",
        Choice(("numpy", "numpy-legacy")),
        "numpy",
        "-",
        "Random generator of the weights: `numpy` is NumPy's PCG64; `numpy-legacy` is "
        "`RandomState`, with weights drawn feature-major, as in the notebooks of the course "
        "(Andrew Ng's Deep Learning Specialization on Coursera).",
    ),
    Key(
        "dtype",
        Choice(("float32", "float64")),
        "float32",
        "-",
        "Data type of parameters, activations and gradients.",
    ),
    Key(
        "device",
        Text('"cpu", "cuda", "cuda:N" or "auto"', r"cpu|cuda|cuda:\d{1,4}|auto"),
        "cpu",
        "-",
        "Device to train on. `--device` and the environment variable `XPNET_DEVICE` override it.",
    ),
    Key(
        "precision",
        Choice(PRECISIONS),
        "float32",
        "-",
        "Precision of products of float32 matrices. `tf32` rounds their elements to 10 bits of "
        "mantissa and uses the tensor cores of a GPU (Ampere or later). The environment variable "
        "`XPNET_PRECISION` overrides it.",
    ),
    Key(
        "loss",
        Component(Loss),
        REQUIRED,
        "nats; squares of the regression target",
        "Loss function. Training minimises its mean over the training samples. The labels are "
        "regression targets with `mean_squared_error` and `poisson_deviance`, and classes with the "
        "other losses.",
    ),
    Key(
        "optimizer",
        Component(Optimizer),
        REQUIRED,
        "-",
        "Rule that updates the parameters in each step.",
    ),
    Key(
        "schedule",
        Component(Schedule),
        "constant",
        "-",
        "How the learning rate changes during training: a factor on the optimizer's rate.",
    ),
    Key(
        "data.dataset",
        _DataSet(),
        REQUIRED,
        "-",
        f"Data set to train on: {', '.join(f'`{name}`' for name in NAMES)}, or a file of your own "
        "(`.npz`, `.csv`, `.h5` or idx).",
    ),
    Key(
        "data.target",
        Text("string", ".+"),
        REQUIRED,
        "-",
        "Column that holds the labels or regression targets. On the command line, `--target` sets "
        "it too.",
        only=(".csv",),
    ),
    Key(
        "data.sample_weight",
        Text("string", ".+", word="none"),
        "none",
        "samples",
        "Column of a `.csv` file, or array of another file, that holds the weights of the training "
        "samples. The column is then not a feature. Weights apply only during training: all "
        "validation and test scores, and those computed after training, weight samples equally.",
        only=WEIGHTED,
    ),
    Key(
        "data.n_samples",
        Number(10, 10**9, whole=True),
        400,
        "samples",
        "Number of points to draw.",
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
        "Number that all features are divided by. `auto` means 255 for 8-bit features with values "
        "above 1, and 1 otherwise.",
    ),
    Key(
        "data.normalise",
        Choice(NORMALISATIONS),
        "none",
        "-",
        "Normalisation after the division. `standardise` subtracts each feature's mean and divides "
        "by its standard deviation. `min-max` maps each feature linearly to [0, 1]. Both use the "
        "statistics of the training samples. `per-image` subtracts the mean of each sample's own "
        "features and divides by their standard deviation.",
    ),
    Key(
        "data.standardise_target",
        Boolean(),
        False,
        "-",
        "Whether to standardise each regression target with its mean and standard deviation over "
        "the training samples. Costs are then in units of its variance; predictions are scaled "
        "back. Only with a regression loss.",
    ),
    Key(
        "data.test_fraction",
        Number(0, 1, open_low=True, open_high=True),
        0.2,
        "fraction",
        "Fraction of the samples held out for testing if the data have no test part. In "
        "classification the split is stratified by class.",
    ),
    Key(
        "data.validation_fraction",
        Number(0, 1, open_high=True),
        0.0,
        "fraction",
        "Fraction of the training samples held out for validation if the data have no validation "
        "part, split in the same way.",
    ),
    Key(
        "data.seed",
        Number(0, 2**32 - 1, whole=True),
        0,
        "-",
        "Seed of the points drawn and of the split into parts.",
    ),
    Key(
        "network.init",
        Initialization,
        "auto",
        "-",
        "Initialisation of the weights in layers without an `init` of their own. `auto` chooses "
        "one that suits the layer's activation.",
    ),
    Key(
        "network.layers",
        Components(Layer),
        REQUIRED,
        "-",
        "Layers from the features to the logits. The last layer must have one output for each "
        "class, a single output with `sigmoid_cross_entropy` (two classes), or one output for each "
        "regression target.",
    ),
    Key(
        "training.epochs",
        Number(1, 10**9, whole=True),
        REQUIRED,
        "epochs",
        "Number of passes over the training samples.",
    ),
    Key(
        "training.batch_size",
        Number(1, 10**9, whole=True, word="full"),
        "full",
        "samples",
        "Number of samples in a minibatch. `full` uses all training samples in each step.",
    ),
    Key(
        "training.shuffle",
        Boolean(),
        True,
        "-",
        "Whether to shuffle the samples in each epoch.",
    ),
    Key(
        "training.augmentation",
        Components(Augmentation, may_be_empty=True),
        [],
        "-",
        "Random changes to the samples of each training step, applied in this order. Evaluation "
        "uses the original samples.",
    ),
    Key(
        "training.seed",
        Number(0, 2**_BITS - 1, whole=True, word="auto"),
        "auto",
        "-",
        "Seed of the order of the samples and of the layers' random numbers, such as dropout's. "
        "`auto` uses the recipe's `seed`.",
    ),
    Key(
        "training.class_weight",
        ClassWeight(),
        "none",
        "samples",
        "Weight of the samples of each class: a list with one number for each class, or `balanced` "
        "for weights that give all classes the same total.",
    ),
    Key(
        "training.l1",
        Number(0),
        0.0,
        "cost per unit of weight",
        "Coefficient of the L1 penalty in the cost: the sum of the weights' absolute values.",
    ),
    Key(
        "training.l2",
        Number(0),
        0.0,
        "cost per squared unit of weight",
        "Coefficient of the L2 penalty in the cost: half the sum of the squared weights.",
    ),
    Key(
        "training.penalty",
        Choice(("mean", "sum", "batch")),
        "mean",
        "-",
        "Scale of the penalties. `mean` adds them to the mean loss. `sum` adds them to the summed "
        "loss of all training samples, so they are divided by the number of training samples: the "
        "course's `lambda` is `l2` with `sum`. `batch` adds them to the summed loss of the batch, "
        "so they are divided by the batch's size: scikit-learn's `alpha` is `l2` with `batch`.",
    ),
    Key(
        "training.clip_value",
        Number(0, open_low=True, word="none"),
        "none",
        "cost per unit of parameter",
        "Largest absolute value of a gradient's element. Larger elements are clipped to it.",
    ),
    Key(
        "training.clip_norm",
        Number(0, open_low=True, word="none"),
        "none",
        "cost per unit of parameter",
        "Largest norm of the gradient of all parameters together. A longer gradient is scaled down "
        "to it.",
    ),
    Key(
        "training.average",
        Number(0, 1, open_high=True, word="none"),
        "none",
        "-",
        "Decay rate of a moving average of the parameters. The averaged parameters are then "
        "evaluated and kept.",
    ),
    Key(
        "training.report_every",
        Number(1, 10**9, whole=True),
        1,
        "epochs",
        "Number of epochs between reports of cost and accuracy (R2 in regression). The first and "
        "the last epoch are always reported.",
    ),
    Key(
        "early_stopping.patience",
        Number(1, 10**9, whole=True, word="never"),
        "never",
        "epochs",
        "Number of epochs without improvement of the monitored quantity after which training "
        "stops. Checked at reports.",
    ),
    Key(
        "early_stopping.monitor",
        Choice(MONITORS),
        "validation_cost",
        "-",
        "Quantity to monitor. In regression, accuracy means R2.",
    ),
    Key(
        "early_stopping.min_delta",
        Number(0),
        0.0,
        "as the monitored quantity",
        "Smallest change that counts as an improvement on the best value so far.",
    ),
    Key(
        "early_stopping.restore_best",
        Boolean(),
        True,
        "-",
        "Whether to keep the parameters of the best reported epoch instead of the last ones.",
    ),
)

TABLES = tuple(dict.fromkeys(key.path.partition(".")[0] for key in KEYS if "." in key.path))
