"""Seeds and shuffles."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.kernels import philox
from xpnet.random import Purpose, check_seed, shuffle


def test_every_epoch_has_an_order_of_its_own():
    orders = [shuffle(50, 1, epoch) for epoch in range(4)] + [shuffle(50, 2, 0)]
    assert len({order.tobytes() for order in orders}) == 5
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_a_shuffle_is_philoxs_permutation():
    expected = philox.permutation(np, 50, 3, step=7, purpose=Purpose.SHUFFLE)
    np.testing.assert_array_equal(shuffle(50, 3, 7), expected)


@pytest.mark.parametrize("seed", [0, 7, np.int32(7), np.uint64(2**64 - 1)])
def test_seeds(seed):
    assert check_seed(seed) == int(seed)
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize("seed", [None, "1", 1.0, True, -1, 2**64])
def test_wrong_seeds(seed):
    with pytest.raises(ValueError, match="seed must"):
        check_seed(seed)
