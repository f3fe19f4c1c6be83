"""Random words and dropout by the compiled loops: the same bits as the reference."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.kernels.cases import SHAPES
from tests.kernels.conftest import VARIANTS
from tests.kernels.test_philox import KNOWN
from xpnet.kernels import host, philox
from xpnet.kernels.reference import NumpyOps

REFERENCE = NumpyOps(np)
DTYPES = [np.float32, np.float64]

pytestmark = [pytest.mark.host]
if os.environ.get("CI") != "true":
    reason = f"the host kernels are {host.problem()}"
    pytestmark += [pytest.mark.skipif(host.problem() is not None, reason=reason)]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
@pytest.mark.parametrize("variant", VARIANTS)
def test_known_answers_of_philox(variant, counter, key, words):
    c0, layer, step, purpose = counter
    found = host.random_words(
        4,
        key[0] | key[1] << 32,
        layer=layer,
        step=step,
        purpose=purpose,
        first=4 * c0,
        variant=variant,
    )
    assert found.tolist() == list(words)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("first", [0, 1, 2, 3, 511, 512, 513])
def test_words_are_those_of_the_reference(variant, first):
    expected = philox.random_words(np, first + 1600, 9, layer=1, step=2, purpose=3)[first:]
    found = host.random_words(1600, 9, layer=1, step=2, purpose=3, first=first, variant=variant)
    np.testing.assert_array_equal(found, expected)


@given(
    st.integers(0, 5000),
    *(st.integers(0, 2**bits - 1) for bits in (64, 32, 32)),
)
@example(70_000, 3, 0, 1)  # several words in each bucket
def test_permutations_are_those_of_the_reference(n, seed, step, purpose):
    expected = philox.permutation(np, n, seed, step=step, purpose=purpose)
    found = host.permutation(n, seed, step=step, purpose=purpose)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_equal_words_are_ordered_by_their_numbers():
    """Among so many words of 32 bits, some are equal."""
    n = 400_000
    words = host.random_words(n, 5, purpose=1)
    assert len(np.unique(words)) < n
    expected = np.argsort(words, kind="stable")
    np.testing.assert_array_equal(host.permutation(n, 5, purpose=1), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES.values(), (5,), (1027, 3)])
def test_masks_are_the_same_bits(ops, shape, dtype):
    X = np.ones(shape, dtype)
    views = [X, np.asfortranarray(X), np.ones((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]]
    for rate in (0.0, 0.25, 1 / 3, 0.999):
        for step in (0, 5, 2**32 - 1):
            arguments = (rate, 2**63 + 5, 4, np.array([step]), 6)
            expected = REFERENCE.dropout(X, *arguments)
            for view in views:
                np.testing.assert_array_equal(ops["dropout"](view, *arguments), expected)


def test_the_threshold_is_exact(ops):
    """The word that equals it is kept."""
    words = philox.random_words(np, 64, 1, layer=2, step=3, purpose=4)
    for dtype in DTYPES:
        found = ops["dropout"](np.ones(64, dtype), words[7] / 2**32, 1, 2, np.array([3]), 4)
        assert found[7] > 0
        np.testing.assert_array_equal(found == 0, words < words[7])


def test_a_mask_does_not_depend_on_what_it_masks(ops):
    """What is dropped is 0, whatever it was."""
    X = np.full((40, 40), np.inf, np.float32)
    found = ops["dropout"](X, 0.5, 1, 2, np.array([3]), 4)
    np.testing.assert_array_equal(found, REFERENCE.dropout(X, 0.5, 1, 2, np.array([3]), 4))
    assert set(np.unique(found)) == {0, np.inf}
