"""Sparseness and entropy against their formulas in loops, Quantus's, and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from lmjax.metrics import entropy_complexity, sparseness

examples = settings(max_examples=50, deadline=None)
SCORES = st.lists(st.integers(-20, 20), min_size=1, max_size=30).filter(any)


def gini_by_loop(scores):
    """Mean absolute difference of all pairs, relative to twice the mean."""
    sizes = [abs(each) for each in scores]
    total = sum(abs(one - other) for one in sizes for other in sizes)
    return total / (2 * len(sizes) * sum(sizes))


def gini_of_quantus(scores):
    """The formula that Quantus evaluates, with its offset."""
    sizes = np.sort(np.abs(scores) + 1e-7)
    ranks = np.arange(1, len(sizes) + 1)
    return np.sum((2 * ranks - len(sizes) - 1) * sizes) / (len(sizes) * np.sum(sizes))


@given(SCORES)
@examples
def test_sparseness_is_the_gini_index(scores):
    found = sparseness(scores)
    np.testing.assert_allclose(found, gini_by_loop(scores), atol=1e-12)
    np.testing.assert_allclose(found, gini_of_quantus(np.array(scores, float)), atol=1e-5)


@given(SCORES)
@examples
def test_complexity_is_the_entropy_of_shares(scores):
    sizes = np.abs(scores)
    np.testing.assert_allclose(entropy_complexity(scores), entropy(sizes / sizes.sum()), atol=1e-12)


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 5)])
def test_extremes(shape):
    number = np.prod(shape)
    one = np.zeros(shape)
    one.flat[2] = -3
    assert sparseness(one) == pytest.approx(1 - 1 / number)
    assert entropy_complexity(one) == 0
    equal = np.where(np.arange(number).reshape(shape) % 2, 0.25, -0.25)
    assert sparseness(equal) == pytest.approx(0, abs=1e-12)
    assert entropy_complexity(equal) == pytest.approx(np.log(number))


@pytest.mark.parametrize("metric", [sparseness, entropy_complexity])
def test_only_shares_count(metric):
    scores = np.random.default_rng(0).normal(size=(6, 5))
    shuffled = np.random.default_rng(1).permutation(-scores.ravel())
    for same in (1e-200 * scores, 1e200 * scores, shuffled, 2e307 * scores / abs(scores).max()):
        assert metric(same) == pytest.approx(metric(scores), rel=1e-9)


@pytest.mark.parametrize("metric", [sparseness, entropy_complexity])
def test_what_is_no_map(metric):
    assert np.isnan(metric(np.zeros((3, 3))))
    with pytest.raises(ValueError, match="heatmap holds NaN or infinity in 1 places"):
        metric([1.0, np.inf])
    with pytest.raises(ValueError, match="heatmap must hold one or more scores, got none"):
        metric(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="heatmap must be real numbers"):
        metric(["high"])
