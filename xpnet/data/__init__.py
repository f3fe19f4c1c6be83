"""Data sets by name and from files, their splits, and the preprocessing of features."""

from xpnet.data.dataset import Contents, DataError, Dataset, Part
from xpnet.data.named import load_contents, load_dataset
from xpnet.data.preprocessing import Preprocessing
from xpnet.data.readers import read_file, read_idx
from xpnet.data.splits import make_dataset

__all__ = [
    "Contents",
    "DataError",
    "Dataset",
    "Part",
    "Preprocessing",
    "load_contents",
    "load_dataset",
    "make_dataset",
    "read_file",
    "read_idx",
]
