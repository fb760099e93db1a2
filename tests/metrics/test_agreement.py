"""Agreement of maps against scipy, scikit-learn, scikit-image and counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from skimage.metrics import structural_similarity
from sklearn.metrics import jaccard_score
from sklearn.metrics.pairwise import cosine_similarity as sklearns_cosine

from lmjax.metrics import (
    bootstrap_mean,
    cosine_similarity,
    kendall,
    spearman,
    ssim,
    top_k_jaccard,
    win_rates,
)
from lmjax.metrics.agreement import pearson

RNG = np.random.default_rng(0)
KEY = jax.random.key(1)
FIRST = RNG.normal(size=(12, 9))
SECOND = FIRST + RNG.normal(size=(12, 9))
TIED = RNG.integers(0, 4, (12, 9)).astype(float)
PAIRS = [(FIRST, SECOND), (FIRST, -SECOND), (FIRST, TIED), (TIED, TIED.T.reshape(12, 9))]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_rank_correlations_are_scipys(first, second):
    flat = first.ravel(), second.ravel()
    assert spearman(first, second) == pytest.approx(scipy.stats.spearmanr(*flat).statistic)
    assert kendall(first, second) == pytest.approx(scipy.stats.kendalltau(*flat).statistic)
    assert cosine_similarity(first, second) == pytest.approx(
        sklearns_cosine(flat[0][None], flat[1][None])[0, 0]
    )


@pytest.mark.parametrize("metric", [spearman, kendall, cosine_similarity])
def test_a_map_agrees_with_itself_and_not_with_its_opposite(metric):
    assert metric(FIRST, FIRST) == pytest.approx(1)
    assert metric(FIRST, -FIRST) == pytest.approx(-1)
    assert metric(jnp.asarray(FIRST), 5 * FIRST) == pytest.approx(1, abs=1e-5)
    assert np.isnan(metric(FIRST, np.zeros_like(FIRST)))


def test_rank_correlations_of_a_constant_map_are_undefined_whatever_the_constant():
    for constant in (1e-30, 0.1, 1e30):
        assert np.isnan(spearman(FIRST, np.full_like(FIRST, constant)))
        assert np.isnan(kendall(FIRST, np.full_like(FIRST, constant)))


def test_pearsons_correlation_sees_constants_whose_mean_is_rounded():
    assert any(np.full(n, 0.1).mean() != 0.1 for n in range(2, 50))
    for n in range(2, 50):
        assert np.isnan(pearson(np.full(n, 0.1), np.arange(float(n))))


@pytest.mark.parametrize("k", [1, 7, 50, 108])
def test_top_k_jaccard_is_that_of_sets(k):
    tops = [np.argsort(-scores.ravel())[:k] for scores in (FIRST, SECOND)]
    masks = [np.isin(np.arange(108), top) for top in tops]
    assert top_k_jaccard(FIRST, SECOND, k=k) == pytest.approx(jaccard_score(*masks))
    assert top_k_jaccard(FIRST, FIRST, k=k) == 1


def test_of_equal_scores_the_first_are_taken():
    assert top_k_jaccard([1, 1, 1, 0], [1, 1, 0, 0], k=2) == 1
    assert top_k_jaccard([1, 1, 1, 0], [0, 1, 1, 0], k=2) == pytest.approx(1 / 3)


@pytest.mark.parametrize("window", [3, 7, 9])
def test_ssim_is_scikit_images_of_stretched_maps(window):
    stretched = [
        (scores - scores.min()) / (scores.max() - scores.min()) for scores in (FIRST, SECOND)
    ]
    expected = structural_similarity(*stretched, win_size=window, data_range=1)
    assert ssim(FIRST, SECOND, window=window) == pytest.approx(expected)
    assert ssim(3 * FIRST - 1, SECOND / 9, window=window) == pytest.approx(expected)
    assert ssim(FIRST, FIRST, window=window) == pytest.approx(1)
    assert abs(ssim(FIRST, np.full_like(FIRST, 5), window=window)) < 0.5


# -- sets of images


def test_the_interval_of_a_mean_is_scipys():
    values = RNG.exponential(size=(60, 3))
    found = bootstrap_mean(values, key=KEY, num_resamples=20_000, confidence=0.9)
    np.testing.assert_allclose(found.mean, values.mean(axis=0))
    for column in range(3):
        expected = scipy.stats.bootstrap(
            (values[:, column],),
            np.mean,
            method="percentile",
            n_resamples=20_000,
            confidence_level=0.9,
            rng=np.random.default_rng(0),
        ).confidence_interval
        np.testing.assert_allclose(
            [found.low[column], found.high[column]], expected, atol=0.02 * values.std()
        )


def test_intervals_cover_and_repeat():
    hits = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(size=50)
        found = bootstrap_mean(values, key=jax.random.key(seed), num_resamples=200, confidence=0.8)
        hits += found.low <= 0 <= found.high
        assert found.low <= found.mean <= found.high
    assert 140 < hits < 180  # 160 expected, standard deviation 5.7
    same = bootstrap_mean(values, key=jax.random.key(199), num_resamples=200, confidence=0.8)
    assert (same.low, same.high) == (found.low, found.high)


def test_one_image_has_no_interval():
    one = bootstrap_mean([2.0], key=KEY)
    assert one.mean == 2
    assert np.isnan([one.low, one.high]).all()
    one = win_rates([[3, 1]], key=KEY)
    assert one.mean.tolist() == [[0.5, 1], [0, 0.5]]
    assert np.isnan([one.low, one.high]).all()


@pytest.mark.parametrize("higher", [True, False])
def test_win_rates_are_counted(higher):
    scores = RNG.integers(0, 5, (40, 3)).astype(float)
    found = win_rates(scores, key=KEY, higher_is_better=higher)
    for i, j in np.ndindex(3, 3):
        wins = [
            0.5 if a == b else float((a > b) == higher) for a, b in zip(scores[:, i], scores[:, j])
        ]
        assert found.mean[i, j] == pytest.approx(np.mean(wins))
        alone = bootstrap_mean(wins, key=KEY)
        assert found.low[i, j] == pytest.approx(alone.low)
        assert found.high[i, j] == pytest.approx(alone.high)
    np.testing.assert_allclose(found.mean + found.mean.T, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spearman(FIRST, SECOND.T), "same shape"),
        (lambda: kendall([1.0], [2.0]), "2 or more scores"),
        (lambda: cosine_similarity(FIRST, SECOND * np.nan), "second holds NaN"),
        (lambda: spearman(FIRST.astype(str), SECOND), "first must be real numbers"),
        (lambda: top_k_jaccard(FIRST, SECOND, k=0), "k must be a whole number from 1 to 108"),
        (lambda: top_k_jaccard(FIRST, SECOND, k=109), "got 109"),
        (lambda: ssim(FIRST.ravel(), SECOND.ravel()), r"first must be \[H, W\]"),
        (lambda: ssim(FIRST, SECOND, window=4), "window must be odd"),
        (lambda: ssim(FIRST, SECOND, window=11), "from 3 to 9"),
        (lambda: bootstrap_mean([], key=KEY), "1 or more images"),
        (lambda: bootstrap_mean([1.0, np.nan], key=KEY), "values holds NaN"),
        (lambda: bootstrap_mean([1.0], key=KEY, confidence=95), "confidence must be"),
        (lambda: bootstrap_mean([1.0], key=KEY, num_resamples=0), "num_resamples must be"),
        (lambda: win_rates(np.ones(5), key=KEY), r"scores must be \[N, M\]"),
    ],
)
def test_bad_input_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
