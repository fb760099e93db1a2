"""Resizing of images: nearest, bilinear and bicubic, and moves between space and channels."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jax import lax

from lmjax.models.pytorch.ops.indexing import take
from lmjax.models.pytorch.ops.table import add_rules, rule

Sizes = Sequence[int] | None
Scales = Sequence[float] | None


def _targets(x: jax.Array, sizes: Sizes, scales: Scales) -> list[tuple[int, int, float]]:
    """Returns (size in, size out, step of one output in inputs) per dimension."""
    count = len(sizes or scales or ())
    inputs = x.shape[-count:]
    outputs = sizes or [int(size * factor) for size, factor in zip(inputs, scales or ())]
    steps = [1 / factor for factor in scales or ()] or [i / o for i, o in zip(inputs, outputs)]
    return list(zip(inputs, outputs, steps))


def _nearest(x: jax.Array, sizes: Sizes, scales: Scales, *, center: float) -> jax.Array:
    """Returns the image resized; positions begin at `center`, a share of an output's width."""
    targets = _targets(x, sizes, scales)
    for axis, (size, count, step) in enumerate(targets, x.ndim - len(targets)):
        positions = (np.arange(count, dtype=np.float32) + np.float32(center)) * np.float32(step)
        x = take(x, np.minimum(positions.astype(np.int32), size - 1), axis)
    return x


def _interpolated(
    x: jax.Array, sizes: Sizes, align: bool, scales: Scales, *, weights: Callable[..., np.ndarray]
) -> jax.Array:
    """Returns the image resized by weights: a product with a matrix per dimension."""
    targets = _targets(x, sizes, scales)
    return _products(x, [weights(*target, align) for target in targets])


def _products(x: jax.Array, matrices: list[np.ndarray]) -> jax.Array:
    """Returns the last axes times a matrix `[out, in]` each; every product moves its axis last."""
    first = x.ndim - len(matrices)
    for matrix in matrices:
        dimensions = (((first,), (1,)), ((), ()))
        weights = matrix.astype(x.dtype)
        x = lax.dot_general(x, weights, dimensions, precision=lax.Precision.HIGHEST)
    return x


def _positions(size: int, count: int, step: float, align: bool) -> np.ndarray:
    """Returns where outputs lie among inputs."""
    if align:
        return np.arange(count) * ((size - 1) / (count - 1) if count > 1 else 0.0)
    return (np.arange(count) + 0.5) * step - 0.5


def _matrix(size: int, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns `[out, in]` of each output's inputs and their weights; edges are repeated."""
    matrix = np.zeros((len(indices), size))
    np.add.at(matrix, (np.arange(len(indices))[:, None], np.clip(indices, 0, size - 1)), weights)
    return matrix


def _linear_weights(size: int, count: int, step: float, align: bool) -> np.ndarray:
    positions = np.maximum(_positions(size, count, step, align), 0)
    low = np.floor(positions).astype(int)
    share = positions - low
    return _matrix(size, low[:, None] + np.arange(2), np.stack([1 - share, share], 1))


def _cubic_weights(size: int, count: int, step: float, align: bool) -> np.ndarray:
    positions = _positions(size, count, step, align)
    low = np.floor(positions).astype(int)
    indices = low[:, None] + np.arange(-1, 3)
    return _matrix(size, indices, _cubic(np.abs(positions[:, None] - indices)))


def _smooth_weights(
    size: int, count: int, step: float, align: bool, kernel: Callable[..., np.ndarray]
) -> np.ndarray:
    """Returns `[out, in]` of a kernel that is stretched where the image shrinks."""
    if align:
        step = (size - 1) / (count - 1) if count > 1 else 0.0
    centers = (np.arange(count)[:, None] + 0.5) * step
    weights = kernel(np.abs((np.arange(size) + 0.5 - centers) / max(step, 1.0)))
    return weights / weights.sum(1, keepdims=True)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - distance, 0.0)


def _cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Returns the cubic convolution kernel, with torch's parameter (Keys 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


# Each pixel the nearest of the image as torch rounds; exactly, the one whose center is nearest.
add_rules({f"upsample_nearest{n}d.vec": partial(_nearest, center=0.0) for n in (1, 2, 3)})
add_rules({f"_upsample_nearest_exact{n}d.vec": partial(_nearest, center=0.5) for n in (1, 2, 3)})
_linear_resize = partial(_interpolated, weights=_linear_weights)
_smooth_linear, _smooth_cubic = (
    partial(_smooth_weights, kernel=kernel) for kernel in (_linear, partial(_cubic, a=-0.5))
)
add_rules(
    {
        "upsample_linear1d.vec": _linear_resize,
        "upsample_bilinear2d.vec": _linear_resize,
        "upsample_trilinear3d.vec": _linear_resize,
        "upsample_bicubic2d.vec": partial(_interpolated, weights=_cubic_weights),
        "_upsample_bilinear2d_aa.vec": partial(_interpolated, weights=_smooth_linear),
        "_upsample_bicubic2d_aa.vec": partial(_interpolated, weights=_smooth_cubic),
    }
)


@rule("aten.pixel_shuffle.default")
def pixel_shuffle(x: jax.Array, factor: int) -> jax.Array:
    """Returns groups of channels as blocks of pixels."""
    *batch, channels, height, width = x.shape
    count, n = len(batch), channels // factor**2
    x = lax.reshape(x, (*batch, n, factor, factor, height, width))
    order = (*range(count), *(count + i for i in (0, 3, 1, 4, 2)))
    return lax.reshape(lax.transpose(x, order), (*batch, n, height * factor, width * factor))


@rule("aten.pixel_unshuffle.default")
def pixel_unshuffle(x: jax.Array, factor: int) -> jax.Array:
    """Returns blocks of pixels as groups of channels."""
    *batch, channels, height, width = x.shape
    count, (h, w) = len(batch), (height // factor, width // factor)
    x = lax.reshape(x, (*batch, channels, h, factor, w, factor))
    order = (*range(count), *(count + i for i in (0, 2, 4, 1, 3)))
    return lax.reshape(lax.transpose(x, order), (*batch, channels * factor**2, h, w))


@rule("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Returns the channels with those of all groups taken by turns."""
    n, channels, *window = x.shape
    x = lax.reshape(x, (n, groups, channels // groups, *window))
    order = (0, 2, 1, *range(3, x.ndim))
    return lax.reshape(lax.transpose(x, order), (n, channels, *window))
