"""Region perturbation, IROF and top-k ablation against plain loops over pictures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.evaluation import Evaluator, Predictor
from lmjax.masks import segments
from lmjax.metrics import (
    Curve,
    aopc,
    area_between,
    irof,
    region_perturbation,
    top_k_ablation,
)
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
H, W = 8, 7
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
HEATMAP = RNG.normal(size=(H, W))
SEGMENTS = segments.grid(IMAGE, size=3)  # 3 x 3, of 9, 6, 3 and 2 pixels
CLASSIFIER = small_classifier((H, W, 3), num_classes=5)
PREDICTOR = Predictor(CLASSIFIER, lmjax.Replace("black"))
KEY = jax.random.key(3)


@jax.jit
def logits(picture):
    return CLASSIFIER.apply(CLASSIFIER.normalise(picture[None]))[0]


def removed_one_by_one(order):
    """Logits of the whole image and after each label of `order` is painted black."""
    picture = IMAGE.copy()
    found = [np.asarray(logits(picture))]
    for label in order:
        picture[label == SEGMENTS] = 0
        found.append(np.asarray(logits(picture)))
    return np.stack(found)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


SUMS = np.array([HEATMAP[label == SEGMENTS].sum() for label in range(9)])
MEANS = np.array([HEATMAP[label == SEGMENTS].mean() for label in range(9)])


# -- region perturbation


@pytest.mark.parametrize("steps", [None, 100, 9, 4, 1])
@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_regions_go_by_the_sum_of_their_relevance(order, steps):
    assert (np.argsort(SUMS) != np.argsort(MEANS)).any()
    expected = np.argsort(SUMS)[::-1] if order == "morf" else np.argsort(SUMS)
    expected = softmax(removed_one_by_one(expected))[: 1 + min(steps or 9, 9), 2]
    curve = region_perturbation(
        PREDICTOR, IMAGE, HEATMAP, order=order, size=3, steps=steps, target=2
    )
    np.testing.assert_allclose(curve.values, expected, rtol=1e-5)
    # equation of the paper, k from 0 to L
    drops = [expected[0] - value for value in expected]
    assert aopc(curve) == pytest.approx(sum(drops) / len(drops), rel=1e-4)
    assert curve.fractions[0] == 0
    assert (curve.fractions[-1] == 1) == (steps != 4 and steps != 1)


def test_own_regions_and_their_own_scores():
    squares = region_perturbation(PREDICTOR, IMAGE, HEATMAP, size=3, target=0)
    for heatmap in (HEATMAP, SUMS):
        own = region_perturbation(PREDICTOR, IMAGE, heatmap, segments=SEGMENTS, target=0)
        np.testing.assert_array_equal(own.values, squares.values)


def test_the_random_order_is_a_permutation_that_depends_on_the_key_alone():
    def curve(key, heatmap=HEATMAP):
        return region_perturbation(
            PREDICTOR, IMAGE, heatmap, key=key, order="random", size=3, target=0
        ).values

    np.testing.assert_array_equal(curve(KEY), curve(KEY, -HEATMAP))
    others = [curve(jax.random.key(seed)) for seed in range(20)]
    assert len({tuple(values) for values in others}) == 20
    whole, empty = softmax(removed_one_by_one(range(9)))[[0, -1], 0]
    for values in others:
        np.testing.assert_allclose(values[[0, -1]], [whole, empty], rtol=1e-5)


def test_for_a_network_that_adds_up_the_orders_lie_as_they_should():
    weights = jnp.asarray(HEATMAP, jnp.float32)

    def network(image, masks):
        return (masks * weights[None]).sum(axis=(1, 2))[:, None]

    options = {"size": 3, "target": 0, "objective": "logit"}
    morf, lerf, random = (
        region_perturbation(network, IMAGE, HEATMAP, key=KEY, order=order, **options)
        for order in ("morf", "lerf", "random")
    )
    assert (morf.values <= random.values + 1e-5).all()
    assert (random.values <= lerf.values + 1e-5).all()
    np.testing.assert_allclose(
        morf.values, HEATMAP.sum() - np.append(0, np.sort(SUMS)[::-1].cumsum()), atol=1e-5
    )
    gap = np.mean([lerf.values[k] - morf.values[k] for k in range(10)])
    assert area_between(lerf, morf) == pytest.approx(gap, rel=1e-5)
    assert area_between(lerf, morf) == pytest.approx(aopc(morf) - aopc(lerf), rel=1e-5)


def test_areas_by_hand():
    morf = Curve(np.linspace(0, 1, 3), np.array([0.9, 0.3, 0.0]), 1)
    lerf = Curve(np.linspace(0, 1, 3), np.array([0.9, 0.6, 0.0]), 1)
    assert aopc(morf) == pytest.approx((0 + 0.6 + 0.9) / 3)
    assert area_between(lerf, morf) == pytest.approx(0.3 / 3)
    several = Curve(morf.fractions, np.stack([morf.values, lerf.values]), (1, 2))
    np.testing.assert_allclose(aopc(several), [aopc(morf), aopc(lerf)])


def test_areas_are_between_curves_alike():
    values = np.zeros(3, np.float32)
    curve = Curve(np.linspace(0, 1, 3), values, 1)
    with pytest.raises(ValueError, match="the same number of steps"):
        area_between(Curve(np.linspace(0, 1, 4), np.zeros(4), 1), curve)
    with pytest.raises(ValueError, match="targets 2 and 1"):
        area_between(Curve(curve.fractions, values, 2), curve)


# -- IROF


def test_irof_is_that_of_a_plain_loop():
    curve = softmax(removed_one_by_one(np.argsort(MEANS)[::-1]))[:, 3]
    ratios = curve / curve[0]
    expected = 1 - sum((a + b) / 2 for a, b in itertools.pairwise(ratios)) / 9
    found = irof(PREDICTOR, IMAGE, HEATMAP, SEGMENTS, target=3)
    assert found == pytest.approx(expected, rel=1e-4)
    assert irof(PREDICTOR, IMAGE, MEANS, SEGMENTS, target=3) == found
    several = irof(PREDICTOR, IMAGE, HEATMAP, SEGMENTS, target=[3, 0])
    assert several[0] == pytest.approx(found, rel=1e-6)
    assert several[1] == pytest.approx(irof(PREDICTOR, IMAGE, MEANS, SEGMENTS, target=0), rel=1e-5)


def test_quantuss_numbers_follow_by_the_relations_in_the_docstrings():
    """Quantus 0.6.0: outputs after each step, without the whole image; sums, not means."""
    after = softmax(removed_one_by_one(np.argsort(MEANS)[::-1]))[1:, 3]
    whole = softmax(np.asarray(logits(IMAGE)))[3]
    ratios = after / whole  # irof.py: len(ratios) - trapezoid(ratios)
    theirs = len(ratios) - np.trapezoid(ratios)
    ours = irof(PREDICTOR, IMAGE, HEATMAP, SEGMENTS, target=3)
    assert theirs == pytest.approx(9 * ours + (1 + ratios[0]) / 2, rel=1e-4)

    after = softmax(removed_one_by_one(np.argsort(SUMS)[::-1]))[1:, 3]
    theirs = np.mean(whole - after)  # region_perturbation.py: the drops, one for each step
    ours = aopc(region_perturbation(PREDICTOR, IMAGE, HEATMAP, size=3, target=3))
    assert theirs == pytest.approx(10 / 9 * ours, rel=1e-4)


# -- top-k ablation


def test_top_k_ablation_is_that_of_a_plain_loop():
    scores = RNG.normal(size=9)
    predicted = removed_one_by_one(np.argsort(scores)[::-1]).argmax(axis=1)
    expected = predicted == predicted[0]
    assert 1 < expected.sum() < 10  # it changes on the way
    found = top_k_ablation(PREDICTOR, IMAGE, scores, SEGMENTS)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == bool
    np.testing.assert_array_equal(
        top_k_ablation(PREDICTOR, IMAGE, scores, SEGMENTS, max_k=4), expected[:5]
    )


def test_a_network_that_reads_one_segment_changes_its_mind_with_it():
    def network(image, masks):
        shown = masks[:, 7, 6]
        return jnp.stack([jnp.where(shown, 1.0, 0.0), jnp.full(shown.shape, 0.5)], axis=1)

    for place in (1, 5, 9):
        scores = np.arange(9.0)
        scores[8] = 8 - place + 0.5
        found = top_k_ablation(network, IMAGE, scores, SEGMENTS)
        np.testing.assert_array_equal(found, np.arange(10) < place)


# -- all


def test_the_batch_size_changes_nothing():
    for size in (1, 4):
        for metric in (
            lambda predictor: region_perturbation(predictor, IMAGE, HEATMAP, size=3).values,
            lambda predictor: irof(predictor, IMAGE, HEATMAP, SEGMENTS),
            lambda predictor: top_k_ablation(predictor, IMAGE, HEATMAP, SEGMENTS),
        ):
            found = metric(Evaluator(PREDICTOR, batch_size=size))
            np.testing.assert_allclose(found, metric(PREDICTOR), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: region_perturbation(PREDICTOR, IMAGE, HEATMAP, order="up"), "one of morf, lerf"),
        (lambda: region_perturbation(PREDICTOR, IMAGE, HEATMAP, order="random"), "needs key="),
        (lambda: region_perturbation(PREDICTOR, IMAGE, HEATMAP, steps=0), "steps must be"),
        (lambda: region_perturbation(PREDICTOR, IMAGE, HEATMAP, size=0), "size must be"),
        (lambda: region_perturbation(PREDICTOR, IMAGE, HEATMAP.T), "like the segments"),
        (lambda: irof(PREDICTOR, IMAGE, np.ones(8), SEGMENTS), r"or \[9\]"),
        (lambda: irof(PREDICTOR, IMAGE, HEATMAP, SEGMENTS + 1), "missing 0"),
        (lambda: top_k_ablation(PREDICTOR, IMAGE, MEANS, SEGMENTS, max_k=10), "from 1 to 9"),
        (
            lambda: top_k_ablation(PREDICTOR, IMAGE[0], MEANS, SEGMENTS),
            r"image must be \[H, W, C\]",
        ),
    ],
)
def test_bad_input_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: lmjax.metrics.aopc(3),
        lambda: lmjax.metrics.occlusion_area("a"),
        lambda: lmjax.metrics.area_between(np.ones(3), np.ones(3)),
        lambda: lmjax.metrics.relevance_gain(None, None),
    ],
)
def test_what_is_no_curve_is_an_error(call):
    with pytest.raises(ValueError, match=r"(curve|lerf) must be a Curve, such as"):
        call()
