"""Functions under `lmjax.layer_mask`: images, masks, weights, and what must hold of them."""

import contextlib

import jax
import numpy as np
from jax import lax

from lmjax.masking.transform import layer_mask
from tests.support import layer_masking_reference as reference
from tests.support.compilations import quick_jit

SIZE = (12, 14)
CHANNELS = 8
CLASSES = 5
ALL, NOTHING = 5, 6
_NHWC = ("NHWC", "HWIO", "NHWC")


@contextlib.contextmanager
def double_precision():
    """JAX computes in float64."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def masks_of(size, seed=0):
    """Half, box, patches, one pixel, a tenth, everything, nothing, all but the box, most."""
    rng, (height, width) = np.random.default_rng(seed), size
    masks = np.zeros((9, height, width), bool)
    masks[0, :, : width // 2] = True
    masks[1, height // 3 : height // 3 + height // 4, width // 5 : width // 2] = True
    coarse = rng.random((-(-height // 4), -(-width // 4))) < 0.4
    masks[2] = np.kron(coarse, np.ones((4, 4), bool))[:height, :width]
    masks[3, height - 3, 2] = True
    masks[4] = rng.random((height, width)) < 0.1
    masks[ALL] = True
    masks[7] = ~masks[1]
    masks[8] = rng.random((height, width)) < 0.6
    return masks


def images_of(masks, seed=0, channels=3):
    """An image for each mask."""
    return np.random.default_rng(seed).normal(size=(*masks.shape, channels))


def weights(seed=0):
    """Weights of small networks, by name: kernels `k`, `k2`, `one`, matrices, biases."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))

    c = CHANNELS
    return {
        "k": draw(3, 3, 3, c),
        "k2": draw(3, 3, c, c),
        "k5": draw(5, 5, c, c),
        "one": draw(1, 1, c, c),
        "d": draw(c, CLASSES),
        "b": rng.normal(size=(1, 1, 1, c)) + 0.3,
        "s": rng.normal(size=(1, 1, 1, c)) + 1.5,
        "g": draw(c, c),
        "g2": draw(c, c),
    }


def conv(x, kernel, stride=1, padding="SAME", **options):
    """A convolution of `[N, H, W, C]`, as frameworks write it."""
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC, **options)


def stem(p, x):
    """A convolution with bias and ReLU."""
    return jax.nn.relu(conv(x, p["k"]) + p["b"])


def head(p, x):
    """Mean over positions and a dense layer."""
    return x.mean((1, 2)) @ p["d"]


# The reference: one image at a time, in NumPy.


def reference_conv(x, mask, kernel, **options):
    """A convolution with a kernel `[kh, kw, in, out]`."""
    return reference.conv(x, mask, kernel.transpose(3, 2, 0, 1), **options)


def reference_stem(p, x, mask):
    y, mask = reference_conv(x, mask, p["k"], bias=p["b"].ravel(), padding=1)
    return np.where(mask[..., None], np.maximum(y, 0), 0), mask


def reference_head(p, x, mask):
    return (x[mask].mean(0) if mask.any() else np.zeros(x.shape[-1])) @ p["d"]


def by_reference(function, p, images, masks):
    """What `function(p, image, mask)` gives for each image."""
    return np.stack([function(p, *each) for each in zip(images, masks)])


# What must hold.


def distance(actual, expected):
    """The largest difference, over the largest expected value."""
    leaves = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    return max(
        float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())
        / max(float(np.abs(np.asarray(b, float)).max()), 1e-30)
        for a, b in leaves
    )


def hidden_as(value, images, masks):
    """The images with a value where they are hidden."""
    return np.where(masks[..., None], images, value)


def run_masked(function, p, images, masks, *, tolerance=1e-11, thorough=False, **options):
    """Results of a function under masks, for images that hold NaN where they are hidden.

    Checks that what is hidden changes no bit, and that everything visible gives the function's own
    answer.

    Args:
      thorough: checks gradients, too, and that the full recipe gives the same: one program of all
        is compiled sooner than one for each.
    """
    masked, recipe = layer_mask(function, **options), layer_mask(function, shortcuts=False)

    @quick_jit
    def run(p, images, hidden, masks):
        results, plain = masked(p, hidden, masks), function(p, images)
        if not thorough:
            return results, plain, None, None
        slopes = jax.grad(_squares(masked, masks), (0, 1))(p, hidden)
        return results, plain, recipe(p, hidden, masks), slopes

    results, plain, full, slopes = run(p, images, hidden_as(np.nan, images, masks), masks)
    others, *_ = run(p, images, hidden_as(7.0, images, masks), masks)
    for y, other, own in zip(*map(jax.tree.leaves, (results, others, plain)), strict=True):
        np.testing.assert_array_equal(y, other)
        assert y.dtype == own.dtype
        assert y.shape == own.shape
        assert np.isfinite(np.asarray(y, float)).all()
        assert distance(y[ALL], own[ALL]) < tolerance
    if thorough:
        assert distance(results, full) < tolerance
        _check_slopes(*slopes, masks)
    return results


def _squares(masked, masks):
    def loss(p, images):
        results = masked(p, images, masks)
        return sum((y.astype(float) ** 2).sum() for y in jax.tree.leaves(results))

    return loss


def gradients(function, p, images, masks, **options):
    """Gradients with respect to weights and images, whose hidden pixels hold NaN."""
    loss = _squares(layer_mask(function, **options), masks)
    return quick_jit(jax.grad(loss, (0, 1)))(p, hidden_as(np.nan, images, masks))


def check_gradients(function, p, images, masks, **options):
    """Gradients are finite, and 0 under the mask."""
    _check_slopes(*gradients(function, p, images, masks, **options), masks)


def _check_slopes(of_weights, of_images, masks):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_weights))
    assert np.isfinite(of_images).all()
    assert not np.asarray(of_images)[~masks].any()
    assert np.asarray(of_images)[masks].any()
