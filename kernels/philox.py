"""Philox4x32-10, a counter-based random number generator, as plain array expressions.

A counter-based generator has no state: the four words that it returns depend only on a counter and
a key. So the same counter and key give the same bits on a CPU and on a GPU, in any order and from
any number of threads, and minibatches and masks are the same on all devices.

References
----------
Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011;
the known-answer vectors are those of the authors' Random123 library.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

__all__ = ["permutation", "philox4x32", "random_words"]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1, times 2**32
_ROUNDS = 10
_WORD = 0xFFFFFFFF


def philox4x32(
    xp: ModuleType, counter: tuple[Any, Any, Any, Any], key: tuple[int, int]
) -> tuple[Any, Any, Any, Any]:
    """Encrypt counters into random words.

    Ten rounds of ``(c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1,
    lo(M0 c0))``, the key growing by the Weyl constants between rounds; ``hi`` and ``lo`` are the
    halves of the 64-bit product.

    Parameters
    ----------
    xp : module
        ``numpy`` or ``cupy``.
    counter : tuple of four uint64 arrays or ints
        Values below 2**32, broadcast against each other. At least one must be an array.
    key : tuple of two ints
        Values below 2**32.

    Returns
    -------
    tuple of four uint32 arrays
        One for each lane, of the broadcast shape.

    Raises
    ------
    ValueError
        If a key word is not a 32-bit unsigned integer.
    """
    for word in key:
        if not 0 <= word <= _WORD:
            raise ValueError(f"key words must lie in [0, 2**32), got {word}")
    c0, c1, c2, c3 = (xp.asarray(word, dtype=xp.uint64) for word in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & _WORD,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & _WORD,
        )
        k0 = (k0 + _WEYL[0]) & _WORD
        k1 = (k1 + _WEYL[1]) & _WORD
    shape = xp.broadcast(c0, c1, c2, c3).shape
    lanes = (xp.broadcast_to(lane, shape).astype(xp.uint32) for lane in (c0, c1, c2, c3))
    return tuple(lanes)


def random_words(
    xp: ModuleType, n: int, seed: int, *, layer: int = 0, step: Any = 0, purpose: int
) -> Any:
    """Draw ``n`` random 32-bit words for one purpose.

    Word ``i`` is lane ``i % 4`` of the counter ``(i // 4, layer, step, purpose)`` under the key
    ``seed``, so any word can be computed without its predecessors.

    Parameters
    ----------
    xp : module
        ``numpy`` or ``cupy``.
    n : int
        Number of words, below 2**34.
    seed : int
        The key, below 2**64.
    layer, step, purpose : int
        Identify the draw, each below 2**32. Draws that differ in any of them are independent.
        ``step`` may be an integer array (1,) on the device.

    Returns
    -------
    uint32 array of shape (n,)

    Raises
    ------
    ValueError
        If the seed is not a 64-bit unsigned integer.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in [0, 2**64), got {seed}")
    block = xp.arange((n + 3) // 4, dtype=xp.uint64)
    lanes = philox4x32(xp, (block, layer, step, purpose), (seed & _WORD, seed >> 32))
    return xp.stack(lanes, axis=-1).reshape(-1)[:n]


def permutation(xp: ModuleType, n: int, seed: int, *, step: int = 0, purpose: int) -> Any:
    """Draw a random permutation of ``0 .. n - 1``.

    Sorts the unique 64-bit keys ``(word_i << 32) | i`` and reads the indices off their low
    halves. Unique keys have only one sorted order, so every sorting algorithm, on any device,
    returns the same permutation.

    Parameters
    ----------
    xp : module
        ``numpy`` or ``cupy``.
    n : int
        Number of elements, below 2**32.
    seed, step, purpose : int
        As for :func:`random_words`; ``step`` counts the epochs.

    Returns
    -------
    int64 array of shape (n,)
    """
    words = random_words(xp, n, seed, step=step, purpose=purpose).astype(xp.uint64)
    keys = xp.sort((words << 32) | xp.arange(n, dtype=xp.uint64))
    return (keys & _WORD).astype(xp.int64)
