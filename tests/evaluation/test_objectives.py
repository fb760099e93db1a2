"""Objectives: what is explained of a network's output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import entropy

import lmjax
from lmjax import attribution, metrics, objectives
from lmjax.evaluation.outputs import as_output, output_values
from lmjax.masks import segments
from tests.evaluation.test_engines import IMAGE as LARGE_IMAGE
from tests.evaluation.test_engines import random_predictor
from tests.support.small_classifier import small_classifier

LOGITS = np.array([0.3, -1.2, 2.0, 0.7], np.float32)
SHARES = softmax(LOGITS)
CLASSIFIER = small_classifier((12, 12, 3), num_classes=5)
IMAGE = np.random.default_rng(0).random((12, 12, 3), np.float32)
SQUARES = segments.grid(IMAGE, size=4)
GREY = lmjax.Predictor(CLASSIFIER, lmjax.Replace("grey"))
KEY = jax.random.key(0)


def whole(masks):
    """Logits `[N, K]` of the small classifier under grey."""
    return np.asarray(GREY(IMAGE, masks))


@pytest.mark.parametrize(
    ("objective", "wanted"),
    [
        (objectives.probability_of([0, 3]), SHARES[0] + SHARES[3]),
        (objectives.difference(2, 1), 3.2),
        (objectives.margin(2), 1.3),
        (objectives.margin(0), -1.7),
        (objectives.entropy(), entropy(SHARES)),
        (objectives.value(3), 0.7),
    ],
    ids=["probability_of", "difference", "margin", "margin of another", "entropy", "value"],
)
def test_named_objectives_of_logits(objective, wanted):
    assert objective(LOGITS) == pytest.approx(wanted, abs=1e-6)
    assert jax.jit(objective)(LOGITS) == pytest.approx(wanted, abs=1e-6)
    assert np.isfinite(jax.grad(lambda x: objective(x))(jnp.asarray(LOGITS))).all()


@pytest.mark.parametrize("tied", [False, True])
def test_margins_of_every_class(tied):
    logits = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    if tied:
        logits[:, 3] = logits[:, 1] = logits.max(axis=1) + 1
    others = [np.delete(logits, k, axis=1).max(axis=1) for k in range(5)]
    for found in (as_output(logits, "margin"), output_values(logits, "margin")):
        np.testing.assert_array_equal(found, logits - np.stack(others, axis=1))


def test_margin_of_one_logit_is_against_zero():
    logits = np.array([[0.8], [-0.2]], np.float32)
    np.testing.assert_array_equal(output_values(logits, "margin"), logits)
    assert objectives.margin(0)(logits[0]) == logits[0, 0]


def test_margin_by_name_is_that_of_the_function():
    by_name = attribution.leave_one_out(GREY, IMAGE, SQUARES, objective="margin", target=3)
    by_function = attribution.leave_one_out(GREY, IMAGE, SQUARES, objective=objectives.margin(3))
    np.testing.assert_array_equal(by_name.scores, by_function.scores)
    assert by_name.target == 3
    assert 0 < by_name.probability < 1
    slopes = [
        attribution.gradient(GREY, IMAGE, **options).scores
        for options in ({"objective": "margin", "target": 3}, {"objective": objectives.margin(3)})
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-5)
    assert slopes[0].any()


def test_one_logit_has_the_entropy_of_two_classes():
    p = expit(0.8)
    assert objectives.entropy()(np.array([0.8], np.float32)) == pytest.approx(entropy([p, 1 - p]))
    assert objectives.entropy()(np.array([200, -200], np.float32)) == pytest.approx(0)


def test_other_outputs():
    rng = np.random.default_rng(1)
    embedding, reference = rng.normal(size=(2, 7)).astype(np.float32)
    cosine = embedding @ reference / np.linalg.norm(embedding) / np.linalg.norm(reference)
    assert objectives.cosine(reference)(embedding) == pytest.approx(cosine, abs=1e-6)
    assert objectives.value()(jnp.float32(0.25)) == 0.25
    found, region = rng.random((5, 6, 3), np.float32), rng.random((5, 6)) < 0.4
    mean = objectives.region_mean(region, 2)(found)
    assert mean == pytest.approx(found[..., 2][region].mean(), abs=1e-6)


def iou(one, other):
    """Of two boxes of whole pixels, by counting them."""
    canvas = np.zeros((2, 40, 40), bool)
    for i, (left, top, right, bottom) in enumerate((one, other)):
        canvas[i, top:bottom, left:right] = True
    return (canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum()


def test_detections_are_scored_as_in_d_rise():
    rng = np.random.default_rng(2)
    corners = rng.integers(0, 18, (6, 2))
    boxes = np.concatenate([corners, corners + rng.integers(3, 20, (6, 2))], axis=1)
    scores = rng.random((6, 4), np.float32)
    objectness = rng.random(6, np.float32)
    box, label = np.array([5, 6, 20, 25]), np.eye(4)[1]
    products = [
        iou(box, boxes[i]) * scores[i, 1] / np.linalg.norm(scores[i]) * objectness[i]
        for i in range(6)
    ]
    objective = objectives.detection(box, label)
    outputs = boxes.astype(np.float32), scores, objectness
    assert objective(outputs) == pytest.approx(max(products), abs=1e-6)
    without = max(product / o for product, o in zip(products, objectness, strict=True))
    assert objective(outputs[:2]) == pytest.approx(without, rel=1e-5)
    nothing = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)
    assert objective(nothing) == 0


def test_an_objective_is_what_attributions_explain():
    """Leave-one-out by hand, of the margin of class 3."""
    keep = np.concatenate([np.ones((1, 9), bool), ~np.eye(9, dtype=bool)])
    logits = whole(keep[:, SQUARES])
    margins = logits[:, 3] - np.delete(logits, 3, axis=1).max(axis=1)
    found = attribution.leave_one_out(GREY, IMAGE, SQUARES, objective=objectives.margin(3))
    np.testing.assert_allclose(found.scores, margins[0] - margins[1:], atol=1e-5)
    assert (found.target, found.predicted_class) == (None, None)
    assert np.isnan(found.probability)
    assert np.isnan(found.predicted_probability)


def test_several_values_are_explained_side_by_side():
    both = attribution.lime(
        GREY, IMAGE, SQUARES, key=KEY, num_samples=100, objective=lambda x: jnp.stack([x[1], x[4]])
    )
    assert both.target == (0, 1)
    for scores, target in zip(both.scores, (1, 4), strict=True):
        one = attribution.lime(
            GREY, IMAGE, SQUARES, key=KEY, num_samples=100, target=target, objective="logit"
        )
        np.testing.assert_allclose(scores, one.scores, atol=1e-6)


METHODS = {
    "lime": lambda **o: attribution.lime(GREY, IMAGE, SQUARES, key=KEY, num_samples=100, **o),
    "kernelshap": lambda **o: attribution.kernelshap(
        GREY, IMAGE, SQUARES, key=KEY, num_samples=60, **o
    ),
    "shapley": lambda **o: attribution.permutation_shapley(
        GREY, IMAGE, SQUARES, key=KEY, num_permutations=4, **o
    ),
    "banzhaf": lambda **o: attribution.banzhaf(GREY, IMAGE, SQUARES, key=KEY, num_samples=64, **o),
    "leave_one_in": lambda **o: attribution.leave_one_in(GREY, IMAGE, SQUARES, **o),
    "rise": lambda **o: attribution.rise(GREY, IMAGE, key=KEY, num_samples=40, **o),
    "gradient": lambda **o: attribution.gradient(GREY, IMAGE, **o),
    "integrated": lambda **o: attribution.integrated_gradients(GREY, IMAGE, steps=4, **o),
    "meaningful": lambda **o: attribution.meaningful_perturbation(
        GREY, IMAGE, key=KEY, iterations=3, grid=6, **o
    ),
    "extremal": lambda **o: attribution.extremal_perturbation(
        GREY, IMAGE, areas=(0.2,), iterations=3, **o
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_function_of_a_logit_is_that_logit(method):
    named = METHODS[method](target=2, objective="logit")
    own = METHODS[method](objective=objectives.value(2))
    np.testing.assert_allclose(own.scores, named.scores, atol=1e-5)


def test_gradcam_explains_an_objective():
    def features(image):
        return image.reshape(6, 2, 6, 2, 3).mean(axis=(1, 3))

    def head(x):
        return jnp.einsum(
            "hwd,hwdk->k", x**2, jnp.linspace(-1, 1, 6 * 6 * 3 * 4).reshape(6, 6, 3, 4)
        )

    named = attribution.gradcam(features, head, IMAGE, target=3, objective="logit")
    own = attribution.gradcam(features, head, IMAGE, objective=objectives.value(3))
    np.testing.assert_allclose(own.scores, named.scores, atol=1e-6)
    assert named.scores.max() > 0


def test_metrics_follow_an_objective():
    heatmap = np.random.default_rng(3).random((12, 12))
    own = metrics.deletion(GREY, IMAGE, heatmap, step=12, objective=objectives.difference(1, 2))
    first, second = (
        metrics.deletion(GREY, IMAGE, heatmap, step=12, target=target, objective="logit").values
        for target in (1, 2)
    )
    np.testing.assert_allclose(own.values, first - second, atol=1e-5)
    assert own.target is None


def test_a_run_goes_on_with_the_same_objective_only():
    def run(objective, **options):
        return attribution.banzhaf(GREY, IMAGE, SQUARES, key=KEY, objective=objective, **options)

    first = run(objectives.margin(1), num_samples=40)
    longer = run(objectives.margin(1), num_samples=80, previous=first)
    whole = run(objectives.margin(1), num_samples=80)
    np.testing.assert_allclose(longer.scores, whole.scores, atol=1e-6)
    with pytest.raises(ValueError, match="previous is from another image, predictor or objective"):
        run(objectives.margin(2), num_samples=80, previous=first)


def test_outputs_need_not_be_logits():
    """A map of the image's brightness at half its size, and the mean of a region of it."""

    def segmentation(image, masks):
        shown = jnp.where(masks[..., None], image, 0.0)
        return shown.reshape(-1, 6, 2, 6, 2, 3).mean(axis=(2, 4))

    region = np.zeros((6, 6), bool)
    region[:2, :2] = True  # the first of the squares
    found = attribution.leave_one_out(
        segmentation, IMAGE, SQUARES, objective=objectives.region_mean(region, 1)
    )
    np.testing.assert_allclose(found.scores[0], IMAGE[:4, :4, 1].mean(), atol=1e-6)
    np.testing.assert_allclose(found.scores[1:], 0, atol=1e-6)


def test_what_is_not_jax_goes_through_black_box():
    def in_numpy(outputs):  # of all variants of a batch
        return np.sort(np.asarray(outputs), axis=1)[:, -2:].sum(axis=1)

    with pytest.raises(ValueError, match="objective is not a function that JAX can trace"):
        attribution.leave_one_out(
            GREY, IMAGE, SQUARES, objective=lambda logits: np.sort(np.asarray(logits))[-2:].sum()
        )
    found = attribution.leave_one_out(GREY, IMAGE, SQUARES, objective=lmjax.black_box(in_numpy))
    keep = np.concatenate([np.ones((1, 9), bool), ~np.eye(9, dtype=bool)])
    sums = np.sort(whole(keep[:, SQUARES]), axis=1)[:, -2:].sum(axis=1)
    np.testing.assert_allclose(found.scores, sums[0] - sums[1:], atol=1e-5)


def test_another_class_compiles_nothing():
    classifier = small_classifier((12, 12, 3), num_classes=5)
    predictor = lmjax.Predictor(classifier, "grey")
    for target in range(4):
        attribution.leave_one_out(predictor, IMAGE, SQUARES, objective=objectives.margin(target))
        if target == 0:
            compiled = len(classifier.traces)
    assert len(classifier.traces) == compiled > 0


def test_the_engine_with_visible_positions_takes_objectives():
    predictor = random_predictor("basic", lmjax.LayerMasking())
    squares = segments.grid(LARGE_IMAGE, size=20)
    found = [
        attribution.leave_one_out(
            lmjax.Evaluator(predictor, engine=engine),
            LARGE_IMAGE,
            squares,
            objective=objectives.margin(1),
        ).scores
        for engine in ("dense", "visible")
    ]
    np.testing.assert_allclose(*found, atol=1e-5 * np.abs(found).max())
    assert np.ptp(found[0]) > 0.01


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("logits", "objective must be one of probability, logit, margin, a function of"),
        ("a function of the network's output", "objective must be one of probability, logit"),
        (7, "objective must be one of probability, logit, margin, a function of"),
        (objectives.margin(5), "objective gave NaN or infinity for 10 of 10 variants; classes"),
        (objectives.probability_of([1, 9]), "objective gave NaN .* classes and entries that"),
        (objectives.value(1, 2), r"needs 1 numbers for an output of shape \[5\], got 2"),
        (objectives.cosine([1, 2, 3]), r"reference of shape \[3\], the network's output has \[5\]"),
        (objectives.region_mean(np.ones((2, 2)), 0), r"region of shape \[2, 2\].*has \[5\]"),
        (lambda logits: logits[None], r"real number for each variant, or M .*float32 \[1, 5\]"),
        (lambda logits: logits[:0], r"real number for each variant, or M .*float32 \[0\]"),
        (lambda logits: logits[0] * 1j, "real number for each variant, or M .*complex64"),
        (lambda logits: jnp.log(-jnp.abs(logits[0])), "objective gave NaN or infinity"),
    ],
)
def test_bad_objectives_are_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        attribution.leave_one_out(GREY, IMAGE, SQUARES, objective=objective)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: objectives.probability_of([]), "classes must be one or more numbers"),
        (lambda: objectives.probability_of([1, 1]), "each once; got"),
        (lambda: objectives.margin(-1), "target must be a whole number.*0 or more"),
        (lambda: objectives.difference(0, 1.5), "classes must be a whole number"),
        (lambda: objectives.cosine(np.zeros(4)), "reference must be an embedding"),
        (lambda: objectives.region_mean(np.zeros((3, 3)), 0), "True at one position or more"),
        (lambda: objectives.detection((5, 5, 5, 9), [1, 0]), "box must be .* with an area"),
        (lambda: objectives.detection((0, 0, 5, 9), [0, 0]), "scores must be finite"),
    ],
)
def test_bad_settings_of_objectives_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_target_beside_a_function_is_refused():
    with pytest.raises(ValueError, match="target must be None where the objective is a function"):
        attribution.leave_one_out(GREY, IMAGE, SQUARES, target=2, objective=objectives.entropy())


def test_the_old_name_works_with_a_warning():
    with pytest.warns(DeprecationWarning, match="output= is now objective="):
        old = attribution.leave_one_out(GREY, IMAGE, SQUARES, output="logit")
    new = attribution.leave_one_out(GREY, IMAGE, SQUARES, objective="logit")
    np.testing.assert_array_equal(old.scores, new.scores)
    with pytest.raises(TypeError, match="output is the old name of objective"):
        attribution.leave_one_out(GREY, IMAGE, SQUARES, output="logit", objective="logit")


def test_another_objective_of_the_same_samples_is_refused():
    """Where nothing new is evaluated, too."""

    def run(**options):
        return attribution.banzhaf(GREY, IMAGE, SQUARES, key=KEY, num_samples=40, **options)

    first = run(objective=objectives.margin(1))
    np.testing.assert_array_equal(
        run(objective=objectives.margin(1), previous=first).scores, first.scores
    )
    for other in ({"objective": objectives.margin(2)}, {"objective": "logit", "target": 1}):
        with pytest.raises(ValueError, match="previous is"):
            run(previous=first, **other)
    named = run(target=1)
    with pytest.raises(ValueError, match="previous is for target 1, this call for 2"):
        run(target=2, previous=named)
    with pytest.raises(ValueError, match="previous is from another image, predictor or objective"):
        run(target=1, objective="logit", previous=named)


def test_interactions_are_of_an_objective():
    both = attribution.interactions(
        GREY, IMAGE, SQUARES, key=KEY, objective=lambda x: jnp.stack([x[1], x[4]])
    )
    for scores, pairs, target in zip(both.scores, both.pairs, (1, 4), strict=True):
        one = attribution.interactions(
            GREY, IMAGE, SQUARES, key=KEY, target=target, objective="logit"
        )
        np.testing.assert_allclose(scores, one.scores, atol=1e-5)
        np.testing.assert_allclose(pairs, one.pairs, atol=1e-5)
    sampled = attribution.interactions(
        GREY, IMAGE, SQUARES, key=KEY, num_samples=200, objective=objectives.margin(1)
    )
    more = attribution.interactions(
        GREY,
        IMAGE,
        SQUARES,
        key=KEY,
        num_samples=300,
        objective=objectives.margin(1),
        previous=sampled,
    )
    assert more.num_variants > sampled.num_variants
    with pytest.raises(ValueError, match="previous is from another image, predictor or objective"):
        attribution.interactions(
            GREY, IMAGE, SQUARES, key=KEY, objective=objectives.margin(2), previous=sampled
        )


def test_functions_may_take_soft_masks_as_they_do_without_an_objective():
    def brightness(image, masks):
        shown = (image[None] * masks[..., None]).mean(axis=(1, 2, 3))
        return jnp.stack([shown, -shown], axis=1)

    options = {"key": KEY, "grid": 3, "num_samples": 20, "soft": True}
    found = attribution.rise(brightness, IMAGE, objective=objectives.value(0), **options)
    expected = attribution.rise(brightness, IMAGE, objective="logit", target=0, **options)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
