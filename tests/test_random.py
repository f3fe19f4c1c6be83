"""Seeds and shuffles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpnet.kernels import philox
from xpnet.random import (
    EpochOrder,
    Purpose,
    check_seed,
    epoch_order,
    shuffle,
    subset,
    weight_stream,
)


def test_every_epoch_has_an_order_of_its_own():
    orders = [shuffle(50, 1, epoch) for epoch in range(4)] + [shuffle(50, 2, 0)]
    assert len({order.tobytes() for order in orders}) == 5
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_a_shuffle_is_philoxs_permutation():
    expected = philox.permutation(np, 50, 3, step=7, purpose=Purpose.SHUFFLE)
    np.testing.assert_array_equal(shuffle(50, 3, 7), expected)


def test_a_subset_is_ascending_without_repetition_and_its_own():
    found = subset(1000, 100, 3)
    assert found.shape == (100,)
    assert (np.diff(found) > 0).all()
    assert 0 <= found[0] <= found[-1] < 1000
    np.testing.assert_array_equal(subset(1000, 100, 3), found)
    assert not np.array_equal(subset(1000, 100, 4), found)
    assert not np.array_equal(np.sort(shuffle(1000, 3, 0)[:100]), found)
    np.testing.assert_array_equal(subset(5, 5, 0), np.arange(5))


@pytest.mark.parametrize("seed", [0, 7, np.int32(7), np.uint64(2**64 - 1)])
def test_seeds(seed):
    assert check_seed(seed) == int(seed)
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize("seed", [None, "1", 1.0, True, -1, 2**64])
def test_wrong_seeds(seed):
    with pytest.raises(ValueError, match="seed must"):
        check_seed(seed)


def test_streams_do_not_change_from_one_release_to_the_next():
    """Golden values: changing them changes the results of every seed."""
    np.testing.assert_allclose(
        weight_stream(1).normal((2, 2)),
        [[0.345584192064786, 0.8216181435011584], [0.33043707618338714, -1.303157231604361]],
    )
    assert shuffle(8, 1, 0).tolist() == [3, 4, 0, 1, 6, 2, 5, 7]
    assert subset(8, 4, 1).tolist() == [0, 2, 4, 7]
    legacy = weight_stream(1, "numpy-legacy")
    np.testing.assert_array_equal(
        legacy.uniform((2, 3)), np.random.RandomState(1).uniform(-1, 1, (3, 2)).T
    )


def test_the_courses_order():
    for seed, epoch in ((11, 0), (11, 9), (2**32 - 1, 1)):
        expected = np.random.RandomState((seed + epoch) % 2**32).permutation(20)
        np.testing.assert_array_equal(epoch_order(20, seed, epoch, "numpy-legacy"), expected)
    np.testing.assert_array_equal(epoch_order(20, 11, 2), shuffle(20, 11, 2))
    with pytest.raises(ValueError, match=r"seed must lie in \[0, 2\*\*32\)"):
        epoch_order(20, 2**32, 0, "numpy-legacy")


def test_scikit_learns_order():
    order, state = EpochOrder(20, np.random.RandomState(3)), np.random.RandomState(3)
    expected: Any = 20
    for epoch in range(3):
        expected = state.permutation(expected)  # of the last epoch's order
        found = order(epoch)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)
