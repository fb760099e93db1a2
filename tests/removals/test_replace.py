import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from lmjax.removals.replace import BASELINES, Replace
from tests.support.small_classifier import small_classifier

H, W, C = 9, 7, 3
MEAN = (0.5, 0.4, 0.3)
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W, C)).astype(np.float32)
MASKS = RNG.random((4, H, W)) < 0.5
SEGMENTS = np.arange(H * W).reshape(H, W) // 11
KEY = jax.random.key(3)


def test_american_spelling():
    assert Replace("gray").baseline == "grey"
    assert Replace("gray_smooth").baseline == "grey_smooth"


def test_the_old_name_of_paint_says_the_new_one():
    with pytest.raises(AttributeError, match=r"Replace\.fill is gone; use Replace\.paint"):
        _ = Replace("grey").fill
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = Replace("grey").nothing


def test_repr_is_short_even_with_an_image():
    values = f"from {OTHER.min():.4g} to {OTHER.max():.4g}"
    assert repr(Replace(OTHER)) == f"Replace(float32[9, 7, 3] {values})"
    assert repr(Replace("blur", sigma=5.0)) == "Replace('blur', sigma=5.0)"
    assert repr(Replace((0.0, 1.0, 0.0))) == "Replace([0.0, 1.0, 0.0])"
    assert "key=" in repr(Replace("uniform_noise", key=KEY))


def make(baseline, **options):
    return Replace(baseline, key=KEY, segments=SEGMENTS, **options)


def select(picture):
    """Oracle: pixel by pixel, the image where the mask shows it, the picture elsewhere."""
    out = np.empty((len(MASKS), H, W, C), np.float32)
    for n, row, column in np.ndindex(MASKS.shape):
        out[n, row, column] = (IMAGE if MASKS[n, row, column] else picture)[row, column]
    return out


def segment_means():
    out = np.empty_like(IMAGE)
    for label in np.unique(SEGMENTS):
        out[label == SEGMENTS] = IMAGE[label == SEGMENTS].mean(axis=0)
    return out


def blurred(sigma):
    """Normalised convolution by scipy: zeros outside the picture count neither here nor there."""
    options = {"sigma": sigma, "mode": "constant", "truncate": 20, "axes": (0, 1)}
    inside = ndimage.gaussian_filter(np.ones((H, W, C)), **options)
    return ndimage.gaussian_filter(IMAGE.astype(np.float64), **options) / inside


def blurred_by_rise():
    """`gkern(11, 5)` of RISE's code, by whose convolution normalised images are blurred."""
    pixel = np.zeros((11, 11))
    pixel[5, 5] = 1
    kernel = ndimage.gaussian_filter(pixel, 5)
    assert kernel[0, 0] == pytest.approx(0.0077, abs=1e-4)  # a Gaussian that ends there has .0044
    around = IMAGE.astype(np.float64) - MEAN
    return ndimage.convolve(around, kernel[..., None], mode="constant") + MEAN


OTHER = RNG.random((H, W, C))
STEPS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
PICTURES = {
    "black": ("black", np.zeros((H, W, C))),
    "white": ("white", np.ones((H, W, C))),
    "grey": ("grey", np.full((H, W, C), MEAN)),
    "image_mean": ("image_mean", np.full((H, W, C), IMAGE.reshape(-1, C).mean(axis=0))),
    "segment_mean": ("segment_mean", segment_means()),
    "blur": ("blur", blurred(10.0)),
    "rise_blur": ("rise_blur", blurred_by_rise()),
    "colour": ((0.1, 0.2, 0.9), np.full((H, W, C), (0.1, 0.2, 0.9))),
    "integer colour": ((0, 1, 0), np.full((H, W, C), (0.0, 1.0, 0.0))),
    "another image": (OTHER, OTHER),
    "another image on the device": (jnp.asarray(OTHER), OTHER),
    "function": (lambda image: image[::-1], IMAGE[::-1]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_hidden_pixels_hold_the_baseline_and_visible_ones_the_image(name):
    baseline, picture = PICTURES[name]
    filled = make(baseline).paint(IMAGE, MASKS, MEAN)
    np.testing.assert_allclose(filled, select(picture), atol=2e-6)
    np.testing.assert_array_equal(np.asarray(filled)[MASKS], select(picture)[MASKS])


def test_blur_of_limited_reach():
    """Against a plain loop over the 3 x 3 neighbours inside the picture."""
    weight = np.exp(-0.5 * np.array([[2, 1, 2], [1, 0, 1], [2, 1, 2]]) / 0.7**2)
    expected = np.zeros((H, W, C))
    for row, column in np.ndindex(H, W):
        near = [(row + i, column + j, weight[i + 1, j + 1]) for i, j in STEPS]
        near = [(i, j, w) for i, j, w in near if 0 <= i < H and 0 <= j < W]
        total = sum(w * IMAGE[i, j].astype(float) for i, j, w in near)
        expected[row, column] = total / sum(w for *_, w in near)
    filled = make("blur", sigma=0.7, radius=1).paint(IMAGE, MASKS)
    np.testing.assert_allclose(filled, select(expected), atol=2e-6)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_blur_of_another_width(sigma):
    filled = make("blur", sigma=sigma).paint(IMAGE, MASKS)
    np.testing.assert_allclose(filled, select(blurred(sigma)), atol=2e-6)


def test_grey_smooth_is_a_5x5_gaussian_inside_the_hidden_region():
    grey = select(np.full((H, W, C), MEAN)).astype(np.float64)
    options = {"sigma": 1, "radius": 2, "mode": "constant", "axes": (1, 2)}
    smooth = ndimage.gaussian_filter(grey, **options)
    smooth /= ndimage.gaussian_filter(np.ones_like(grey), **options)
    expected = np.where(MASKS[..., None], IMAGE, smooth)
    filled = make("grey_smooth").paint(IMAGE, MASKS, MEAN)
    np.testing.assert_allclose(filled, expected, atol=2e-6)
    assert abs(np.asarray(filled) - grey)[~MASKS].max() > 0.05


def test_noise_has_the_stated_distribution():
    image = np.zeros((200, 200, 3), np.float32)
    hidden = np.zeros((1, 200, 200), bool)
    uniform = np.asarray(make("uniform_noise").paint(image, hidden))
    np.testing.assert_allclose([uniform.mean(), uniform.std()], [0.5, 12**-0.5], atol=0.005)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    gaussian = np.asarray(make("gaussian_noise", noise_std=0.1).paint(image, hidden))
    np.testing.assert_allclose([gaussian.mean(), gaussian.std()], [0.5, 0.1], atol=0.002)
    wide = np.asarray(make("gaussian_noise", noise_std=1.0).paint(image, hidden))
    np.testing.assert_allclose((wide == 0).mean(), 0.3085, atol=0.01)  # P(N(0.5, 1) < 0)
    for noise in (uniform, gaussian):
        channels = np.corrcoef(noise.reshape(-1, 3).T)
        assert abs(channels - np.eye(3)).max() < 0.02


@pytest.mark.parametrize("name", ["gaussian_noise", "uniform_noise"])
def test_noise_depends_on_the_key_alone(name):
    hidden = np.zeros((2, H, W), bool)
    one = np.asarray(Replace(name, key=jax.random.key(1)).paint(IMAGE, hidden))
    again = np.asarray(Replace(name, key=jax.random.key(1)).paint(1 - IMAGE, hidden))
    other = np.asarray(Replace(name, key=jax.random.key(2)).paint(IMAGE, hidden))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one[0], one[1])
    assert (one != other).mean() > 0.9


@pytest.mark.parametrize("name", ["black", "white", "grey", "grey_smooth", "uniform_noise"])
@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_hidden_nan_and_infinity_change_no_bit(name, dtype):
    classifier = small_classifier((H, W, C))
    dirty = IMAGE.copy()
    dirty[~MASKS.any(axis=0)] = np.nan
    dirty[0, 0] = np.inf
    masks = MASKS.copy()
    masks[:, 0, 0] = False
    assert np.isnan(dirty).any()
    logits = [make(name).logits(classifier, each, masks.astype(dtype)) for each in (IMAGE, dirty)]
    np.testing.assert_array_equal(*logits)
    assert np.isfinite(logits[0]).all()


@pytest.mark.parametrize("name", BASELINES)
def test_soft_masks_blend(name):
    soft = RNG.random((3, H, W)).astype(np.float32)
    hidden = np.zeros((1, H, W), bool)
    if name == "grey_smooth":
        grey = Replace("grey").paint(IMAGE, soft, MEAN)
        picture = ndimage.gaussian_filter(
            np.asarray(grey), sigma=1, radius=2, axes=(1, 2), mode="reflect"
        )
        inner = (slice(None), slice(2, -2), slice(2, -2))  # borders differ by definition
    else:
        picture, inner = make(name).paint(IMAGE, hidden, MEAN), ...
    expected = soft[..., None] * IMAGE[None] + (1 - soft[..., None]) * picture
    filled = make(name).paint(IMAGE, soft, MEAN)
    np.testing.assert_allclose(filled[inner], expected[inner], atol=2e-6)


def test_float_masks_of_0_and_1_are_bool_masks():
    np.testing.assert_array_equal(
        make("blur").paint(IMAGE, MASKS.astype(np.float32)), make("blur").paint(IMAGE, MASKS)
    )


def test_gradient_with_respect_to_a_soft_mask_is_image_minus_baseline():
    for value in (0.0, 0.5, 1.0):
        mask = jnp.full((1, H, W), value)
        gradient = jax.grad(lambda m: Replace("white").paint(IMAGE, m).sum())(mask)
        np.testing.assert_allclose(gradient[0], (IMAGE - 1).sum(axis=-1), atol=1e-5)


def test_gradients_with_respect_to_image_and_baseline_are_finite_under_nan():
    dirty = np.where(MASKS[0][..., None], IMAGE, np.nan)

    def total(image, replace):
        return (replace.paint(image, MASKS[:1]) ** 2).sum()

    image, replace = jax.grad(total, argnums=(0, 1))(jnp.asarray(dirty), Replace(OTHER))
    np.testing.assert_allclose(image, np.where(MASKS[0][..., None], 2 * IMAGE, 0), atol=1e-6)
    expected = np.where(MASKS[0][..., None], 0, 2 * OTHER)
    np.testing.assert_allclose(replace.baseline, expected, atol=1e-6)


def test_logits_are_the_classifiers_answers_to_the_normalised_pictures():
    classifier = small_classifier((H, W, C))
    replace = Replace("grey")
    images = np.asarray(replace.paint(IMAGE, MASKS, MEAN))
    normalised = (images - np.array(MEAN)) / np.array(classifier.preprocessing.std)
    flat = normalised.reshape(len(MASKS), -1) @ np.asarray(classifier.weights).reshape(
        H * W * C, -1
    )
    np.testing.assert_allclose(
        replace.logits(classifier, IMAGE, MASKS), np.tanh(flat), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", PICTURES)
def test_jit_vmap_and_a_round_trip_as_a_pytree_change_nothing(name):
    replace = make(PICTURES[name][0])
    expected = replace.paint(IMAGE, MASKS, MEAN)
    jitted = jax.jit(lambda r, image, masks: r.paint(image, masks, MEAN))
    np.testing.assert_allclose(jitted(replace, IMAGE, MASKS), expected, atol=1e-6)
    images = jnp.stack([jnp.asarray(IMAGE)] * 2)
    mapped = jax.vmap(jitted, in_axes=(None, 0, None))(replace, images, MASKS)
    np.testing.assert_allclose(mapped[1], expected, atol=1e-6)
    again = jax.tree.unflatten(jax.tree.structure(replace), jax.tree.leaves(replace))
    np.testing.assert_array_equal(again.paint(IMAGE, MASKS, MEAN), expected)


def test_arrays_are_leaves_and_names_and_functions_are_not():
    assert jax.tree.leaves(Replace("grey")) == []
    assert jax.tree.leaves(Replace(lambda image: image)) == []
    assert len(jax.tree.leaves(Replace(OTHER))) == 1
    inpainter = jax.tree_util.Partial(lambda weight, image: weight * image, jnp.array(0.5))
    replace = Replace(inpainter)
    assert len(jax.tree.leaves(replace)) == 1
    np.testing.assert_allclose(replace.paint(IMAGE, MASKS), select(IMAGE / 2), atol=1e-6)


def test_pictures_of_one_channel():
    image, mask = IMAGE[..., :1], MASKS[:1]
    for name in ("black", "blur", "segment_mean", "uniform_noise"):
        assert make(name).paint(image, mask).shape == (1, H, W, 1)
    assert make("grey").paint(image, mask, (0.5,)).shape == (1, H, W, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("grau",), {}, "must be one of black, white, grey, .*got 'grau'"),
        (("uniform_noise",), {}, "needs key="),
        (("gaussian_noise",), {}, "needs key="),
        (("segment_mean",), {}, "needs segments="),
        (("segment_mean",), {"segments": np.zeros(3, int)}, r"segments must be \[H, W\]"),
        (("segment_mean",), {"segments": np.full((2, 2), 7)}, "ints from 0 to S - 1"),
        (("segment_mean",), {"segments": np.zeros((2, 2))}, "ints from 0 to S - 1"),
        (("blur",), {"sigma": 0}, "sigma must be a finite number above 0"),
        (("blur",), {"radius": -1}, "radius must be a whole number, 0 or more"),
        (
            ("gaussian_noise",),
            {"key": KEY, "noise_std": -1},
            "noise_std must be a finite number above 0",
        ),
        ((0.5,), {}, r"array of shape \(\)"),
        ((np.zeros((4, 4)),), {}, r"array of shape \(4, 4\)"),
        (((128, 128, 128),), {}, "divide 0..255 by 255"),
        (((0.5, np.nan, 0.5),), {}, "NaN"),
        (((True, False, True),), {}, "colour of C floats"),
        ((np.zeros((4, 4, 3), np.uint8),), {}, "divide 0..255 by 255"),
    ],
)
def test_bad_baselines_are_errors(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        Replace(*arguments, **options)


@pytest.mark.parametrize(
    ("replace", "mean", "message"),
    [
        (Replace((0.5, 0.5)), None, r"baseline must have shape \(3,\)"),
        (Replace(np.zeros((4, 4, 3))), None, r"baseline must have shape \(9, 7, 3\)"),
        (Replace(lambda image: image[:2]), None, "function's result must have shape"),
        (Replace("grey"), None, "mean is needed"),
        (Replace("grey"), (0.5,), r"mean must have shape \(3,\)"),
        (Replace("segment_mean", segments=SEGMENTS[:2]), None, "segments must have shape"),
    ],
)
def test_what_does_not_match_the_image_is_an_error(replace, mean, message):
    with pytest.raises(ValueError, match=message):
        replace.paint(IMAGE, MASKS, mean)


def test_bad_images_and_masks_are_errors():
    with pytest.raises(ValueError, match="uint8"):
        Replace("black").paint(np.zeros((H, W, C), np.uint8), MASKS)
    with pytest.raises(ValueError, match=r"values from 0 to 1, got 1\.5"):
        Replace("black").paint(IMAGE, np.full((1, H, W), 1.5))
    with pytest.raises(ValueError, match="masks must be"):
        Replace("black").paint(IMAGE, MASKS[0])
