"""Samples: hidden pixels from images of a set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax import removals
from tests.support.small_classifier import small_classifier

H, W, C = 8, 6, 3
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W, C)).astype(np.float32)
MASKS = RNG.random((5, H, W)) < 0.5
SET = RNG.random((7, H, W, C)).astype(np.float32)
KEY = jax.random.key(2)
CLASSIFIER = small_classifier()


def test_draws_of_the_set_are_averaged():
    """Against a loop over images, pixel by pixel, for the draws that the pictures show."""
    samples = lmjax.Samples(SET, key=KEY, draws=3)
    logits = lmjax.evaluate(lmjax.Predictor(CLASSIFIER, samples), IMAGE, MASKS, batch_size=2)
    answers = np.array(samples.answers(CLASSIFIER, IMAGE, MASKS))
    by_image = np.empty((len(SET), *logits.shape))
    mean, std = CLASSIFIER.preprocessing
    for m, n in np.ndindex(by_image.shape[:2]):
        painted = SET[m].copy()
        painted[MASKS[n]] = IMAGE[MASKS[n]]
        weights = np.asarray(CLASSIFIER.weights, np.float64)
        by_image[m, n] = np.tanh(np.einsum("hwc,hwck->k", (painted - mean) / std, weights))
    which = [abs(by_image - answer).max(axis=(1, 2)).argmin() for answer in answers]
    assert len(set(which)) == 3  # without replacement
    np.testing.assert_allclose(answers, by_image[which], atol=1e-5)
    expected = jax.nn.softmax(jnp.asarray(by_image[which])).mean(axis=0)
    np.testing.assert_allclose(np.exp(logits), expected, atol=1e-5)
    first = np.where(MASKS[..., None], IMAGE, SET[which[0]])
    np.testing.assert_array_equal(samples.paint(IMAGE, MASKS), first)


def test_every_image_is_drawn_as_often_as_any_other():
    keys = jax.random.split(KEY, 60)
    first = [lmjax.Samples(SET, key=key, draws=2).paint(IMAGE, MASKS[:1])[0] for key in keys]
    pictures = np.where(MASKS[0][..., None], IMAGE, SET)
    drawn = [(pictures == np.asarray(each)).all(axis=(1, 2, 3)).argmax() for each in first]
    assert set(drawn) == set(range(7))


def test_another_set_or_key_compiles_nothing():
    classifier = small_classifier()
    run = jax.jit(lambda predictor: predictor(IMAGE, MASKS))
    answers = [
        run(lmjax.Predictor(classifier, lmjax.Samples(images, key=key, draws=2)))
        for images, key in ((SET, KEY), (1 - SET, KEY), (SET, jax.random.key(3)))
    ]
    assert len(classifier.traces) == 1
    assert abs(answers[0] - answers[1]).max() > 0.01
    assert abs(answers[0] - answers[2]).max() > 0.01


def test_by_name_it_takes_photographs_of_any_size():
    samples = removals.make("samples", key=KEY)
    for shape in ((40, 60, 3), (9, 8, 1)):
        painted = np.asarray(samples.paint(np.zeros(shape, np.float32), np.zeros((1, *shape[:2]))))
        assert painted.std() > 0.03
    errors = removals.StandardErrors(CLASSIFIER, samples)(IMAGE, MASKS)
    assert (np.asarray(errors) > 0).all()


def test_standard_errors_are_those_of_other_draws():
    spread, claimed = [], []
    for seed in range(150):
        samples = removals.Samples(SET, key=jax.random.key(seed), draws=4)
        spread.append(jax.nn.softmax(samples.logits(CLASSIFIER, IMAGE, MASKS)))
        claimed.append(removals.StandardErrors(CLASSIFIER, samples)(IMAGE, MASKS))
    ratio = np.sqrt(np.mean(np.square(claimed), axis=0)) / np.std(spread, axis=0)
    assert 0.9 < ratio.mean() < 1.1
    every = removals.Samples(SET, key=KEY, draws=len(SET))
    np.testing.assert_array_equal(removals.StandardErrors(CLASSIFIER, every)(IMAGE, MASKS), 0)


@pytest.mark.parametrize(
    ("images", "draws", "message"),
    [
        (SET[0], 1, r"images must be images \[M, H, W, C\]"),
        (255 * SET, 1, "images must hold display colours"),
        (SET, 8, r"draws must be a whole number, 7 or less \(the images there are"),
        (None, 33, "draws must be a whole number, 32 or less"),
        (SET, 0, "draws must be a whole number, 1 or more"),
    ],
)
def test_bad_sets_are_errors(images, draws, message):
    with pytest.raises(ValueError, match=message):
        lmjax.Samples(images, key=KEY, draws=draws)


def test_a_set_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"images must have shape .* to match the image"):
        lmjax.Predictor(CLASSIFIER, lmjax.Samples(SET[:, 1:], key=KEY, draws=1))(IMAGE, MASKS)
    with pytest.raises(ValueError, match="a picture of 2 channels"):
        removals.make("samples", key=KEY).paint(IMAGE[..., :2], MASKS)
