"""The fused operations on the CPU, run by the loops of the compiled extension.

The extension module ``_host`` is built when xpnet is installed, if there is a C++ compiler. It runs
the loops. This module tells it each operation's parameters and operands, from the catalogue.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.kernels.blas import (
    available_cores,
    available_cpus,
    chosen_blas,
    chosen_threads,
    register,
)
from xpnet.kernels.catalogue import CATALOGUE, ColumnReduce, Elementwise, Resampled, Row, Rowwise
from xpnet.kernels.host_source import FAILURE, FOLDER, digest
from xpnet.kernels.reference import NumpyOps, ReferenceOps

__all__ = [
    "count_threads",
    "description",
    "fused",
    "large_pages",
    "permutation",
    "problem",
    "random_words",
    "record",
    "shared",
    "shares_core",
    "variants",
]

_LAYOUTS = ("each", "column", "row", "single")
_USES = ("in", "inout", "out")
_CONSTANTS = {"T": 0, "double": 0, "fraction": 1, "uint32": 32, "int64": 63, "uint64": 64}
_KINDS: dict[type[Row], int] = {Elementwise: 0, ColumnReduce: 1, Rowwise: 2, Resampled: 4}
_GATHER = 3
_BITS = {"seed": 64, "first": 34}  # of the numbers that choose random words; the others have 32
# Editable: Python started in the checkout imports what lies there.
_BUILD = (
    "with a working C++ compiler, type in a checkout: pip install --force-reinstall --no-deps -e ."
)


@functools.cache
def problem() -> str | None:
    """Return why the host kernels cannot be used, or None if they can.

    Returns
    -------
    str or None
        One line, with what to do.
    """
    try:
        module = _module()
    except ModuleNotFoundError:
        return _failure() or f"not built: {_BUILD}"
    except (ImportError, RuntimeError) as error:  # NumPy's error for another ABI
        return f"cannot be loaded ({' '.join(str(error).split())}): {_BUILD}"
    if module.digest != digest():
        return _failure() or f"built from other sources: {_BUILD}"
    return None


def _failure() -> str | None:
    """Return why the last build failed, or None if it did not."""
    kept = FOLDER / FAILURE
    if not kept.exists():
        return None
    reason = kept.read_text(encoding="utf-8").strip()
    return f"not built, because {reason}: {_BUILD}"


def variants() -> list[str]:
    """Return the instruction sets of the compiled loops that this processor supports.

    Returns
    -------
    list of str
        The best first, ``"baseline"`` last; empty without host kernels.
    """
    if problem() is not None:
        return []
    return [name for name, is_supported in _module().compiled_variants().items() if is_supported]


def description() -> str:
    """Describe the host kernels in one line."""
    module = _module()
    return f"{variants()[0]} loops, compiled by {module.compiler}"


@functools.cache
def fused(variant: str | None = None) -> dict[str, Callable[..., Any]]:
    """Return the fused operations by name.

    Parameters
    ----------
    variant : str, optional
        One of :func:`variants`; the best by default.

    Returns
    -------
    dict of str to callable
        Functions with the signatures of the methods of :class:`ReferenceOps`; empty without host
        kernels.
    """
    if problem() is not None:
        return {}
    chosen = variant or variants()[0]
    return {row.name: _operation(row, chosen) for row in CATALOGUE}


@functools.cache
def shared() -> dict[str, Callable[..., Any]]:
    """Return the matrix product shared by a team of threads, and enable the team for long loops.

    Each thread of the team calls NumPy's own BLAS for a part of the result. As many threads take
    part as make a job faster, or ``XPNET_THREADS`` if set; never more than that BLAS may use at the
    time of the call (``OPENBLAS_NUM_THREADS``, threadpoolctl). If SciPy's BLAS serves instead, it
    shares out each product itself, and there is no team.

    Returns
    -------
    dict of str to callable
        ``"matmul"``; empty without host kernels, or if :func:`chosen_blas` finds no BLAS.

    Raises
    ------
    ValueError
        If ``XPNET_THREADS`` is not a whole number from 1 to 64.
    """
    chosen = chosen_threads()
    blas = None if problem() is not None else chosen_blas()
    if blas is None:
        return {}
    _module().use_blas(
        *(blas.sgemm, blas.dgemm, blas.sgemv, blas.dgemv),
        *(blas.get_threads, blas.set_threads, blas.is_64_bit, blas.is_fortran),
    )
    if not blas.get_threads:
        _module().use_threads(1, 1, 0)
        return {"matmul": _module().matmul}
    n_cores = available_cores()
    most = n_cores if n_cores > 1 else available_cpus()
    _module().use_threads(os.cpu_count() or 1, most, chosen or 0)
    register()
    return {"matmul": _module().matmul}


@contextmanager
def large_pages() -> Iterator[None]:
    """Put large arrays that are created inside the ``with`` block into large pages of memory.

    This affects only this thread, or task, and needs host kernels and a system with such pages.
    """
    module = None if problem() is not None else _module()
    before = None if module is None else module.use_memory(None)
    try:
        yield
    finally:
        if module is not None and before is not None:
            module.use_memory(before)


def count_threads() -> int:
    """Return the number of threads that may share a product or a long loop now."""
    found: int = _module().count_threads() if shared() else 1
    return found


def shares_core() -> bool | None:
    """Measure whether two threads of the team share one core and its arithmetic.

    Returns
    -------
    bool or None
        None with one thread, or if the other thread did not get a processor to answer.
    """
    found: bool | None = _module().shares_core() if shared() else None
    return found


def record(
    work: Callable[[], object],
    loss: npt.NDArray[Any],
    counter: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64] | None,
    rate: npt.NDArray[Any] | None,
) -> Any:
    """Record the operations that ``work`` calls as a program; see :class:`xpnet.nn.StepProgram`.

    They do not run meanwhile. This sees only fused operations: whatever else ``work`` does is
    not part of the program.

    Parameters
    ----------
    work : callable
        A training step.
    loss : array (1,)
        Where the step writes its loss.
    counter : int64 array (1,)
        Advanced by 1 before each step.
    indices : int64 array (batch_size,) or None
        Where ``work`` takes the indices of a minibatch from.
    rate : array (1,) or None
        Where the step reads a learning rate that changes from step to step.

    Returns
    -------
    Program
        It has ``jobs``, descriptions of its parts, and ``run(losses, indices, rates, seconds)``,
        which takes up to ``len(losses)`` steps and returns how many.

    Raises
    ------
    RuntimeError
        If an operation cannot be recorded.
    """
    return _module().record(work, loss, counter, indices, rate)


def random_words(
    n: int,
    seed: int,
    *,
    layer: int = 0,
    step: int = 0,
    purpose: int,
    first: int = 0,
    variant: str | None = None,
) -> npt.NDArray[np.uint32]:
    """Draw words as the kernels do; they equal :func:`xpnet.kernels.philox.random_words`.

    Parameters
    ----------
    n, seed, layer, step, purpose : int
        As for :func:`xpnet.kernels.philox.random_words`.
    first : int
        Number of the first word.
    variant : str, optional
        One of :func:`variants`; the best by default.

    Returns
    -------
    uint32 array of shape (n,)

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    _check_draw(seed=seed, layer=layer, step=step, purpose=purpose, first=first)
    chosen = variant or variants()[0]
    words: npt.NDArray[np.uint32] = _module().random_words(
        chosen, first, n, seed, layer, step, purpose
    )
    return words


def permutation(n: int, seed: int, *, step: int = 0, purpose: int) -> npt.NDArray[np.int64]:
    """Draw the permutation of :func:`xpnet.kernels.philox.permutation` by compiled code.

    Parameters
    ----------
    n, seed, step, purpose : int
        As for :func:`xpnet.kernels.philox.permutation`.

    Returns
    -------
    int64 array of shape (n,)

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    _check_draw(n=n, seed=seed, step=step, purpose=purpose)
    order: npt.NDArray[np.int64] = _module().permutation(n, seed, step, purpose)
    return order


def _check_draw(**numbers: int) -> None:
    for name, value in numbers.items():
        bits = _BITS.get(name, 32)
        if not 0 <= value < 2**bits:
            raise ValueError(f"{name} must lie in [0, 2**{bits}), got {value}")


def _module() -> Any:
    return importlib.import_module("xpnet.kernels._host")


def _operation(row: Row, variant: str) -> Callable[..., Any]:
    method = getattr(ReferenceOps, row.name)
    signature = inspect.signature(method)
    parameters = list(signature.parameters.values())[1:]
    operation: Callable[..., Any] = _module().make_operation(
        variant,
        row.name,
        _kind(row),
        tuple(_parameter(p) for p in parameters),
        tuple(
            (o.name, o.type, _LAYOUTS.index(o.layout), _USES.index(o.use), o.optional)
            for o in row.operands
        ),
        tuple((c.name, _CONSTANTS[c.type]) for c in row.numbers if c.formula is None),
        getattr(NumpyOps(np), row.name),
    )
    functools.update_wrapper(operation, method)
    operation.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return operation


def _parameter(parameter: inspect.Parameter) -> tuple[str, bool, bool, float]:
    """Return the name, whether it is required, whether it may be None, and its default."""
    default = parameter.default
    is_required, may_be_none = default is inspect.Parameter.empty, default is None
    otherwise = 0.0 if is_required or may_be_none else float(default)
    return parameter.name, is_required, may_be_none, otherwise


def _kind(row: Row) -> int:
    if isinstance(row, Elementwise) and row.gathered:
        return _GATHER
    return _KINDS[type(row)]
