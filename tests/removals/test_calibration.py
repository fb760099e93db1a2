"""Calibrated removals: the fit against SciPy, what they pass on, and that nothing leaks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

import lmjax
from lmjax import removals
from lmjax.evaluation import calibrate
from tests.support.small_classifier import small_classifier

H, W, C, K = 8, 6, 3, 4
RNG = np.random.default_rng(0)
LOGITS = (2 * RNG.normal(size=(80, K)) + [1.5, 0, 0, -1]).astype(np.float32)
CLASSES = (LOGITS * [1, 2, 0.5, 1] + 2 * RNG.normal(size=(80, K))).argmax(axis=1)
IMAGES = RNG.random((24, H, W, C)).astype(np.float32)
IMAGE_OF = np.arange(72) % 24
MASKS = RNG.random((72, H, W)) < np.repeat([0.2, 0.5, 0.8], 24)[:, None, None]
CLASSIFIER = small_classifier()


def by_scipy(logits, classes, ridge):
    """Oracle: the same convex objective in float64, by SciPy."""
    logits, rows = np.asarray(logits, np.float64), np.arange(len(logits))
    size = logits.shape[1]

    def objective(flat):
        change = flat.reshape(size, size + 1)
        mapped = logits + logits @ change[:, :size].T + change[:, size]
        entropy = logsumexp(mapped, axis=1) - mapped[rows, classes]
        return entropy.mean() + ridge / 2 * (flat**2).sum()

    found = minimize(objective, np.zeros(size * (size + 1)), method="BFGS", options={"gtol": 1e-7})
    change = found.x.reshape(size, size + 1)
    return np.eye(size) + change[:, :size], change[:, size], found.fun


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
def test_the_fit_is_the_minimum(ridge):
    fitted = removals.calibrated("grey", LOGITS, CLASSES, ridge=ridge)
    matrix, bias, _ = by_scipy(LOGITS, CLASSES, ridge)
    np.testing.assert_allclose(fitted.matrix, matrix, atol=2e-3)
    np.testing.assert_allclose(fitted.bias, bias, atol=2e-3)
    assert abs(np.asarray(fitted.matrix) - np.eye(K)).max() > 0.05


def test_the_logits_are_mapped():
    inner = lmjax.Replace("black")
    matrix, bias = RNG.normal(size=(K, K)).astype(np.float32), np.float32([1, 2, 3, 4])
    corrected = lmjax.Predictor(CLASSIFIER, removals.Calibrated(inner, matrix, bias))
    logits = lmjax.evaluate(corrected, IMAGES[0], MASKS)
    plain = np.asarray(lmjax.Predictor(CLASSIFIER, inner)(IMAGES[0], MASKS))
    np.testing.assert_allclose(logits, plain @ matrix.T + bias, atol=1e-5)


def test_masked_logits_give_the_whole_images_class_more_often_also_where_not_fitted():
    """A removal that favours one class and confuses two others, on the second half of the data."""
    whole = 3 * RNG.normal(size=(400, K))
    confused = whole + [4, 0, 0, 0] + whole[:, [0, 2, 1, 3]] * [0, 0.9, 0.9, 0]
    logits, classes = confused + 0.3 * RNG.normal(size=whole.shape), whole.argmax(axis=1)
    fitted = removals.calibrated("black", logits[:200], classes[:200])
    corrected = logits[200:] @ np.asarray(fitted.matrix).T + fitted.bias[None]
    before, after = (
        (each.argmax(axis=1) == classes[200:]).mean() for each in (logits[200:], corrected)
    )
    assert before < 0.6
    assert after > before + 0.15


def test_images_that_are_judged_have_no_part_in_the_fit():
    """A fit is a function of the images that it is given: others change no bit of it."""
    predictor = lmjax.Predictor(CLASSIFIER, "grey")
    given = IMAGE_OF < 12
    fits = []
    for judged in (IMAGES[12:], 1 - IMAGES[12:]):
        images = np.concatenate([IMAGES[:12], judged])
        fitted = calibrate(predictor, images[:12], MASKS[given], image_of=IMAGE_OF[given])
        lmjax.Evaluator(fitted).images(images, MASKS, image_of=IMAGE_OF)
        fits.append(fitted.removal)
    np.testing.assert_array_equal(fits[0].matrix, fits[1].matrix)
    leaking = calibrate(predictor, IMAGES, MASKS, image_of=IMAGE_OF).removal
    assert abs(np.asarray(leaking.matrix) - fits[0].matrix).max() > 1e-3


def test_labels_are_the_networks_own_answers_to_whole_images():
    predictor = lmjax.Predictor(CLASSIFIER, "black")
    fitted = calibrate(predictor, IMAGES, MASKS, image_of=IMAGE_OF).removal
    whole = CLASSIFIER.apply(CLASSIFIER.normalise(IMAGES)).argmax(axis=1)
    logits = lmjax.Evaluator(predictor).images(IMAGES, MASKS, image_of=IMAGE_OF)
    expected = removals.calibrated(predictor.removal, logits, np.asarray(whole)[IMAGE_OF])
    np.testing.assert_allclose(fitted.matrix, expected.matrix, atol=1e-4)


@dataclasses.dataclass(frozen=True)
class Sparse:
    """Stands in the place of a removal inside the network."""

    where = "layers"
    sparse = True

    def logits(self, classifier, image, masks):
        return classifier.apply(jnp.broadcast_to(image, (len(masks), *image.shape)), masks)

    def logits_on_visible(self, classifier, image, masks, layout):
        return 2 * self.logits(classifier, image, masks)


def test_it_is_what_the_removal_inside_is():
    matrix, bias = np.eye(K, dtype=np.float32), np.ones(K, np.float32)
    soft, inside, tokens = (
        removals.Calibrated(each, matrix, bias)
        for each in (lmjax.Replace("grey"), Sparse(), lmjax.TokenDropping())
    )
    assert (soft.where, soft.soft_masks, soft.sparse) == ("input", True, False)
    assert (inside.where, inside.soft_masks, inside.sparse) == ("layers", False, True)
    assert tokens.where == "tokens"
    on_visible = inside.logits_on_visible(CLASSIFIER, IMAGES[0], MASKS[:2], None)
    plain = inside.logits(CLASSIFIER, IMAGES[0], MASKS[:2])
    np.testing.assert_allclose(on_visible - 1, 2 * (plain - 1), atol=1e-5)
    assert len(jax.tree.leaves(inside)) == 2
    run = jax.jit(lambda predictor: predictor(IMAGES[0], MASKS[:2]))
    np.testing.assert_allclose(run(lmjax.Predictor(CLASSIFIER, inside)), plain, atol=1e-5)


@pytest.mark.parametrize(
    ("logits", "classes", "options", "message"),
    [
        (LOGITS, CLASSES[:3], {}, r"logits must be \[N, K\] and classes \[N\]"),
        (LOGITS[:0], CLASSES[:0], {}, "at least one variant"),
        (LOGITS * np.nan, CLASSES, {}, "logits holds NaN"),
        (LOGITS, CLASSES + 1, {}, "classes must hold ints from 0 to 3, got int64 from"),
        (LOGITS, CLASSES / 2, {}, "classes must hold ints"),
        (LOGITS, CLASSES, {"ridge": 0}, "ridge must be a finite number above 0"),
        (LOGITS * 1e30, CLASSES, {}, "no calibration of logits was found: .*too large"),
    ],
)
def test_bad_fits_are_errors(logits, classes, options, message):
    with pytest.raises(ValueError, match=message):
        removals.calibrated("grey", logits, classes, **options)


def test_other_predictors_and_classes_are_errors():
    with pytest.raises(ValueError, match=r"must be an lmjax\.Predictor, got function"):
        calibrate(lambda image, masks: masks, IMAGES, MASKS, image_of=IMAGE_OF)
    wrong = removals.Calibrated(lmjax.Replace("grey"), np.eye(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"logits must be of 3 classes, .*got 4"):
        lmjax.Predictor(CLASSIFIER, wrong)(IMAGES[0], MASKS)
