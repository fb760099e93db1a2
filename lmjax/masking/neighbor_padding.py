"""Neighbor padding: rings of plausible values around the visible region.

Source: Balasubramanian & Feizi, arXiv 2211.14646, section 3.2. Before a convolution, every hidden
position with at least one known position among its 8 neighbours becomes the mean of those known
neighbours; then all of them count as known for the next ring. Positions outside the image are never
known and never filled.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lmjax._utils.checks import check_whole

# Below this the rings are filled channel by channel (images); above it, channels last is faster.
_FEW_CHANNELS = 8


def _sum_of_three(x: jax.Array, axis: int) -> jax.Array:
    """Sum of three neighbours along `axis`, which loses its first and last position."""
    stops = range(x.shape[axis] - 2, x.shape[axis] + 1)
    before, here, after = (lax.slice_in_dim(x, i, n, axis=axis) for i, n in enumerate(stops))
    return before + here + after


def _box_sum(x: jax.Array, rows: int) -> jax.Array:
    """Sum over the 3x3 neighbourhood in the axes `rows` and `rows + 1`; zeros outside.

    As shifted additions: XLA's depthwise convolution is over 30 times slower on CPU.
    """
    pad = [(0, 0)] * x.ndim
    pad[rows] = pad[rows + 1] = 1, 1
    padded = _computed_once(jnp.pad(x, pad))
    return _sum_of_three(_computed_once(_sum_of_three(padded, rows)), rows + 1)


def _computed_once(x: jax.Array) -> jax.Array:
    """Keeps XLA on CPU from computing `x` again for each of the three that are added.

    A ring takes half of the time then.
    """
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)


def _ring(x: jax.Array, known: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """One more ring: `x` and which positions are `known`, image rows along axis `rows`."""
    counts = _box_sum(known.astype(x.dtype), rows)  # at most 9: exact in bfloat16 too
    means = _box_sum(x, rows) / jnp.maximum(counts, 1)
    return jnp.where(known, x, means), counts > 0  # where nothing is known, the mean is 0 / 1


def _check(x: Any, mask: Any, rings: int) -> int:
    """Returns the rings that change anything; raises ValueError for what does not fit."""
    rings = check_whole("rings", rings, least=0)
    shapes = [getattr(each, "shape", None) for each in (x, mask)]
    if shapes[0] is None or len(shapes[0]) != 4 or shapes[1] != shapes[0][:3]:
        raise ValueError(
            f"x must be [N, H, W, C] and mask [N, H, W], got shapes {shapes[0]} and {shapes[1]}"
        )
    if mask.dtype != bool or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"x must hold floating-point numbers and mask bools, got {x.dtype} and {mask.dtype}"
        )
    return min(rings, max(x.shape[1:3]))  # then nothing is hidden: neighbours of all 8 sides count


def neighbor_padding(x: jax.Array, mask: jax.Array, rings: int) -> jax.Array:
    """Fills `rings` rings of hidden positions around the visible region.

    Args:
      x: activations `[N, H, W, C]`, exactly 0 where `mask` is 0.
      mask: `[N, H, W]` bool, True = visible.
      rings: number of rings to fill; 0 returns `x`.

    Returns:
      `x` with filled rings, `[N, H, W, C]`. Visible positions are untouched, hidden positions
      beyond the last ring stay 0. Filled values are constants with respect to gradients, as in the
      authors' code.
    """
    rings = _check(x, mask, rings)
    return x if rings == 0 else _fill(x, mask, rings)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
@functools.partial(jax.jit, static_argnums=2)  # outside jit too, the loop compiles once
def _fill(x: jax.Array, mask: jax.Array, rings: int) -> jax.Array:
    """Fills one ring or more; arguments as those of `neighbor_padding`."""
    if rings == 1:
        return _ring(x, mask[..., None], rows=1)[0]
    if x.shape[-1] < _FEW_CHANNELS:
        x = jnp.moveaxis(x, -1, 1)
        return jnp.moveaxis(_rings(x, mask[:, None], 2, rings), 1, -1)
    return _rings(x, mask[..., None], 1, rings)


@_fill.defjvp
def _change_of_visible(rings: int, values: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """Returns the filled `x` and its tangent: that of `x` at visible positions, 0 elsewhere.

    A selection from `x` and a constant would say the same, but read `x` twice: XLA on CPU computes
    what comes before it twice then.
    """
    mask = values[1][..., None]
    return _fill(*values, rings), jnp.where(mask, tangents[0], 0)


@jax.jit
def fill_all(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Fills rings around the visible region until nothing is hidden.

    Args:
      x: `[N, H, W, C]`, exactly 0 where `mask` is 0; few channels, such as images.
      mask: `[N, H, W]` bool, True = visible.

    Returns:
      `x` filled, `[N, H, W, C]`; all 0 where nothing is visible. Filled values are constants with
      respect to gradients.
    """

    def going_on(state):
        known = state[1]
        return (known.any(axis=(1, 2, 3)) & ~known.all(axis=(1, 2, 3))).any()

    start = jnp.moveaxis(lax.stop_gradient(x), -1, 1), mask[:, None]
    filled, _ = lax.while_loop(going_on, lambda state: _ring(*state, rows=2), start)
    return jnp.where(mask[..., None], x, jnp.moveaxis(filled, 1, -1))


def _rings(x: jax.Array, known: jax.Array, rows: int, rings: int) -> jax.Array:
    """Several rings, in a loop: unrolled, XLA fuses them and computes the inner ones again.

    Measured on CPU, six rings of 224x224x3 images: 10 times faster than unrolled.
    """
    return lax.fori_loop(0, rings, lambda _, state: _ring(state[0], state[1], rows), (x, known))[0]
