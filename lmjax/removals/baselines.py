"""Pictures to put in the place of hidden pixels: blurs, mean colours, noise.

All take and give display colours in [0, 1], channels last.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_RISE_SIZE, _RISE_SIGMA = 11, 5


def gaussian_blur(images: jax.Array, *, sigma: float, radius: int | None = None) -> jax.Array:
    """Blurs by a Gaussian; at the border, weights inside the picture are scaled to sum to 1.

    Args:
      images: `[..., H, W, C]`.
      sigma: standard deviation in pixels.
      radius: furthest pixel that counts, in pixels; None takes the whole picture.

    Returns:
      Blurred images, same shape.
    """
    height, width = images.shape[-3:-1]
    rows = _gaussian_matrix(height, sigma, radius).astype(images.dtype)
    columns = _gaussian_matrix(width, sigma, radius).astype(images.dtype)
    # Matrix products: any radius at one cost, on matrix units where there are some.
    return jnp.einsum("ij,...jkc,lk->...ilc", rows, images, columns, precision="highest")


def rise_blur(images: jax.Array, mean: jax.Array) -> jax.Array:
    """Blurs as the insertion metric of RISE's code does.

    By 11 x 11 weights: a Gaussian with sigma 5 whose tails are reflected into them, as SciPy's
    `gaussian_filter` of a single pixel gives. Around the picture is the mean colour.

    Args:
      images: `[..., H, W, C]`.
      mean: `[C]`, the mean colour of the network's preprocessing.

    References:
      Petsiuk, Das & Saenko 2018, "RISE" (arXiv 1806.07421), `gkern` in `evaluation.py` of the code.
    """
    weights, reach = _rise_weights(), _RISE_SIZE // 2
    mean = mean[(None,) * (images.ndim - 1)]
    height, width = images.shape[-3:-1]
    rows, columns = (
        sum(w * jnp.eye(n, k=k, dtype=images.dtype) for k, w in enumerate(weights, -reach))
        for n in (height, width)
    )
    blurred = jnp.einsum("ij,...jkc,lk->...ilc", rows, images - mean, columns, precision="highest")
    return blurred + mean


@functools.cache
def _rise_weights() -> tuple[float, ...]:
    from scipy.ndimage import gaussian_filter1d

    pixel = np.zeros(_RISE_SIZE)
    pixel[_RISE_SIZE // 2] = 1
    return tuple(map(float, gaussian_filter1d(pixel, _RISE_SIGMA)))


def _gaussian_matrix(size: int, sigma: float, radius: int | None) -> jax.Array:
    position = jnp.arange(size)
    distance = jnp.abs(position[:, None] - position[None, :]).astype(float)
    weight = jnp.exp(-0.5 * (distance / sigma) ** 2)
    if radius is not None:
        weight = jnp.where(distance <= radius, weight, 0)
    return weight / weight.sum(axis=1, keepdims=True)


def segment_mean(image: jax.Array, segments: jax.Array) -> jax.Array:
    """Replaces every pixel of `image` `[H, W, C]` by the mean colour of its segment.

    `segments` is `[H, W]` with labels below H * W, which bounds their number under `jit`.
    """
    labels = segments.reshape(-1)
    pixels = image.reshape(-1, image.shape[-1])
    total = jax.ops.segment_sum(pixels, labels, num_segments=labels.size)
    count = jax.ops.segment_sum(jnp.ones_like(pixels), labels, num_segments=labels.size)
    return (total / jnp.maximum(count, 1))[segments]


def gaussian_noise(shape: tuple[int, ...], *, key: jax.Array, std: float) -> jax.Array:
    """Draws independent N(0.5, std^2) for every pixel and channel, clipped to [0, 1]."""
    return jnp.clip(0.5 + std * jax.random.normal(key, shape, jnp.float32), 0, 1)


def uniform_noise(shape: tuple[int, ...], *, key: jax.Array) -> jax.Array:
    """Draws independent uniform noise in [0, 1) for every pixel and channel."""
    return jax.random.uniform(key, shape, jnp.float32)
