"""IDSDS and F-Fidelity, against loops over pictures and an additive network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

import lmjax
from lmjax.masks import segments as segmenters
from lmjax.metrics import f_fidelity, idsds
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(2)
H, W = 8, 7
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
SEGMENTS = segmenters.grid(IMAGE, size=3)
HEATMAP = RNG.normal(size=(H, W))
CLASSIFIER = small_classifier((H, W, 3), num_classes=5)
PREDICTOR = lmjax.Predictor(CLASSIFIER, lmjax.Replace("black"))
KEY = jax.random.key(5)
MANY = {"segments": SEGMENTS, "key": KEY, "objective": "logit", "num_samples": 4000}
WEIGHTS = np.arange(1, 10)[::-1] / 10


def additive(image, masks):
    """Logits, the first of which is the sum of the weights of the segments that are visible."""
    corners = jnp.stack([masks[:, i, j] for i in (0, 3, 6) for j in (0, 3, 6)], axis=1)
    first = corners @ jnp.asarray(WEIGHTS, jnp.float32)
    return jnp.stack([first, 2 * first - 20], axis=1)


def logits(hidden):
    """Logits of a picture whose hidden pixels are black."""
    picture = jnp.asarray(np.where(hidden[..., None], np.float32(0), IMAGE))
    return np.asarray(CLASSIFIER.apply(CLASSIFIER.normalise(picture[None])))[0]


def test_single_deletion_is_that_of_a_loop():
    wholes = logits(np.zeros((H, W), bool))
    drops, sums = [], []
    for label in range(9):
        drops.append(wholes - logits(label == SEGMENTS))
        sums.append(HEATMAP[label == SEGMENTS].sum())
    wanted = [spearmanr(sums, np.array(drops)[:, target]).statistic for target in (0, 3)]
    found = idsds(PREDICTOR, IMAGE, HEATMAP, segments=SEGMENTS, target=(0, 3))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    predicted = idsds(PREDICTOR, IMAGE, HEATMAP, segments=SEGMENTS)
    again = idsds(PREDICTOR, IMAGE, HEATMAP, segments=SEGMENTS, target=int(wholes.argmax()))
    assert predicted == again


def test_the_grid_has_four_by_four_patches():
    rows, columns = np.arange(H) * 4 // H, np.arange(W) * 4 // W
    grid = rows[:, None] * 4 + columns
    found = idsds(PREDICTOR, IMAGE, HEATMAP, target=1)
    assert found == pytest.approx(idsds(PREDICTOR, IMAGE, HEATMAP, segments=grid, target=1))


def test_scores_that_are_the_drops_get_1():
    assert idsds(additive, IMAGE, WEIGHTS, segments=SEGMENTS, target=0) == pytest.approx(1)
    assert idsds(additive, IMAGE, -WEIGHTS, segments=SEGMENTS, target=0) == pytest.approx(-1)
    assert np.isnan(idsds(additive, IMAGE, np.ones(9), segments=SEGMENTS, target=0))


def test_fidelity_is_the_expectation_of_an_additive_network():
    """Three segments of nine: each goes with probability .5, and of the six others too."""
    how: dict[str, Any] = {"target": (0, 1)} | MANY
    found = f_fidelity(additive, IMAGE, WEIGHTS, sizes=(1 / 3,), most=1, **how)
    inside, outside = 0.5 * (0.9 + 0.8 + 0.7), 0.5 * (0.6 + 0.5 + 0.4 + 0.3 + 0.2 + 0.1)
    np.testing.assert_allclose(found.plus[:, 0], [inside, 2 * inside], rtol=0.04)
    np.testing.assert_allclose(found.minus[:, 0], [outside, 2 * outside], rtol=0.04)


def test_no_more_goes_than_the_network_was_tuned_for():
    """A tenth of nine segments is .9 of one: of three with probability .3, of six with .15."""
    how: dict[str, Any] = {"target": 0} | MANY
    found = f_fidelity(additive, IMAGE, WEIGHTS, sizes=(1 / 3, 0.01), **how)
    # Of a single segment (.01 is at least one) with probability .5, of eight with .9 / 8.
    np.testing.assert_allclose(found.plus, [0.3 * 2.4, 0.5 * 0.9], rtol=0.06)
    np.testing.assert_allclose(found.minus, [0.15 * 2.1, 0.9 / 8 * 3.6], rtol=0.06)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"share": 0.0}, "share must be"),
        ({"most": 1.5}, "most must be"),
        ({"sizes": (0.5, 1.0)}, "sizes must be above 0 and below 1"),
        ({"sizes": ()}, "sizes must be above 0 and below 1"),
        ({"num_samples": 0}, "num_samples must be"),
        ({"segments": np.zeros((H, W), int)}, "segments must be two or more"),
    ],
)
def test_numbers_out_of_range(wrong, message):
    with pytest.raises(ValueError, match=message):
        f_fidelity(PREDICTOR, IMAGE, HEATMAP, key=KEY, **wrong)
