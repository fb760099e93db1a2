import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.evaluation import Predictor, evaluate
from lmjax.removals import Replace, ReplaceAverage, StandardErrors
from tests.support.small_classifier import small_classifier

H, W, C, K = 8, 6, 3, 4
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W, C)).astype(np.float32)
MASKS = RNG.random((5, H, W)) < 0.5
BASELINES = RNG.random((3, H, W, C)).astype(np.float32)
CLASSIFIER = small_classifier((H, W, C), num_classes=K)


def logits_by_loop():
    """`[M, N, K]`: every image of the set painted into every variant, pixel by pixel."""
    mean, std = CLASSIFIER.preprocessing
    weights = np.asarray(CLASSIFIER.weights, np.float64)
    out = np.empty((len(BASELINES), len(MASKS), K))
    for m, n in np.ndindex(out.shape[:2]):
        painted = BASELINES[m].copy()
        painted[MASKS[n]] = IMAGE[MASKS[n]]
        out[m, n] = np.tanh(np.einsum("hwc,hwck->k", (painted - mean) / std, weights))
    return out


def softmax(logits):
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_probabilities_are_averaged():
    logits = evaluate(Predictor(CLASSIFIER, ReplaceAverage(BASELINES)), IMAGE, MASKS)
    expected = softmax(logits_by_loop()).mean(axis=0)
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-6)
    np.testing.assert_allclose(logits, np.log(expected), atol=1e-5)


def test_or_logits_are():
    network = Predictor(CLASSIFIER, ReplaceAverage(BASELINES, average="logit"))
    expected = logits_by_loop().mean(axis=0)
    np.testing.assert_allclose(evaluate(network, IMAGE, MASKS), expected, atol=1e-5)
    assert abs(expected - np.log(softmax(logits_by_loop()).mean(axis=0))).max() > 0.1


def test_one_image_is_replace():
    one = Predictor(CLASSIFIER, ReplaceAverage(BASELINES[:1]))
    plain = Predictor(CLASSIFIER, Replace(BASELINES[0]))
    np.testing.assert_allclose(
        jax.nn.softmax(one(IMAGE, MASKS)), jax.nn.softmax(plain(IMAGE, MASKS)), atol=1e-6
    )


def test_with_all_visible_the_set_does_not_matter():
    whole = np.ones((1, H, W), bool)
    network = Predictor(CLASSIFIER, ReplaceAverage(BASELINES))
    plain = Predictor(CLASSIFIER, Replace("black"))
    np.testing.assert_allclose(
        jax.nn.softmax(network(IMAGE, whole)), jax.nn.softmax(plain(IMAGE, whole)), atol=1e-6
    )


def test_hidden_pixels_are_never_read():
    image = IMAGE.copy()
    image[~MASKS.any(axis=0)] = np.nan
    image[0, 0] = np.inf
    masks = MASKS.copy()
    masks[:, 0, 0] = False
    network = Predictor(CLASSIFIER, ReplaceAverage(BASELINES))
    np.testing.assert_array_equal(network(image, masks), network(IMAGE, masks))


def test_it_goes_through_jit_vmap_and_another_set_without_compiling_again():
    classifier = small_classifier((H, W, C), num_classes=K)
    expected = Predictor(classifier, ReplaceAverage(BASELINES))(IMAGE, MASKS)
    classifier.traces.clear()
    compiled = jax.jit(lambda network, image, masks: network(image, masks))
    for baselines in (BASELINES, jnp.asarray(BASELINES), 1 - BASELINES):
        logits = compiled(Predictor(classifier, ReplaceAverage(baselines)), IMAGE, MASKS)
        if baselines is BASELINES:
            np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert len(classifier.traces) == 1
    network = Predictor(classifier, ReplaceAverage(BASELINES))
    one_by_one = jax.vmap(network, in_axes=(None, 0))(IMAGE, MASKS)
    np.testing.assert_allclose(one_by_one, expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_the_batch_size_changes_nothing(size):
    network = Predictor(CLASSIFIER, ReplaceAverage(BASELINES))
    logits = evaluate(network, IMAGE, MASKS, batch_size=size)
    np.testing.assert_allclose(logits, network(IMAGE, MASKS), atol=1e-5)


def test_gradients_are_finite():
    image = np.where(MASKS.any(axis=0)[..., None], IMAGE, np.nan)
    network = Predictor(CLASSIFIER, ReplaceAverage(BASELINES))
    gradient = jax.grad(lambda image: network(image, MASKS).sum())(image)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("baselines", "options", "message"),
    [
        (IMAGE, {}, r"at least one; got shape \(8, 6, 3\); for one image: lmjax.Replace"),
        (BASELINES[:0], {}, "at least one; got shape"),
        (255 * BASELINES, {}, "baselines must hold display colours"),
        ((255 * BASELINES).astype(np.uint8), {}, "baselines must hold floats"),
        (BASELINES * np.nan, {}, "baselines holds NaN"),
        (BASELINES, {"average": "odds"}, "one of probability, logit; got 'odds'"),
    ],
)
def test_bad_sets_are_errors(baselines, options, message):
    with pytest.raises(ValueError, match=message):
        ReplaceAverage(baselines, **options)


def test_a_set_of_another_size_is_an_error():
    with pytest.raises(ValueError, match="to match the image"):
        Predictor(CLASSIFIER, ReplaceAverage(BASELINES[:, 1:]))(IMAGE, MASKS)


def test_standard_errors_are_of_what_is_averaged():
    for average, of in (("probability", softmax), ("logit", np.asarray)):
        removal = ReplaceAverage(BASELINES, average=average)
        found = evaluate(StandardErrors(CLASSIFIER, removal), IMAGE, MASKS)
        expected = of(logits_by_loop()).std(axis=0, ddof=1) / np.sqrt(len(BASELINES))
        np.testing.assert_allclose(found, expected, atol=1e-5)
