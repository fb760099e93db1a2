"""Fills: functions of image, mask and key in the place of hidden pixels."""

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


# -- results that are no image


BAD = {
    "NaN": (lambda image, mask, key: jnp.full(image.shape, jnp.nan), "holds NaN or infinity"),
    "too bright": (lambda image, mask, key: image + 2, r"colours in \[0, 1\], got .*to 2"),
    "negative": (
        lambda image, mask, key: image - 0.5,
        r"colours in \[0, 1\], got values from -0.5",
    ),
    "bytes": (lambda image, mask, key: jnp.ones(image.shape, jnp.uint8), "got dtype uint8"),
    "shape": (lambda image, mask, key: image[..., :1], r"an image \[8, 6, 3\], got shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_results_that_are_no_image_are_errors_in_compiled_programs(name):
    function, message = BAD[name]
    predictor = lmjax.Predictor(small_classifier(), lmjax.Fill(function))
    with pytest.raises(ValueError, match=message):
        lmjax.evaluate(predictor, IMAGE, MASKS)


def test_the_same_holds_for_black_boxes_and_their_own_errors_are_shown():
    def broken(images, masks):
        if (~masks).any():
            raise KeyError("no such layer")
        return images

    cases = ((broken, r"BlackBox\(.*broken\) raised KeyError .*no such layer"),)
    cases += ((lambda images, masks: images + 3 * ~masks[..., None], r"in \[0, 1\], got .*to 3"),)
    for function, message in cases:
        predictor = lmjax.Predictor(small_classifier(), lmjax.Fill(lmjax.black_box(function)))
        with pytest.raises(ValueError, match=message):
            lmjax.evaluate(predictor, IMAGE, MASKS)
    after = lmjax.evaluate(lmjax.Predictor(small_classifier(), "grey"), IMAGE, MASKS)
    assert np.isfinite(after).all()  # the process goes on


def test_what_is_not_taken_is_not_checked():
    def wild_where_visible(image, mask, key):
        return jnp.where(mask[..., None], jnp.nan, jnp.full(image.shape, 0.5))

    masks = np.concatenate([MASKS, np.zeros((1, H, W), bool), np.ones((1, H, W), bool)])
    predictor = lmjax.Predictor(small_classifier(), lmjax.Fill(wild_where_visible))
    expected = lmjax.Predictor(small_classifier(), lmjax.Replace((0.5, 0.5, 0.5)))(IMAGE, masks)
    logits = lmjax.evaluate(predictor, IMAGE, masks)
    np.testing.assert_allclose(logits[:-2], expected[:-2], atol=1e-5)
    np.testing.assert_allclose(logits[-1], expected[-1], atol=1e-5)


def test_where_nothing_is_visible_the_function_is_not_taken():
    hidden = np.zeros((1, H, W), bool)
    fill = lmjax.Fill(lambda image, mask, key: image / mask.sum())  # 0 / 0
    painted = fill.paint(IMAGE, hidden, (0.1, 0.2, 0.3))
    np.testing.assert_array_equal(painted[0, 2, 2], np.float32([0.1, 0.2, 0.3]))
    predictor, grey = (lmjax.Predictor(small_classifier(), each) for each in (fill, "grey"))
    np.testing.assert_allclose(
        lmjax.Evaluator(predictor).images(IMAGE[None], hidden, image_of=[0]),
        lmjax.Evaluator(grey).images(IMAGE[None], hidden, image_of=[0]),
    )


# -- several draws


def test_probabilities_of_several_draws_are_averaged():
    """Against a loop over the keys, and the standard errors against NumPy."""
    classifier = small_classifier()
    fill = lmjax.Fill(noise, key=KEY, draws=5)
    keys = jax.random.split(KEY, 5)
    answers = [
        lmjax.Predictor(classifier, lmjax.Fill(noise, key=key))(IMAGE, MASKS) for key in keys
    ]
    probabilities = np.array(jax.nn.softmax(jnp.stack(answers)))
    assert probabilities.std(axis=0).max() > 0.01
    logits = lmjax.evaluate(lmjax.Predictor(classifier, fill), IMAGE, MASKS, batch_size=4)
    np.testing.assert_allclose(np.exp(logits), probabilities.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(fill.answers(classifier, IMAGE, MASKS), answers, atol=1e-5)
    errors = lmjax.evaluate(removals.StandardErrors(classifier, fill), IMAGE, MASKS, batch_size=4)
    expected = probabilities.std(axis=0, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(errors, expected, atol=1e-6)
    np.testing.assert_array_equal(
        fill.paint(IMAGE, MASKS), lmjax.Fill(noise, key=keys[0]).paint(IMAGE, MASKS)
    )


def test_draws_of_a_black_box():
    def salt(images, masks, keys):
        draws = [np.random.default_rng(each).random((H, W, C)) for each in keys]
        return np.round(draws)

    classifier = small_classifier()
    fill = lmjax.Fill(lmjax.black_box(salt), key=KEY, draws=3)
    logits = lmjax.evaluate(lmjax.Predictor(classifier, fill), IMAGE, MASKS)
    parts = []
    for key in jax.random.split(KEY, 3):
        picture = np.round(
            np.random.default_rng(np.asarray(jax.random.key_data(key))).random((H, W, C))
        )
        parts.append(lmjax.Predictor(classifier, lmjax.Replace(picture))(IMAGE, MASKS))
    expected = jax.nn.softmax(jnp.stack(parts)).mean(axis=0)
    np.testing.assert_allclose(np.exp(logits), expected, atol=1e-6)


def test_bad_draws_are_errors():
    with pytest.raises(ValueError, match="draws must be a whole number, 1 or more"):
        lmjax.Fill(noise, key=KEY, draws=0)
    with pytest.raises(ValueError, match=r"3 draws need key=jax\.random\.key"):
        lmjax.Fill(noise, draws=3)
    one = removals.StandardErrors(small_classifier(), lmjax.Fill(noise, key=KEY))
    with pytest.raises(ValueError, match="draws must be 2 or more for a standard error"):
        one(IMAGE, MASKS)
    with pytest.raises(ValueError, match=r"averages over draws.*got Replace\('grey'\)"):
        removals.StandardErrors(small_classifier(), lmjax.Replace("grey"))


def test_repr_is_short():
    assert repr(lmjax.Fill(noise)) == "Fill(noise)"

    def with_picture(picture, image, mask, key):
        return picture

    assert len(repr(lmjax.Fill(jax.tree_util.Partial(with_picture, IMAGE), key=KEY))) < 200


@pytest.mark.parametrize("function", [lambda image, mask: image, lambda: 0])
def test_fills_take_three_arguments(function):
    with pytest.raises(ValueError, match=r"function must take \(image, mask, key\)"):
        lmjax.Fill(function)
