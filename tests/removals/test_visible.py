"""Fills from what is visible: ring, noisy_linear and histogram, and what all fills promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax import removals
from lmjax.removals import visible
from lmjax.removals.removal import declared
from lmjax.training import augmentation
from tests.support.compilations import quick_jit
from tests.support.optional import marked
from tests.support.small_classifier import small_classifier

H, W, C = 14, 11, 3
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W, C)).astype(np.float32)
MASKS = RNG.random((5, H, W)) < np.array([0.02, 0.2, 0.4, 0.6, 0.8])[:, None, None]
MASKS[:, 3, 3] = True
KEY = jax.random.key(4)
FILLS = ("ring", "harmonic", "noisy_linear", "histogram", "biharmonic", "telea", "navier_stokes")
ALL = marked((*FILLS, "samples"))


def paint(name, image=IMAGE, masks=MASKS, mean=None, key=KEY):
    return np.asarray(removals.make(name, key=key).paint(image, masks, mean))


def rings_by_loop(image, mask):
    """Oracle: ring after ring, pixel by pixel."""
    filled, known = np.where(mask[..., None], image, 0).astype(np.float64), mask.copy()
    while not known.all():
        before, known_before = filled.copy(), known.copy()
        for row, column in np.argwhere(~known_before):
            near = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
            if known_before[near].any():
                filled[row, column] = before[near][known_before[near]].mean(axis=0)
                known[row, column] = True
    return filled


def test_ring_is_neighbor_padding_until_nothing_is_hidden():
    expected = [rings_by_loop(IMAGE, mask) for mask in MASKS]
    np.testing.assert_allclose(paint("ring"), expected, atol=1e-6)
    masks = jnp.asarray(MASKS)
    known = jnp.where(masks[..., None], IMAGE[None], 0)
    np.testing.assert_allclose(
        paint("ring"), lmjax.masking.neighbor_padding(known, masks, rings=H + W), atol=1e-6
    )


@pytest.mark.parametrize("name", removals.names())
def test_none_waits_for_threads_of_the_pool_that_devices_of_a_cpu_share(name):
    """As LAPACK's solvers do: on as many devices as cores they would wait for ever."""
    removal = removals.make(name, key=KEY, segments=np.zeros((16, 16), int))
    if name in ("biharmonic", "telea", "navier_stokes") or not hasattr(removal, "paint"):
        pytest.skip("paints in Python, or not at all")
    paint = jax.jit(functools.partial(removal.paint, mean=(0.5, 0.5, 0.5)))
    lowered = paint.lower(jnp.zeros((16, 16, 3)), jnp.ones((2, 16, 16), bool))
    assert "lapack" not in lowered.as_text()
    solved = jax.jit(lambda x: jnp.linalg.cholesky(x)).lower(jnp.eye(3))
    assert "lapack" in solved.as_text()


def test_ring_is_constant_with_respect_to_gradients():
    def total(image):
        return removals.make("ring").paint(image, MASKS).sum()

    np.testing.assert_allclose(
        jax.grad(total)(jnp.asarray(IMAGE))[..., 0], MASKS.sum(axis=0), atol=1e-6
    )


def test_noisy_linear_is_harmonic_with_a_little_noise():
    image = (0.3 + 0.4 * IMAGE).repeat(6, 0).repeat(6, 1)
    mask = RNG.random((1, 6 * H, 6 * W)) < 0.3
    noisy = paint("noisy_linear", image, mask)
    noise = noisy - paint("harmonic", image, mask)
    assert (noise[mask] == 0).all()
    hidden = noise[~mask]
    np.testing.assert_allclose(hidden.mean(axis=0), 0, atol=6e-4)
    np.testing.assert_allclose(hidden.std(axis=0), 0.01, rtol=0.05)
    assert abs(np.corrcoef(hidden.T) - np.eye(3)).max() < 0.05
    other = paint("noisy_linear", image, mask, key=jax.random.key(5))
    assert (other != noisy)[~mask].mean() > 0.9


def test_histogram_draws_whole_colours_as_often_as_they_are_visible():
    colours = np.array([[0.1, 0.9, 0.2], [0.5, 0.5, 0.5], [0.9, 0.0, 0.4]], np.float32)
    shares = np.array([0.6, 0.3, 0.1])
    image = colours[RNG.choice(3, (120, 120), p=shares)]
    mask = np.zeros((1, 120, 120), bool)
    mask[:, :50] = True
    image[50:] = 0.77
    drawn = paint("histogram", image, mask)[0, 50:]
    which = (drawn[..., None, :] == colours).all(axis=-1)
    assert which.any(axis=-1).all()
    expected = [(image[:50] == colour).all(axis=-1).mean() for colour in colours]
    np.testing.assert_allclose(which.mean(axis=(0, 1)), expected, atol=0.02)
    beside = (which[:, 1:] & which[:, :-1]).mean(axis=(0, 1))  # independent of the neighbour
    np.testing.assert_allclose(beside, np.square(expected), atol=0.02)


def painting_without_hidden():
    """Names of all removals that paint and promise not to read hidden pixels."""
    segments = np.zeros((H, W), int)
    made = {
        name: removals.make(name, key=KEY, segments=segments)
        for name in removals.names()
        if removals.paints(name)
    }
    return [name for name, removal in made.items() if not declared(removal, "reads_hidden")]


def darkest(images, masks):
    """A fill in NumPy: the darkest colour that is visible."""
    pairs = zip(images, masks)
    return np.stack([np.where(mask[..., None], image, image[mask].min()) for image, mask in pairs])


MADE = {
    "calibrated": lambda: removals.Calibrated(removals.make("ring"), jnp.eye(4), jnp.ones(4)),
    "several draws": lambda: lmjax.Fill(visible.histogram, key=KEY, draws=3),
    "black box": lambda: lmjax.Fill(lmjax.black_box(darkest)),
}


@pytest.mark.parametrize("name", [*marked(painting_without_hidden()), *MADE])
def test_hidden_pixels_are_never_read(name):
    dirty, masks = IMAGE.copy(), MASKS.copy()
    masks[:, 5:9, 2:6] = False
    dirty[5:9, 2:6] = np.nan
    dirty[6, 3] = np.inf
    removal = MADE[name]() if name in MADE else removals.make(name, key=KEY)
    predictor = lmjax.Predictor(small_classifier((H, W, C)), removal)
    clean = lmjax.evaluate(predictor, IMAGE, masks)
    np.testing.assert_array_equal(lmjax.evaluate(predictor, dirty, masks), clean)
    assert np.isfinite(clean).all()
    if name not in MADE:
        painted = (paint(name, image, masks, (0.5, 0.4, 0.3)) for image in (dirty, IMAGE))
        np.testing.assert_array_equal(*painted)


def test_all_fills_promise_it():
    assert {*FILLS, "samples", "grey"} <= set(painting_without_hidden())


@pytest.mark.parametrize("name", ALL)
def test_results_are_colours_and_visible_pixels_are_the_images(name):
    painted = paint(name)
    assert painted.shape == (len(MASKS), H, W, C)
    assert painted.min() >= 0
    assert painted.max() <= 1
    np.testing.assert_array_equal(painted[MASKS], np.broadcast_to(IMAGE, painted.shape)[MASKS])
    assert (painted[~MASKS] != 0).any()


@pytest.mark.parametrize("name", ALL)
def test_the_same_call_gives_the_same_bits_in_any_batch(name):
    predictor = lmjax.Predictor(small_classifier((H, W, C)), removals.make(name, key=KEY))
    logits = lmjax.evaluate(predictor, IMAGE, MASKS, batch_size=2)
    np.testing.assert_array_equal(lmjax.evaluate(predictor, IMAGE, MASKS, batch_size=2), logits)
    np.testing.assert_allclose(lmjax.evaluate(predictor, IMAGE, MASKS), logits, atol=1e-4)
    np.testing.assert_allclose(
        quick_jit(jax.vmap(predictor, in_axes=(None, 0)))(IMAGE, MASKS), logits, atol=1e-4
    )


@pytest.mark.parametrize("name", marked(FILLS))
def test_where_nothing_is_visible_is_the_mean_colour(name):
    masks = np.stack([np.zeros((H, W), bool), np.ones((H, W), bool), MASKS[2]])
    mean = (0.2, 0.3, 0.4)
    painted = paint(name, masks=masks, mean=mean)
    np.testing.assert_array_equal(painted[0], np.broadcast_to(np.float32(mean), IMAGE.shape))
    np.testing.assert_array_equal(painted[1], IMAGE)
    usual = paint(name, masks=masks)
    np.testing.assert_array_equal(usual[0], 0.5)
    np.testing.assert_array_equal(usual[2], painted[2])
    classifier = small_classifier((H, W, C))
    logits = lmjax.Predictor(classifier, removals.make(name, key=KEY))(IMAGE, masks)
    np.testing.assert_allclose(logits[:1], lmjax.Predictor(classifier, "grey")(IMAGE, masks[:1]))


@pytest.mark.parametrize("name", ALL)
def test_every_fill_is_an_augmentation(name):
    size, count, channels = 28, 3, 3
    images = jnp.asarray(RNG.random((count, size, size, channels)), jnp.float32)
    examples = augmentation.Examples(images, jnp.eye(count))

    @jax.jit
    def augment(key):
        return augmentation.augment(
            examples, [f"patches:{name}"], (0.5,) * channels, key=key
        ).images

    images = np.asarray(augment(KEY))
    np.testing.assert_array_equal(images, augment(KEY))
    changed = (images != np.asarray(examples.images)).any(axis=-1)
    assert (changed.mean(axis=(1, 2)) > 0.2).all()
    assert np.isfinite(images).all()


def test_functions_are_lmjax_fill_functions():
    fill = lmjax.Fill(visible.harmonic)
    np.testing.assert_array_equal(fill.paint(IMAGE, MASKS), paint("harmonic"))
    assert repr(removals.make("harmonic")) == "Fill(harmonic)"
    assert "draws=4" in repr(lmjax.Fill(visible.histogram, key=KEY, draws=4))
