"""Deletion and insertion against a plain loop, as RISE's evaluation.py goes about it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.evaluation import Evaluator, Predictor
from lmjax.masks import segments
from lmjax.metrics import Curve, deletion, insertion
from lmjax.removals.baselines import gaussian_blur
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
H, W = 8, 6
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
HEATMAP = RNG.normal(size=(H, W))
SEGMENTS = segments.grid(IMAGE, size=3)  # 3 x 2, the lowest of 2 x 3 pixels
CLASSIFIER = small_classifier((H, W, 3), num_classes=5)
BLUR = functools.partial(gaussian_blur, sigma=5, radius=5)


def predictor(baseline="black"):
    return Predictor(CLASSIFIER, lmjax.Replace(baseline))


@jax.jit
def probabilities(picture):
    return jax.nn.softmax(CLASSIFIER.apply(CLASSIFIER.normalise(picture[None])))[0]


def plain_curve(start, finish, order, step):
    """Probabilities while pixels of `finish` replace those of `start`, `step` at a time."""
    picture = start.copy()
    values = [np.asarray(probabilities(picture))]
    for first in range(0, len(order), step):
        for pixel in order[first : first + step]:
            row, column = divmod(pixel, W)
            picture[row, column] = finish[row, column]
        values.append(np.asarray(probabilities(picture)))
    return np.stack(values)


def by_falling_score(heatmap):
    return sorted(range(H * W), key=lambda pixel: -heatmap.ravel()[pixel])


@pytest.mark.parametrize("step", [1, 7, 12, 48, 100])
def test_deletion_is_that_of_a_plain_loop(step):
    expected = plain_curve(IMAGE, np.zeros_like(IMAGE), by_falling_score(HEATMAP), step)
    curve = deletion(predictor(), IMAGE, HEATMAP, target=2, step=step)
    np.testing.assert_allclose(curve.values, expected[:, 2], rtol=1e-5)
    assert curve.values.shape == (-(-48 // step) + 1,)
    np.testing.assert_allclose(
        curve.fractions, [min(k * step, 48) / 48 for k in range(len(expected))]
    )
    # RISE's auc(): (sum - first / 2 - last / 2) / n
    area = (expected[:, 2].sum() - expected[0, 2] / 2 - expected[-1, 2] / 2) / (len(expected) - 1)
    assert curve.normalised_auc == pytest.approx(area, rel=1e-5)


@pytest.mark.parametrize("step", [1, 7, 48])
def test_insertion_into_a_blur_is_that_of_a_plain_loop(step):
    blurred = np.asarray(BLUR(jnp.asarray(IMAGE)))
    expected = plain_curve(blurred, IMAGE, by_falling_score(HEATMAP), step)
    curve = insertion(predictor(BLUR), IMAGE, HEATMAP, target=2, step=step)
    np.testing.assert_allclose(curve.values, expected[:, 2], rtol=1e-5)
    assert (curve.fractions[0], curve.fractions[-1]) == (0, 1)


def test_no_target_takes_the_predicted_class_and_several_are_rows():
    predicted = int(probabilities(IMAGE).argmax())
    expected = plain_curve(IMAGE, np.zeros_like(IMAGE), by_falling_score(HEATMAP), W)
    curve = deletion(predictor(), IMAGE, HEATMAP)
    assert curve.target == predicted
    np.testing.assert_allclose(curve.values, expected[:, predicted], rtol=1e-5)
    for metric in (deletion, insertion):
        together = metric(predictor(), IMAGE, HEATMAP, target=(3, 0))
        assert together.target == (3, 0)
        for row, target in enumerate((3, 0)):
            alone = metric(predictor(), IMAGE, HEATMAP, target=target)
            np.testing.assert_allclose(together.values[row], alone.values, rtol=1e-6)
            assert together.normalised_auc[row] == pytest.approx(alone.normalised_auc)


def test_the_step_is_a_row_of_pixels_or_one_segment():
    assert deletion(predictor(), IMAGE, HEATMAP).values.shape == (H + 1,)
    assert deletion(predictor(), IMAGE, HEATMAP, segments=SEGMENTS).values.shape == (6 + 1,)


def test_the_area_of_a_curve_by_hand():
    curve = Curve(np.linspace(0, 1, 4), np.array([1.0, 0.5, 0.25, 0.0], np.float32), 0)
    assert curve.normalised_auc == pytest.approx((0.75 + 0.375 + 0.125) / 3)
    assert isinstance(curve.normalised_auc, float)


def test_a_curve_prints_what_it_is():
    curve = deletion(predictor(), IMAGE, HEATMAP, target=2)
    area = f"normalised_auc={curve.normalised_auc:.4g}"
    values = f"values=float32[9] from {curve.values.min():.4g} to {curve.values.max():.4g}"
    assert repr(curve) == f"Curve({values}, target=2, {area})"
    many = Curve(np.linspace(0, 1, 225), np.zeros((1000, 225), np.float32), tuple(range(1000)))
    assert len(repr(many)) < 300


def test_equal_scores_go_in_the_order_of_reading():
    curve = deletion(predictor(), IMAGE, np.zeros((H, W)), target=0)
    rows = deletion(predictor(), IMAGE, -np.arange(H * W).reshape(H, W), target=0)
    np.testing.assert_array_equal(curve.values, rows.values)


def test_whole_segments_go_by_their_mean():
    heatmap = 5 + HEATMAP  # the lowest segments are smaller, and their sums the least
    sums, means = (
        [reduce(heatmap[label == SEGMENTS]) for label in range(6)] for reduce in (np.sum, np.mean)
    )
    assert (np.argsort(sums) != np.argsort(means)).any()
    order = [
        pixel
        for label in np.argsort(means)[::-1]
        for pixel in np.flatnonzero(label == SEGMENTS.ravel())
    ]
    sizes = np.bincount(SEGMENTS.ravel())[np.argsort(means)[::-1]]
    every = plain_curve(IMAGE, np.zeros_like(IMAGE), order, 1)[:, 1]
    stops = np.append(0, sizes.cumsum())
    curve = deletion(predictor(), IMAGE, heatmap, segments=SEGMENTS, target=1)
    np.testing.assert_allclose(curve.values, every[stops], rtol=1e-5)
    np.testing.assert_allclose(curve.fractions, stops / 48)
    same = deletion(predictor(), IMAGE, means, segments=SEGMENTS, target=1)
    np.testing.assert_array_equal(curve.values, same.values)
    two = deletion(predictor(), IMAGE, means, segments=SEGMENTS, target=1, step=2)
    np.testing.assert_allclose(two.values, curve.values[::2], rtol=1e-6)


@pytest.mark.parametrize("removal", [lmjax.LayerMasking(), lmjax.Replace("grey")])
@pytest.mark.parametrize("labels", [None, SEGMENTS])
def test_insertion_of_the_opposite_heatmap_is_deletion_backwards(removal, labels):
    network = Predictor(CLASSIFIER, removal)
    removed = deletion(network, IMAGE, HEATMAP, segments=labels, target=(0, 1), objective="logit")
    shown = insertion(network, IMAGE, -HEATMAP, segments=labels, target=(0, 1), objective="logit")
    np.testing.assert_allclose(removed.values[:, ::-1], shown.values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(1 - removed.fractions[::-1], shown.fractions)
    np.testing.assert_allclose(removed.normalised_auc, shown.normalised_auc, rtol=1e-5)


def test_under_layer_masking_a_curve_ends_without_any_image():
    curve = deletion(Predictor(CLASSIFIER), IMAGE, HEATMAP, target=0)
    assert curve.values[-1] == pytest.approx(1 / 5)  # the small classifier has no bias
    other = IMAGE.copy()
    best = np.unravel_index(HEATMAP.argmax(), (H, W))
    other[best] = 1 - other[best]
    changed = deletion(Predictor(CLASSIFIER), other, HEATMAP, target=0, step=1)
    same = deletion(Predictor(CLASSIFIER), IMAGE, HEATMAP, target=0, step=1)
    assert changed.values[0] != same.values[0]
    np.testing.assert_array_equal(changed.values[1:], same.values[1:])


def test_a_network_that_reads_one_segment():
    seen = jnp.asarray(SEGMENTS == 4)

    def network(image, masks):
        shown = (masks & seen[None]).sum(axis=(1, 2)) / seen.sum()
        return jnp.stack([10 * shown, jnp.zeros_like(shown)], axis=1)

    right = np.where(SEGMENTS == 4, 1.0, 0.0)
    top, half = 1 / (1 + np.exp(-10)), 0.5
    options = {"segments": SEGMENTS, "target": 0}
    for heatmap, place in ((right, 1), (-right, 6)):
        steps = np.arange(7)
        np.testing.assert_allclose(
            deletion(network, IMAGE, heatmap, **options).values, np.where(steps < place, top, half)
        )
        np.testing.assert_allclose(
            insertion(network, IMAGE, heatmap, **options).values, np.where(steps < place, half, top)
        )


def test_the_batch_size_does_not_change_a_curve():
    for metric in (deletion, insertion):
        curves = [
            metric(Evaluator(predictor(), batch_size=size), IMAGE, HEATMAP, step=5)
            for size in (None, 1, 4)
        ]
        for curve in curves[1:]:
            np.testing.assert_allclose(curve.values, curves[0].values, rtol=1e-6)


@pytest.mark.parametrize("heatmap", [HEATMAP.astype(np.float32), HEATMAP > 0, (9 * HEATMAP) // 1])
def test_heatmaps_of_other_types_and_places(heatmap):
    expected = deletion(predictor(), IMAGE, heatmap.astype(np.float64), target=0).values
    for each in (heatmap, jnp.asarray(heatmap)):
        np.testing.assert_array_equal(deletion(predictor(), IMAGE, each, target=0).values, expected)
    deletion(predictor(), IMAGE, jnp.asarray(heatmap, jnp.bfloat16))


@pytest.mark.parametrize("metric", [deletion, insertion])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heatmap": HEATMAP.T}, r"heatmap must be \(8, 6\) like the image, got shape \(6, 8\)"),
        ({"heatmap": HEATMAP.ravel()}, "scores of segments need segments="),
        ({"heatmap": np.full((H, W), np.nan)}, "heatmap holds NaN or infinity in 48 places"),
        ({"heatmap": np.full((H, W), "a")}, "heatmap must be real numbers"),
        ({"segments": SEGMENTS, "heatmap": np.ones(5)}, r"or \[6\], a score for each"),
        ({"segments": SEGMENTS + 1}, "missing 0"),
        ({"segments": SEGMENTS.T}, "like the image"),
        ({"step": 0}, "step must be a whole number, 1 or more; got 0"),
        ({"step": 2.5}, "step must be a whole number"),
        ({"target": 5}, "target must be from 0 to 4"),
        ({"objective": "odds"}, "objective must be one of"),
        ({"image": IMAGE[..., 0]}, r"image must be \[H, W, C\]"),
    ],
)
def test_bad_input_is_an_error(metric, options, message):
    arguments = {"image": IMAGE, "heatmap": HEATMAP, **options}
    with pytest.raises(ValueError, match=message):
        metric(predictor(), **arguments)
