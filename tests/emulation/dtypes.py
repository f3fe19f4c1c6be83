"""Test equipment: the dtypes that the stand-in has, and what converts to what."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

_KINDS = "?bhilqBHILQefdFD"  # dtypes that CuPy has


def check_dtype(dtype: Any) -> Any:
    """Return a dtype that CuPy has (_dtype.pyx, check_supported_dtype)."""
    found = np.dtype(dtype)
    if found.char not in _KINDS or not found.isnative:
        raise ValueError(f"Unsupported dtype {found}")
    return found


@functools.cache
def resolve_dtypes(ufunc: Any, *types: Any) -> tuple[Any, ...]:
    dtypes: tuple[Any, ...] = ufunc.resolve_dtypes((*types, None))
    return dtypes


def is_weak(value: Any) -> bool:
    return type(value) in (int, float, complex)


def check_cast(found: Any, target: Any) -> None:
    if not np.can_cast(found, target, "same_kind"):  # _dtype.pyx, _raise_if_invalid_cast
        raise TypeError(
            f"Cannot cast output operand from {found!r} to {target!r} according to the rule "
            "'same_kind'"
        )
