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


# Curves of ResNet-50 over the mean share of pixels removed, and their areas, as Bluecher et al.
# publish them (github.com/bluecher31/pixel-flipping, data/df_pf_max_f.csv): 25 superpixels with
# "ColorHistogram", and 5000 with "ConstantValueImputer", which end at 89% of the pixels.
PUBLISHED = [
    """
    0 .79862977, .04008929 .77886699, .07993151 .76581338, .11989318 .73577749, .19958353 .71531697,
    .23935547 .68301847, .27979114 .68496955, .36021445 .60715131, .48030645 .51640038,
    .6011469 .43299781, .7610808 .35833102, 1 .02712701
    """,
    """
    0 .8902086, 1.68606505e-4 .88973056, 5.08011798e-4 .89327993, 1.02578922e-3 .89503801,
    1.88855230e-3 .90088571, 3.46161511e-3 .89125858, 6.61969866e-3 .88256825,
    1.22596460e-2 .87920414, 2.26915258e-2 .84834638, 4.19832191e-2 .8047102,
    7.74590774e-2 .73769797, 1.42670068e-1 .60063599, 2.62761612e-1 .44305971,
    4.83765745e-1 .12615697, 8.89398584e-1 .0348628
    """,
]


@pytest.mark.parametrize(("points", "area"), [*zip(PUBLISHED, (0.4917920368, 0.2650477028))])
def test_areas_are_those_that_are_published(points, area):
    """Their areas are not divided by the width; ours are."""
    fractions, values = np.array([pair.split() for pair in points.split(",")], float).T
    found = occlusion_area(curve(fractions, values)) * fractions[-1]
    assert found == pytest.approx(area, abs=1e-7)


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
