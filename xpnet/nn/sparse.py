"""Sparse samples, made dense batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array

__all__ = ["SparseSamples", "is_sparse"]


def is_sparse(X: Any) -> bool:
    """Tell whether ``X`` is a sparse matrix or array, of SciPy or of SciPy's kind."""
    return hasattr(X, "tocsr")


class SparseSamples:
    """The samples of a sparse matrix, on the host, in compressed rows.

    The entries of sample i are ``data[p]``, in the columns ``columns[p]``, where p runs from
    ``starts[i]`` to ``starts[i + 1]``; everything else is 0. No more than a batch is ever dense.

    Parameters
    ----------
    X : sparse matrix or array (n_samples, n_features)
        Of ``scipy.sparse``, of any format, with real numbers. It stays as it is; what need not be
        converted is not copied. Entries that stand there twice are added up.
    device : Device
        Where batches go.
    dtype : {"float32", "float64"}
        What numbers are converted to. One that is out of its range becomes infinite.
    name : str
        How error messages call ``X``.

    Attributes
    ----------
    shape : tuple of int
    ndim : int
        2.
    dtype : numpy.dtype
    data : array (n_entries,)

    Raises
    ------
    ValueError
        If ``X`` does not have two dimensions.
    TypeError
        If it does not hold real numbers, or does not live on the host.
    """

    ndim = 2

    def __init__(self, X: Any, device: Device, dtype: npt.DTypeLike, *, name: str = "X") -> None:
        self.dtype = np.dtype(dtype)
        if len(X.shape) != self.ndim:
            raise ValueError(f"{name} must have shape (n_samples, n_features), got {X.shape}")
        if X.dtype.kind not in "biuf":
            raise TypeError(
                f"{name} does not convert to an array of {self.dtype}: its dtype is {X.dtype}"
            )
        rows = X.tocsr()
        if not isinstance(rows.data, np.ndarray):
            raise TypeError(
                f"{name} is a sparse matrix of {type(rows.data).__module__}, whose samples do not "
                "lie on the host: pass one of scipy.sparse"
            )
        if not rows.has_canonical_format:
            rows = rows.copy()
            rows.sum_duplicates()
        self.shape: tuple[int, int] = rows.shape
        self._device = device
        self._starts = np.asarray(rows.indptr, dtype=np.int64)
        n_entries = int(self._starts[-1])  # there may be room for more behind them
        self._columns = rows.indices[:n_entries]
        with np.errstate(all="ignore"):
            self.data = rows.data[:n_entries].astype(self.dtype, copy=False)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: slice | Array) -> npt.NDArray[Any]:
        """Make some samples dense, in a new array on the host.

        Parameters
        ----------
        chosen : slice or int64 device array (k,)

        Returns
        -------
        numpy.ndarray (k, n_features)
        """
        if isinstance(chosen, slice):
            indices = np.arange(*chosen.indices(len(self)))
        else:
            indices = self._device.to_host(chosen)
        dense = np.zeros((len(indices), self.shape[1]), dtype=self.dtype)
        rows, columns, values = self._entries(indices)
        dense[rows, columns] = values
        return dense

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        """Refuse to be dense as a whole."""
        del dtype, copy
        raise TypeError("sparse samples become dense batch by batch, never all at once")

    def gather(self, indices: Array, out: Array) -> Array:
        """Make a batch dense, ``out[i] = X[indices[i]]``.

        On CUDA this waits for the device once, which tells the host the indices, and copies the
        batch's entries there, not its zeros; so no graph can hold it. It asks for memory for the
        entries, on the host and on the device.

        Parameters
        ----------
        indices : int64 device array (k,)
            In ``[0, n_samples)``.
        out : device array (k, n_features)
            Overwritten.

        Returns
        -------
        device array (k, n_features)
            ``out``.
        """
        rows, columns, values = map(
            self._device.asarray, self._entries(self._device.to_host(indices))
        )
        out.fill(0)
        out[rows, columns] = values
        return out

    def _entries(
        self, indices: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[Any]]:
        """Give the entries of some samples: row among them, column, value."""
        starts = self._starts[indices]
        lengths = self._starts[indices + 1] - starts
        rows = np.repeat(np.arange(len(indices)), lengths)
        # The p-th entry found is that of its sample which lies as far behind the sample's start.
        before = np.cumsum(lengths) - lengths
        places = np.arange(len(rows)) + np.repeat(starts - before, lengths)
        return rows, self._columns[places], self.data[places]
