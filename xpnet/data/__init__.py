"""Named data sets, split into training and test data."""

from xpnet.data.dataset import DataError, Dataset
from xpnet.data.named import load_dataset

__all__ = ["DataError", "Dataset", "load_dataset"]
