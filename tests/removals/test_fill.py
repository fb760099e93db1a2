"""Fills: functions of image, mask and key in the place of hidden pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from tests.support.small_classifier import small_classifier

H, W, C = 8, 6, 3
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W, C)).astype(np.float32)
MASKS = RNG.random((9, H, W)) < 0.5
KEY = jax.random.key(7)


def visible_mean(image, mask, key):
    """The mean colour of what is visible; hidden pixels are 0."""
    mean = image.sum(axis=(0, 1)) / jnp.maximum(mask.sum(), 1)
    return jnp.broadcast_to(mean, image.shape)


def noise(image, mask, key):
    return jax.random.uniform(key, image.shape)


def painted_by_loop(image, masks):
    """Oracle of `visible_mean`: one variant after the other, in NumPy."""
    out = np.repeat(image[None], len(masks), axis=0)
    for picture, mask in zip(out, masks):
        picture[~mask] = image[mask].mean(axis=0)
    return out


def test_hidden_pixels_hold_the_function_and_visible_ones_the_image():
    painted = np.asarray(lmjax.Fill(visible_mean).paint(IMAGE, MASKS))
    np.testing.assert_allclose(painted, painted_by_loop(IMAGE, MASKS), atol=1e-6)
    np.testing.assert_array_equal(painted[MASKS], np.broadcast_to(IMAGE, painted.shape)[MASKS])


def test_the_function_sees_the_mask_the_key_and_no_hidden_pixel():
    seen = []

    def spy(image, mask, key):
        seen.append((image.shape, mask.shape, mask.dtype, key))
        return jnp.where(mask[..., None], 0, image + 0.25)  # changes visible pixels too

    painted = np.asarray(lmjax.Fill(spy).paint(IMAGE, MASKS))
    assert seen == [((H, W, C), (H, W), bool, None)]
    np.testing.assert_array_equal(painted[MASKS], np.broadcast_to(IMAGE, painted.shape)[MASKS])
    np.testing.assert_array_equal(painted[~MASKS], 0.25)


def test_what_lies_under_the_mask_is_never_read():
    dirty = np.where(MASKS.any(axis=0)[..., None], IMAGE, np.nan)
    masks = MASKS.copy()
    masks[:, 0, 0], dirty[0, 0] = False, np.inf
    predictor = lmjax.Predictor(small_classifier(), lmjax.Fill(visible_mean))
    clean = lmjax.evaluate(predictor, IMAGE, masks)
    np.testing.assert_array_equal(lmjax.evaluate(predictor, dirty, masks), clean)
    assert np.isfinite(clean).all()
    gradient = jax.grad(lambda image: predictor(image, masks).sum())(jnp.asarray(dirty))
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~masks.any(axis=0)] == 0).all()


def test_logits_are_the_classifiers_answers_to_the_painted_images():
    classifier = small_classifier((H, W, C))
    mean, std = classifier.preprocessing
    normalised = (painted_by_loop(IMAGE, MASKS) - mean) / std
    weights = np.asarray(classifier.weights, np.float64)
    expected = np.tanh(np.einsum("nhwc,hwck->nk", normalised, weights))
    predictor = lmjax.Predictor(classifier, lmjax.Fill(visible_mean))
    np.testing.assert_allclose(predictor(IMAGE, MASKS), expected, atol=1e-5)
    jitted = jax.jit(lambda p, image, masks: p(image, masks))(predictor, IMAGE, MASKS)
    np.testing.assert_allclose(jitted, expected, atol=1e-5)
    one_by_one = jax.vmap(predictor, in_axes=(None, 0))(IMAGE, MASKS)
    np.testing.assert_allclose(one_by_one, expected, atol=1e-5)
    images, image_of = np.stack([IMAGE, IMAGE / 2]), np.zeros(len(MASKS), int)
    logits = lmjax.Evaluator(predictor).images(images, MASKS, image_of=image_of)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_all_variants_share_the_key_so_batch_sizes_change_nothing(size):
    fill = lmjax.Fill(noise, key=KEY)
    expected = np.where(MASKS[..., None], IMAGE, jax.random.uniform(KEY, IMAGE.shape))
    np.testing.assert_array_equal(fill.paint(IMAGE, MASKS), expected)
    predictor = lmjax.Predictor(small_classifier(), fill)
    logits = lmjax.evaluate(predictor, IMAGE, MASKS, batch_size=size)
    np.testing.assert_allclose(logits, predictor(IMAGE, MASKS), atol=1e-6)


def test_the_key_is_a_leaf_and_the_function_is_not():
    assert jax.tree.leaves(lmjax.Fill(noise)) == []
    assert len(jax.tree.leaves(lmjax.Fill(noise, key=KEY))) == 1
    classifier = small_classifier()
    run = jax.jit(lambda predictor: predictor(IMAGE, MASKS))
    first, second = (
        run(lmjax.Predictor(classifier, lmjax.Fill(noise, key=jax.random.key(seed))))
        for seed in (0, 1)
    )
    assert len(classifier.traces) == 1
    assert abs(first - second).max() > 0.01
    inpainter = jax.tree_util.Partial(lambda weight, image, mask, key: weight + 0 * image, 0.5)
    assert len(jax.tree.leaves(lmjax.Fill(inpainter))) == 1
    painted = np.asarray(lmjax.Fill(inpainter).paint(IMAGE, MASKS))
    np.testing.assert_array_equal(painted[~MASKS], 0.5)


def test_soft_masks_are_refused():
    predictor = lmjax.Predictor(small_classifier(), lmjax.Fill(visible_mean))
    with pytest.raises(ValueError, match=r"only 0 \(hidden\) and 1 \(visible\)"):
        predictor(IMAGE, np.full((1, H, W), 0.5, np.float32))


def test_bad_functions_are_errors():
    with pytest.raises(ValueError, match=r"function must be callable.*lmjax\.Replace"):
        lmjax.Fill(IMAGE)
    wrong = lmjax.Fill(lambda image, mask, key: image[:2])
    with pytest.raises(
        ValueError, match=r"must return an image \[8, 6, 3\], got shape \[2, 6, 3\]"
    ):
        wrong.paint(IMAGE, MASKS)


@pytest.mark.parametrize(
    "function",
    [
        lambda image, mask, key: np.asarray(image),
        lambda image, mask, key: image if mask[0, 0] else image + 1,
        lambda image, mask, key: image * float(mask.sum()),
    ],
)
def test_a_function_that_is_not_jax_says_what_to_do(function):
    with pytest.raises(ValueError, match=r"function of lmjax.Fill .*lmjax\.black_box\(function\)"):
        lmjax.Fill(function).paint(IMAGE, MASKS)


def test_repr_is_short():
    assert repr(lmjax.Fill(noise)) == "Fill(noise)"
    assert len(repr(lmjax.Fill(jax.tree_util.Partial(noise, IMAGE), key=KEY))) < 200
