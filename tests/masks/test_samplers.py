from math import comb
from types import SimpleNamespace

import jax
import numpy as np
import psutil
import pytest
from scipy import stats

from lmjax.masks import (
    all_coalitions,
    bernoulli_keep,
    complement_pairs,
    numbered,
    quasi_random,
    quasi_random_keep,
    random_keep,
    shapley_keep,
    shapley_kernel,
)

KEY = jax.random.key(0)
RANDOM = {
    "bernoulli": bernoulli_keep,
    "lime": random_keep,
    "shapley": shapley_keep,
    "sobol": quasi_random_keep,
    "halton": lambda *numbers, **options: quasi_random_keep(*numbers, sequence="halton", **options),
}


# -- what all have in common


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("name", RANDOM)
def test_any_stretch_can_be_drawn_alone(name, kind):
    sample, key = RANDOM[name], jax.random.key(0, impl=kind)
    whole = sample(7, 600, key=key)
    assert whole.shape == (600, 7)
    assert whole.dtype == bool
    for first, count in ((0, 1), (1, 5), (250, 20), (255, 2), (513, 87)):
        part = sample(7, count, key=key, first=first)
        np.testing.assert_array_equal(part, whole[first : first + count])


@pytest.mark.parametrize("name", RANDOM)
def test_the_key_decides(name):
    sample = RANDOM[name]
    np.testing.assert_array_equal(sample(9, 40, key=KEY), sample(9, 40, key=KEY))
    assert (sample(9, 40, key=KEY) != sample(9, 40, key=jax.random.key(1))).any()
    old_style = jax.random.PRNGKey(0)
    np.testing.assert_array_equal(sample(9, 40, key=old_style), sample(9, 40, key=KEY))


def test_number_i_is_drawn_with_its_own_key():
    def draw(key):
        return {"normal": jax.random.normal(key, (3,)), "bits": jax.random.bits(key)}

    drawn = numbered(draw, 254, 258, key=KEY)
    for row, number in enumerate(range(254, 258)):
        alone = draw(jax.random.fold_in(KEY, number))
        np.testing.assert_allclose(drawn["normal"][row], alone["normal"], rtol=1e-6)
        assert drawn["bits"][row] == alone["bits"]
    assert numbered(draw, 5, 5, key=KEY)["normal"].shape == (0, 3)
    for first, last in ((5, 3), (-1, 3), (0, 2.5)):
        with pytest.raises(ValueError, match="must be a whole number"):
            numbered(draw, first, last, key=KEY)


# -- distributions


def test_bernoulli_coalitions_keep_segments_independently():
    keep = bernoulli_keep(12, 6000, key=KEY, keep_probability=0.3)
    np.testing.assert_allclose(keep.mean(axis=0), 0.3, atol=0.03)
    assert abs(np.corrcoef(keep.T) - np.eye(12)).max() < 0.06


@pytest.mark.parametrize("num_segments", [2, 3, 7, 30])
def test_the_kernel_is_the_published_one(num_segments):
    """Lundberg & Lee 2017, theorem 2, summed over all coalitions of a size."""
    published = [
        comb(num_segments, size)
        * (num_segments - 1)
        / (comb(num_segments, size) * size * (num_segments - size))
        for size in range(1, num_segments)
    ]
    np.testing.assert_allclose(shapley_kernel(num_segments), np.array(published) / sum(published))


@pytest.mark.parametrize("smallest", [1, 2, 4])
def test_shapley_coalitions_have_the_sizes_of_the_kernel(smallest):
    keep = shapley_keep(9, 8000, key=KEY, smallest=smallest)
    sizes = np.arange(smallest, 9 - smallest + 1)
    mass = 1 / (sizes * (9 - sizes))
    counted = np.bincount(keep.sum(axis=1), minlength=10)
    assert counted[sizes].sum() == 8000
    assert stats.chisquare(counted[sizes], 8000 * mass / mass.sum()).pvalue > 1e-3


def test_coalitions_of_a_size_are_equally_likely():
    keep = shapley_keep(5, 12000, key=KEY)
    pairs = keep[keep.sum(axis=1) == 2] @ 2 ** np.arange(5)
    counted = np.unique(pairs, return_counts=True)[1]
    assert len(counted) == 10
    assert stats.chisquare(counted).pvalue > 1e-3


def test_pairs_are_complements():
    keep = bernoulli_keep(6, 50, key=KEY)
    pairs = complement_pairs(keep)
    assert pairs.shape == (100, 6)
    np.testing.assert_array_equal(pairs[::2], keep)
    np.testing.assert_array_equal(pairs[1::2], ~keep)


def test_all_coalitions_are_there_once():
    keep = all_coalitions(4)
    assert keep.shape == (16, 4)
    assert len({tuple(row) for row in keep}) == 16
    assert not keep[0].any()
    assert keep[-1].all()
    np.testing.assert_array_equal(keep[0b0110], [False, True, True, False])


# -- quasi-random points


@pytest.mark.parametrize(
    ("sequence", "dimension", "count"),
    [("sobol", 0, 64), ("sobol", 7, 64), ("halton", 0, 64), ("halton", 1, 81), ("halton", 2, 125)],
)
def test_every_cell_of_a_coordinate_holds_one_point(sequence, dimension, count):
    """The defining property of both, in powers of the coordinate's base (2, or the next prime)."""
    for key in (KEY, jax.random.key(5)):
        points = quasi_random(count, 8, key=key, sequence=sequence)
        assert points.min() >= 0
        assert points.max() < 1
        cells = np.floor(points[:, dimension] * count).astype(int)
        np.testing.assert_array_equal(np.sort(cells), np.arange(count))


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_points_are_more_even_than_random_ones(sequence):
    random = np.random.default_rng(0).random((256, 5))
    points = quasi_random(256, 5, key=KEY, sequence=sequence)
    assert stats.qmc.discrepancy(points) < 0.2 * stats.qmc.discrepancy(random)
    again = quasi_random(256, 5, key=jax.random.key(1), sequence=sequence)
    assert abs(points - again).max() > 0.1


def test_scrambled_points_are_scipys():
    generator = np.random.default_rng(np.asarray(jax.random.key_data(KEY)))
    expected = stats.qmc.Sobol(3, rng=generator).random(32)
    np.testing.assert_array_equal(quasi_random(20, 3, key=KEY), expected[:20])


@pytest.mark.parametrize("name", ["sobol", "halton"])
def test_quasi_random_coalitions_keep_their_share(name):
    keep = RANDOM[name](10, 256, key=KEY, keep_probability=0.25)
    np.testing.assert_allclose(keep.mean(axis=0), 0.25, atol=0.02)


# -- bad input


@pytest.mark.parametrize(
    ("sample", "arguments", "options", "message"),
    [
        (bernoulli_keep, (0, 5), {}, "num_segments must be a whole number, 1 or more; got 0"),
        (shapley_keep, (4, 2.5), {}, "num_samples must be a whole number, 1 or more; got 2.5"),
        (quasi_random, (4, 0), {}, "dimensions must be a whole number, 1 or more; got 0"),
        (
            quasi_random_keep,
            (4, 4),
            {"first": -1},
            "first must be a whole number from 0 to 2147",
        ),
        (bernoulli_keep, (5, 5), {"keep_probability": 1.0}, "above 0 and below 1; got 1.0"),
        (quasi_random_keep, (5, 5), {"keep_probability": 0}, "above 0 and below 1; got 0"),
        (shapley_keep, (5, 5), {"smallest": 3}, "from 1 to 2 .half of the 5 segments.; got 3"),
        (
            shapley_keep,
            (1, 5),
            {},
            "num_segments must be 2 or more.*; got 1",
        ),
        (quasi_random, (4, 4), {"sequence": "faure"}, "one of sobol, halton; got 'faure'"),
        (
            quasi_random,
            (1, 30000),
            {},
            "dimensions must be .* 21201 or less .*'halton'.*; got 30000",
        ),
    ],
)
def test_options_out_of_range_are_errors(sample, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        sample(*arguments, key=KEY, **options)


@pytest.mark.parametrize("name", RANDOM)
def test_more_than_memory_allows_is_an_error(name, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    with pytest.raises(ValueError, match=r"5,000 segments with 1,000 samples need .*GB"):
        RANDOM[name](5000, 1000, key=KEY)
    with pytest.raises(ValueError, match="40 segments"):
        all_coalitions(40)
