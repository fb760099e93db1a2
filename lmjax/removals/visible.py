"""Fills from what is visible: functions of (image, mask, key), for `lmjax.Fill`.

Each takes an image `[H, W, C]` in [0, 1] and a mask `[H, W]`, 1 = visible, of which `lmjax.Fill`
keeps the hidden pixels of the result. They read visible pixels alone. Where nothing is visible they
have nothing to go by, and `lmjax.Fill` does not take their result.
"""

import jax
import jax.numpy as jnp

from lmjax.masking.neighbor_padding import fill_all
from lmjax.removals.multigrid import solve

TOLERANCE = 1e-4
"""How far `harmonic` may be from the exact solution at any pixel, of colours from 0 to 1."""

NOISE = 0.01
"""Standard deviation of the noise of `noisy_linear`."""

_MAX_ITERATIONS = 50  # a tenth of it is common


@jax.jit
def ring(image: jax.Array, mask: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Fills ring by ring from the visible pixels inwards, by the mean of known neighbours.

    It is the neighbor padding of layer masking (Balasubramanian & Feizi, arXiv 2211.14646, section
    3.2), of the image alone and until nothing is hidden. The result is constant with respect to
    gradients.

    Args:
      image: `[H, W, C]`.
      mask: `[H, W]`.
      key: ignored.
    """
    return fill_all(jnp.where(mask[..., None], image, 0)[None], mask[None])[0]


@jax.jit
def harmonic(image: jax.Array, mask: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Fills by Laplace's equation: every hidden pixel is a weighted mean of its 8 neighbours.

    Neighbours that share an edge weigh 1/6, those that share a corner 1/12; those outside the image
    are left out, and the others scaled up to 1. Within `TOLERANCE` of the exact solution.

    Args:
      image: `[H, W, C]`.
      mask: `[H, W]`.
      key: ignored.

    References:
      Rong, Leemann, Borisov, Kasneci & Kasneci 2022, "A Consistent and Efficient Evaluation
      Strategy for Attribution Methods" (arXiv 2202.00449), and its published code, without noise.
    """
    known = jnp.where(mask[..., None], image, 0)
    mean = known.sum(axis=(0, 1)) / jnp.maximum(mask.sum(dtype=known.dtype), 1)
    start = jnp.moveaxis(jnp.where(mask[..., None], known, mean), -1, 0)
    hidden = ~mask & mask.any()  # with nothing visible there is no solution
    solution = solve(start, hidden, tolerance=TOLERANCE, max_iterations=_MAX_ITERATIONS)
    return jnp.clip(jnp.moveaxis(solution, 0, -1), 0, 1)


@jax.jit
def noisy_linear(image: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
    """Fills by `harmonic` plus Gaussian noise: ROAD's noisy linear imputation.

    Args:
      image: `[H, W, C]`.
      mask: `[H, W]`.
      key: of the noise, independent for every pixel and channel, with standard deviation `NOISE`.
        Clipped to [0, 1] afterwards, which the paper does not do.

    References:
      Rong et al. 2022 (arXiv 2202.00449).
    """
    noise = NOISE * jax.random.normal(key, image.shape, jnp.float32)
    return jnp.clip(harmonic(image, mask) + noise, 0, 1)


@jax.jit
def histogram(image: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
    """Fills every pixel by the colour of a visible pixel, drawn for each independently.

    Args:
      image: `[H, W, C]`.
      mask: `[H, W]`.
      key: of the draws, with replacement.

    References:
      After the histogram imputer of Bluecher, Vielhaben & Strodthoff 2024 (arXiv 2401.06654), which
      paints all hidden pixels in one colour, drawn from the whole image's histogram.
    """
    visible = mask.reshape(-1)
    rank = jnp.cumsum(visible, dtype=jnp.int32) - 1
    pixels = jnp.arange(len(visible), dtype=jnp.int32)
    places = jnp.where(visible, rank, len(visible))
    pixel_of_rank = jnp.zeros_like(pixels).at[places].set(pixels, mode="drop")
    count = jnp.maximum(visible.sum(dtype=jnp.int32), 1)
    drawn = jax.random.randint(key, mask.shape, 0, count, jnp.int32)
    colours = jnp.where(mask[..., None], image, 0).reshape(-1, image.shape[-1])
    return colours[pixel_of_rank[drawn]]
