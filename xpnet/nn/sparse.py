"""Sparse samples, converted to dense arrays batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.kernels.reference import Array

__all__ = ["SparseSamples", "is_sparse"]


def is_sparse(X: Any) -> bool:
    """Return whether ``X`` is a sparse matrix or array of SciPy or a compatible library."""
    return hasattr(X, "tocsr")


class SparseSamples:
    """Samples of a sparse matrix on the host, in compressed sparse row (CSR) format.

    The entries of sample i are ``data[p]``, in the columns ``columns[p]``, with p from
    ``starts[i]`` to ``starts[i + 1] - 1``; everything else is 0. At most one batch is dense at any
    time.

    Parameters
    ----------
    X : sparse matrix or array (n_samples, n_features)
        Matrix or array of ``scipy.sparse`` in any format, with real numbers. It is not changed, and
        not copied unless it has to be converted. Duplicate entries are summed.
    device : Device
        Device of the batches.
    dtype : {"float32", "float64"}
        Dtype of the entries. Numbers out of its range become infinite.
    name : str
        Name of ``X`` in error messages.

    Attributes
    ----------
    shape : tuple of int
        Shape of the matrix.
    ndim : int
        Number of dimensions, 2.
    dtype : numpy.dtype
        Dtype of the entries.
    data : array (n_entries,)
        The entries.

    Raises
    ------
    ValueError
        If ``X`` does not have two dimensions.
    TypeError
        If ``X`` does not hold real numbers or is not on the host.
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
                f"{name} must be a matrix of scipy.sparse, got a sparse matrix with data of "
                f"{type(rows.data).__module__}"
            )
        if not rows.has_canonical_format:
            rows = rows.copy()
            rows.sum_duplicates()
        self.shape: tuple[int, int] = rows.shape
        self._device = device
        self._starts = np.asarray(rows.indptr, dtype=np.int64)
        n_entries = int(self._starts[-1])  # the arrays may be longer
        self._columns = rows.indices[:n_entries]
        with np.errstate(all="ignore"):
            self.data = rows.data[:n_entries].astype(self.dtype, copy=False)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: slice | Array) -> npt.NDArray[Any]:
        """Return some samples as a new dense array on the host.

        Parameters
        ----------
        chosen : slice or int64 device array (k,)
            Indices of the samples.

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
        """Raise a TypeError: the samples are never converted to one dense array."""
        del dtype, copy
        raise TypeError("sparse samples become dense batch by batch, never all at once")

    def gather(self, indices: Array, out: Array) -> Array:
        """Write a dense batch, ``out[i] = X[indices[i]]``.

        On CUDA this waits once for the device, to copy the indices to the host, and then copies the
        entries of the batch, not its zeros, to the device. It cannot be recorded. It
        allocates memory for the entries on the host and on the device.

        Parameters
        ----------
        indices : int64 device array (k,)
            Indices of the samples, in ``[0, n_samples)``.
        out : device array (k, n_features)
            Overwritten with the batch.

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
        """Return the entries of some samples: row in the batch, column, value."""
        starts = self._starts[indices]
        lengths = self._starts[indices + 1] - starts
        rows = np.repeat(np.arange(len(indices)), lengths)
        # Entry p of the batch is as far from the start of its sample as in the whole matrix.
        before = np.cumsum(lengths) - lengths
        places = np.arange(len(rows)) + np.repeat(starts - before, lengths)
        return rows, self._columns[places], self.data[places]
