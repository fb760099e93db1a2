"""R-OMS and the symmetric relevance gain: arithmetic by hand, and loops over pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.masks import segments as segmenters
from lmjax.masks.orders import random_orders
from lmjax.metrics import (
    Curve,
    occlusion_area,
    r_oms,
    relevance_gain,
    symmetric_relevance_gain,
)
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(1)
H, W = 8, 7
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
SEGMENTS = segmenters.grid(IMAGE, size=3)  # 9 segments of 9, 6, 3 and 2 pixels
CLASSIFIER = small_classifier((H, W, 3), num_classes=5)
PREDICTOR = lmjax.Predictor(CLASSIFIER, lmjax.Replace("black"))
KEY = jax.random.key(4)


def curve(fractions, values, target: int | tuple[int, ...] = 0):
    return Curve(np.array(fractions), np.array(values, np.float32), target)


def test_area_is_over_pixels_not_over_steps():
    # (1 + .5) / 2 * .25 + (.5 + .25) / 2 * .75
    assert occlusion_area(curve([0, 0.25, 1], [1, 0.5, 0.25])) == pytest.approx(0.46875)
    assert curve([0, 0.25, 1], [1, 0.5, 0.25]).normalised_auc == pytest.approx(0.5625)


def test_area_of_a_part_is_its_mean_height():
    # (1 + .6) / 2 * .1 + (.6 + .2) / 2 * .3, over a width of .4
    assert occlusion_area(curve([0, 0.1, 0.4], [1, 0.6, 0.2])) == pytest.approx(0.2 / 0.4)


def test_gain_is_lerf_minus_morf_for_each_target():
    lerf = curve([0, 0.75, 1], [[1, 0.8, 0], [0.5, 0.5, 0.5]], (0, 3))
    morf = curve([0, 0.25, 1], [[1, 0.2, 0], [0.5, 0.1, 0.5]], (0, 3))
    # .675 + .1 - (.15 + .075), and .5 - (.075 + .225)
    np.testing.assert_allclose(relevance_gain(lerf, morf), [0.55, 0.2], atol=1e-6)


@pytest.mark.parametrize(
    "other", [curve([0, 0.5, 0.9], [1, 0.5, 0]), curve([0, 0.5, 1], [1, 0.5, 0], target=1)]
)
def test_curves_that_do_not_belong_together(other):
    with pytest.raises(ValueError, match="lerf and morf must have the same target and end with"):
        relevance_gain(curve([0, 0.5, 1], [1, 0.5, 0]), other)


def probabilities(removed):
    """Probabilities of a picture whose listed labels are painted black."""
    picture = np.where(np.isin(SEGMENTS, removed)[..., None], np.float32(0), IMAGE)
    logits = np.asarray(CLASSIFIER.apply(CLASSIFIER.normalise(jnp.asarray(picture)[None])))[0]
    return np.exp(logits) / np.exp(logits).sum()


def area(order, counts, target):
    """Area under the probability while the labels of an order are painted, pixel by pixel."""
    heights = [probabilities(order[:count])[target] for count in counts]
    shares = [np.isin(SEGMENTS, order[:count]).mean() for count in counts]
    return np.trapezoid(heights, shares)


def test_r_oms_is_that_of_a_loop():
    predicted = probabilities([]).argmax()
    orders = random_orders(9, 2, key=KEY)
    wanted = np.mean([area(order, [0, 2, 4, 7, 9], predicted) for order in orders])
    found = r_oms(PREDICTOR, IMAGE, SEGMENTS, key=KEY, steps=4, num_orders=2)
    assert found == pytest.approx(wanted, abs=1e-5)


def test_removals_share_the_orders_of_a_key():
    """So their difference is theirs; more steps than segments are as many as segments."""
    again = r_oms(PREDICTOR, IMAGE, SEGMENTS, key=KEY, steps=100, target=(1, 2))
    (order,) = random_orders(9, 1, key=KEY)
    wanted = [area(order, range(10), target) for target in (1, 2)]
    np.testing.assert_allclose(again, wanted, atol=1e-5)


def test_gain_is_that_of_a_loop_and_changes_sign_with_the_heatmap():
    scores = RNG.normal(size=9)
    order = np.argsort(-scores)
    counts = [0, 3, 6, 9]
    wanted = area(order[::-1], counts, 1) - area(order, counts, 1)
    found = symmetric_relevance_gain(PREDICTOR, IMAGE, scores, SEGMENTS, target=1, steps=3)
    assert found == pytest.approx(wanted, abs=1e-5)
    assert abs(wanted) > 1e-3
    pixels = -scores[SEGMENTS]
    reverse = symmetric_relevance_gain(PREDICTOR, IMAGE, pixels, SEGMENTS, target=1, steps=3)
    assert reverse == pytest.approx(-wanted, abs=1e-5)


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="steps must be a whole number"):
        r_oms(PREDICTOR, IMAGE, SEGMENTS, key=KEY, steps=0)
    with pytest.raises(ValueError, match="num_orders must be a whole number"):
        r_oms(PREDICTOR, IMAGE, SEGMENTS, key=KEY, num_orders=0)
    with pytest.raises(ValueError, match="heatmap must be"):
        symmetric_relevance_gain(PREDICTOR, IMAGE, np.zeros(4), SEGMENTS)
