"""Axes that hold several things, or one entry, on the way; and implementations by platform."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from lmjax.masking.transform import layer_mask
from tests.support.compilations import quick_jit
from tests.support.masked_functions import (
    CHANNELS,
    SIZE,
    conv,
    distance,
    double_precision,
    head,
    images_of,
    masks_of,
    stem,
    weights,
)

H, W = SIZE
C = CHANNELS
MASKS = masks_of(SIZE)
N = len(MASKS)
IMAGES = images_of(MASKS)
P = weights()


@pytest.fixture(autouse=True, scope="module")
def _double_precision():
    with double_precision():
        yield


def merged_with_the_batch(p, x):
    """Patches of 2 x 2, as MobileViT unfolds them: images, channels and rows in one axis."""
    y = jnp.moveaxis(stem(p, x), -1, 1).reshape(N * C * (H // 2), 2, W // 2, 2)
    y = y.transpose(0, 2, 1, 3).reshape(N, C, H // 2 * W // 2, 4)
    return y.max(-1).mean(-1) @ p["d"]


def by_patches(p, x):
    return head(p, nn.max_pool(stem(p, x), (2, 2), (2, 2)))


def pooled_tokens(p, x):
    """Positions in one axis, pooled along it."""
    return head(p, nn.avg_pool(stem(p, x).reshape(N, H * W, C), (W,), (W,))[:, :, None])


def pooled_rows(p, x):
    return head(p, nn.avg_pool(stem(p, x), (1, W), (1, W)))


def row_put_back(p, x):
    """A single row, whose axis is dropped and put back before a convolution."""
    row = stem(p, x)[:, 3:4]
    return head(p, conv(row.reshape(N, W, C).reshape(N, 1, W, C), p["k2"]))


def row_as_it_is(p, x):
    return head(p, conv(stem(p, x)[:, 3:4], p["k2"]))


def by_platform(p, x):
    """A convolution that is written otherwise for CPUs."""

    def shifted(y, kernel):
        padded = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
        parts = [padded[:, i : i + H, j : j + W] @ kernel[i, j] for i in range(3) for j in range(3)]
        return sum(parts[1:], parts[0])

    y = lax.platform_dependent(stem(p, x), p["k2"], cpu=shifted, default=conv)
    return head(p, y)


def as_a_convolution(p, x):
    return head(p, conv(stem(p, x), p["k2"]))


@pytest.mark.parametrize(
    ("function", "simpler"),
    [
        (merged_with_the_batch, by_patches),
        (pooled_tokens, pooled_rows),
        (row_put_back, row_as_it_is),
        (by_platform, as_a_convolution),
    ],
    ids=lambda function: function.__name__,
)
def test_the_same_as_a_simpler_spelling(function, simpler):
    one, other = (quick_jit(layer_mask(f))(P, IMAGES, MASKS) for f in (function, simpler))
    assert distance(one, other) < 1e-12
    assert distance(one, simpler(P, IMAGES)) > 1e-3  # masks matter
    hidden = np.where(MASKS[..., None], IMAGES, np.nan)
    np.testing.assert_array_equal(quick_jit(layer_mask(function))(P, hidden, MASKS), one)


def test_the_way_for_any_platform_is_exported():
    """The program for another platform has its own way to compute a depthwise convolution."""
    kernel = jnp.ones((3, 3, 1, C), jnp.float32)

    def network(p, x):
        return conv(conv(x, p), kernel, feature_group_count=C).mean((1, 2))

    arguments = (jnp.ones((3, 3, 3, C), jnp.float32), IMAGES[:2].astype(np.float32), MASKS[:2])
    exported = jax.export.export(jax.jit(layer_mask(network)), platforms=["tpu"])(*arguments)
    assert f"feature_group_count = {C}" in exported.mlir_module()
