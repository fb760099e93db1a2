import jax
import numpy as np
import pytest
from scipy import stats

from lmjax.masks import prefixes, random_orders, salience_order, segment_salience

KEY = jax.random.key(0)
SEGMENTS = np.array([[0, 0, 1], [2, 1, 1], [3, 3, 3]])
HEATMAP = np.array([[1.0, 0.0, 3.0], [2.0, -1.0, 0.0], [0.6, 0.6, 0.6]])


def test_salience_is_that_of_a_plain_loop():
    for by, reduce in (("mean", np.mean), ("sum", np.sum)):
        expected = [reduce(HEATMAP[label == SEGMENTS]) for label in range(4)]
        np.testing.assert_allclose(segment_salience(HEATMAP, SEGMENTS, by=by), expected)


def test_orders_by_mean_and_by_sum():
    # Means 0.5, 0.67, 2, 0.6; sums 1, 2, 2, 1.8.
    np.testing.assert_array_equal(salience_order(HEATMAP, SEGMENTS), [2, 1, 3, 0])
    least = salience_order(HEATMAP, SEGMENTS, most_salient_first=False)
    np.testing.assert_array_equal(least, [0, 3, 1, 2])
    np.testing.assert_array_equal(salience_order(HEATMAP, SEGMENTS, by="sum"), [1, 2, 3, 0])
    least = salience_order(HEATMAP, SEGMENTS, by="sum", most_salient_first=False)
    np.testing.assert_array_equal(least, [0, 3, 1, 2])  # 1 and 2 are equal: by label


def test_painted_scores_come_back_with_their_ties():
    segments = np.random.default_rng(0).permutation(np.repeat(np.arange(6), 7)).reshape(6, 7)
    scores = np.float32([0.1, 0.7, 0.1, 0.3, 0.3, 0.1])
    order = salience_order(scores[segments], segments)
    np.testing.assert_array_equal(order, [1, 3, 4, 0, 2, 5])


def test_random_orders_are_permutations_all_equally_likely():
    orders = random_orders(4, 6000, key=KEY)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(4), (6000, 1)))
    counted = np.unique(orders @ 4 ** np.arange(4), return_counts=True)[1]
    assert len(counted) == 24
    assert stats.chisquare(counted).pvalue > 1e-3


def test_random_orders_can_be_drawn_in_parts():
    whole = random_orders(9, 300, key=KEY)
    np.testing.assert_array_equal(random_orders(9, 40, key=KEY, first=240), whole[240:280])
    assert (random_orders(9, 300, key=jax.random.key(1)) != whole).any()


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4), (2, 3, 6)])
def test_prefixes_are_those_of_a_plain_loop(shape):
    orders = np.argsort(np.random.default_rng(1).random(shape), axis=-1)
    keep = prefixes(orders)
    assert keep.shape == (*shape[:-1], shape[-1] - 1, shape[-1])
    for row in np.ndindex(shape[:-1]):
        for count in range(1, shape[-1]):
            assert set(np.flatnonzero(keep[row][count - 1])) == set(orders[row][:count])


def test_prefixes_of_the_reverse_are_complements():
    orders = random_orders(7, 5, key=KEY)
    np.testing.assert_array_equal(prefixes(orders[:, ::-1]), ~prefixes(orders)[:, ::-1])


@pytest.mark.parametrize(
    ("heatmap", "options", "message"),
    [
        (HEATMAP[:2], {}, r"heatmap must be \(3, 3\) like segments, got shape \(2, 3\)"),
        (HEATMAP[None], {}, r"got shape \(1, 3, 3\); of several targets"),
        (HEATMAP * np.nan, {}, "NaN or infinity"),
        (HEATMAP, {"by": "max"}, "by must be one of mean, sum; got 'max'"),
    ],
)
def test_bad_heatmaps_are_errors(heatmap, options, message):
    with pytest.raises(ValueError, match=message):
        salience_order(heatmap, SEGMENTS, **options)


def test_other_bad_input_is_an_error():
    with pytest.raises(ValueError, match="missing 0"):
        salience_order(HEATMAP, SEGMENTS + 1)
    with pytest.raises(ValueError, match="num_segments must be a whole number, 1 or more; got 0"):
        random_orders(0, 3, key=KEY)
    with pytest.raises(ValueError, match="num_orders must be a whole number, 1 or more; got 0"):
        random_orders(3, 0, key=KEY)
    for orders in ([0, 0, 1], [1, 2, 3], 3, [[0, 1], [1, 1]]):
        with pytest.raises(ValueError, match="every row a permutation"):
            prefixes(orders)


def test_orders_that_memory_does_not_hold_are_refused():
    with pytest.raises(ValueError, match="2,147,483,647 segments with 2 samples need about"):
        random_orders(2**31 - 1, 2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="first must be a whole number from 0 to 2147483648"):
        random_orders(3, 2, key=jax.random.key(0), first=-1)
