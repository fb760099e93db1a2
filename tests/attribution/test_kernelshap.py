"""KernelSHAP's regression against its definition; `test_shapley` holds the rest."""

from math import comb
from types import SimpleNamespace

import jax
import numpy as np
import psutil
import pytest
from hypothesis import given, settings

from lmjax.attribution import kernelshap
from lmjax.attribution.regression import regression
from lmjax.masks import all_coalitions, shapley_keep
from tests.support.games import TABLES, game, picture, shapley_by_loop, smooth_table, strip

KEY = jax.random.key(0)
examples = settings(max_examples=10, deadline=None)


def explain(network, num_segments, **options):
    where = picture(num_segments), strip(num_segments)
    return kernelshap(network, *where, key=KEY, target=(0, 1), objective="logit", **options)


@given(TABLES)
@examples
def test_the_regression_on_all_pairs_gives_the_exact_values(table):
    """With the kernel of Lundberg & Lee 2017, theorem 2."""
    rows = np.arange(1, 16)
    keep = all_coalitions(5)[rows]
    weights = [4 / (comb(5, k) * k * (5 - k)) for k in keep.sum(axis=1)]
    differences = (table[rows] - table[31 - rows]).astype(float)
    fit = regression(2.0 * keep - 1, differences, np.array(weights), table[-1] - table[0])
    np.testing.assert_allclose(fit.scores, shapley_by_loop(table), atol=1e-10)


def test_enough_samples_evaluate_every_coalition():
    table = smooth_table(5)
    for samples in (30, None, 10**6):
        found = explain(game(table), 5, num_samples=samples)
        np.testing.assert_allclose(found.scores, shapley_by_loop(table)[:2], atol=1e-6)
        np.testing.assert_array_equal(found.standard_error, np.zeros((2, 5)))
        assert found.num_variants == 32


def test_the_constraint_and_pairs_are_those_of_the_whole_regression():
    """The regression on single coalitions, with the last score eliminated by the constraint."""
    rng = np.random.default_rng(3)
    num_segments, count = 7, 40
    keep = np.array(shapley_keep(num_segments, count, key=KEY))
    values, opposite = rng.normal(size=(2, count, 3))
    empty, whole, weights = rng.normal(size=3), rng.normal(size=3), rng.random(count) + 0.1
    fit = regression(2.0 * keep - 1, values - opposite, weights, whole - empty)
    z = np.concatenate([keep, ~keep]).astype(float)
    y = np.concatenate([values, opposite]) - empty - z[:, -1:] * (whole - empty)
    root = np.sqrt(np.concatenate([weights, weights]))[:, None]
    first = np.linalg.lstsq(root * (z[:, :-1] - z[:, -1:]), root * y, rcond=None)[0]
    expected = np.concatenate([first, [whole - empty - first.sum(axis=0)]])
    np.testing.assert_allclose(fit.scores, expected.T, atol=1e-10)


def test_it_is_the_weighted_regression_on_its_own_coalitions():
    """Single coalitions, each with its weight: all of one segment, and the drawn ones."""
    table = smooth_table(8, num_classes=2)
    found = explain(game(table), 8, num_samples=76)
    drawn = shapley_keep(8, 30, key=KEY, smallest=2)
    z = np.concatenate([np.eye(8), 1 - np.eye(8), drawn, ~drawn])
    kernel = np.array([7 / (k * (8 - k)) for k in range(1, 8)])
    single = kernel[[0, -1]].sum() / kernel.sum()
    weights = np.repeat([single / 16, (1 - single) / 60], [16, 60])
    total = table[-1] - table[0]
    y = table[(z @ 2 ** np.arange(8)).astype(int)] - table[0] - z[:, -1:] * total
    root = np.sqrt(weights)[:, None]
    first = np.linalg.lstsq(root * (z[:, :-1] - z[:, -1:]), root * y, rcond=None)[0]
    expected = np.concatenate([first, [total - first.sum(axis=0)]]).T
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)
    assert found.num_variants == 78


def test_standard_errors_are_those_of_leaving_out_each_drawn_pair():
    """HC3 is the sum of squared changes when one observation after the other is left out."""
    table = smooth_table(8, num_classes=2)
    found = explain(game(table), 8, num_samples=76)
    keep = np.concatenate([np.eye(8, dtype=bool), shapley_keep(8, 30, key=KEY, smallest=2)])
    rows = keep @ 2 ** np.arange(8)
    kernel = np.array([7 / (k * (8 - k)) for k in range(1, 8)])
    single = kernel[[0, -1]].sum() / kernel.sum()
    weights = np.repeat([single / 8, (1 - single) / 30], [8, 30])
    differences, total = table[rows] - table[255 - rows], table[-1] - table[0]

    def scores(of):
        return regression(2.0 * keep[of] - 1, differences[of], weights[of], total).scores

    every = np.arange(38)
    changes = [scores(every != left_out) - scores(every >= 0) for left_out in every[8:]]
    expected = np.sqrt((np.array(changes) ** 2).sum(axis=0))
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-4)


def test_more_segments_than_memory_allows_is_an_error(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    with pytest.raises(ValueError, match=r"5,000 segments with 12,048 samples need about .*GB"):
        explain(game(np.zeros((2, 2))), 5000)
