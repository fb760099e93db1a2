"""Banzhaf values against their definition; `test_shapley` holds what they share with others."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings

from lmjax.attribution import banzhaf
from lmjax.attribution.banzhaf import difference_of_means
from lmjax.masks import bernoulli_keep
from tests.support.games import TABLES, banzhaf_by_loop, game, picture, smooth_table, strip

KEY = jax.random.key(0)
examples = settings(max_examples=10, deadline=None)


def explain(network, num_segments, **options):
    where = picture(num_segments), strip(num_segments)
    return banzhaf(network, *where, key=KEY, target=(0, 1), objective="logit", **options)


@given(TABLES)
@examples
def test_banzhaf_of_all_coalitions_is_the_definition(table):
    found = explain(game(table), 5, num_samples=32)
    np.testing.assert_allclose(found.scores, banzhaf_by_loop(table), atol=1e-5)
    np.testing.assert_array_equal(found.standard_error, 0)


def test_every_coalition_counts_for_every_segment():
    table = smooth_table(8)
    found = explain(game(table), 8, num_samples=100)
    keep = bernoulli_keep(8, 100, key=KEY)
    values = table[keep @ 2 ** np.arange(8)]
    for target, segment in np.ndindex(2, 8):
        shown, hidden = (values[keep[:, segment] == side, target] for side in (True, False))
        score = shown.mean() - hidden.mean()
        error = np.sqrt(shown.var(ddof=1) / len(shown) + hidden.var(ddof=1) / len(hidden))
        np.testing.assert_allclose(found.scores[target, segment], score, atol=1e-5)
        np.testing.assert_allclose(found.standard_error[target, segment], error, rtol=1e-4)
    assert found.num_variants == 101


def test_a_segment_that_never_changes_is_an_error():
    keep = np.random.default_rng(0).random((40, 5)) < 0.5
    keep[:, 3] = True
    with pytest.raises(ValueError, match="of 40 coalitions, fewer than 2 show segment 3"):
        difference_of_means(keep, np.ones((40, 1)))
