"""Shapes: views, transposes, broadcasts, joins and parts."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.models.pytorch.ops.arrays import Value, aligned, axes_of, axis_of, broadcast
from lmjax.models.pytorch.ops.table import rule


@rule("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default")
def view(x: Value, shape: Sequence[int]) -> jax.Array:
    """Returns the value in another shape, of which one size may be -1."""
    known = math.prod(size for size in shape if size != -1)
    return lax.reshape(x, tuple(math.prod(x.shape) // known if s == -1 else s for s in shape))


@rule("aten.permute.default")
def permute(x: Value, axes: Sequence[int]) -> jax.Array:
    """Returns the value with its axes in another order."""
    return lax.transpose(x, axes_of(list(axes), x.ndim))


@rule("aten.transpose.int")
def transpose(x: Value, one: int, other: int) -> jax.Array:
    """Returns the value with two axes swapped."""
    return jnp.swapaxes(x, one, other)


@rule("aten.t.default")
def transpose_matrix(x: Value) -> jax.Array:
    """Returns the matrix transposed."""
    return lax.transpose(x, tuple(reversed(range(x.ndim))))


@rule("aten.unsqueeze.default")
def unsqueeze(x: Value, axis: int) -> jax.Array:
    """Returns the value with an axis of size 1 put in."""
    return lax.expand_dims(x, (axis_of(axis, x.ndim + 1),))


@rule("aten.squeeze.dims", "aten.squeeze.dim", "aten.squeeze.default")
def squeeze(x: Value, axes: Sequence[int] | int | None = None) -> jax.Array:
    """Returns the value without those of the axes that have size 1."""
    return lax.squeeze(x, tuple(a for a in axes_of(axes, x.ndim) if x.shape[a] == 1))


@rule("aten.expand.default")
def expand(x: Value, shape: Sequence[int], **_: Any) -> jax.Array:
    """Returns the value broadcast to a shape; -1 keeps a size."""
    own = (1,) * (len(shape) - x.ndim) + tuple(x.shape)
    return broadcast(x, [o if s == -1 else s for o, s in zip(own, shape)])


@rule("aten.repeat.default")
def repeat(x: Value, times: Sequence[int]) -> jax.Array:
    """Returns the value repeated along axes, new ones in front."""
    for axis in range(len(times) - x.ndim):
        x = lax.expand_dims(x, (axis,))
    for axis, count in enumerate(times):
        x = lax.concatenate([x] * count, axis) if count != 1 else x
    return x


@rule("aten.cat.default")
def concatenate(parts: Sequence[Value], axis: int = 0) -> jax.Array:
    """Returns the parts joined along an axis; parts of no elements and one axis are left out."""
    parts = [part for part in parts if part.shape != (0,)]
    return lax.concatenate(aligned(*parts), axis_of(axis, parts[0].ndim))


@rule("aten.stack.default")
def stack(parts: Sequence[Value], axis: int = 0) -> jax.Array:
    """Returns the parts joined along a new axis."""
    return concatenate([unsqueeze(part, axis_of(axis, part.ndim + 1)) for part in parts], axis)


@rule("aten.split_with_sizes.default", "aten.split_with_sizes_copy.default")
def split_sizes(x: Value, sizes: Sequence[int], axis: int = 0) -> list[jax.Array]:
    """Returns parts of these sizes along an axis."""
    axis, ends = axis_of(axis, x.ndim), [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [lax.slice_in_dim(x, end - n, end, axis=axis) for n, end in zip(sizes, ends)]


@rule("aten.split.Tensor")
def split(x: Value, size: int, axis: int = 0) -> list[jax.Array]:
    """Returns parts of one size along an axis, the last one what is left."""
    length = x.shape[axis]
    return split_sizes(x, [min(size, length - i) for i in range(0, length, size)], axis)


@rule("aten.chunk.default")
def chunk(x: Value, count: int, axis: int = 0) -> list[jax.Array]:
    """Returns as many equal parts along an axis, the last ones smaller or missing."""
    return split(x, -(-x.shape[axis] // count), axis)


@rule("aten.unbind.int")
def unbind(x: Value, axis: int = 0) -> list[jax.Array]:
    """Returns the parts of size 1 along an axis, without it."""
    return [select(x, axis, i) for i in range(x.shape[axis])]


@rule("aten.select.int", "aten.select_copy.int")
def select(x: Value, axis: int, index: int) -> jax.Array:
    """Returns the part of one index along an axis, without it."""
    return lax.index_in_dim(x, index, axis_of(axis, x.ndim), keepdims=False)


@rule("aten.slice.Tensor", "aten.slice_copy.Tensor")
def slice_axis(
    x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> jax.Array:
    """Returns every step-th index from start to end along an axis, as Python slices."""
    axis = axis_of(axis, x.ndim)
    low, high, step = slice(start, end, step).indices(x.shape[axis])
    if (low, high, step) == (0, x.shape[axis], 1):
        return x
    return lax.slice_in_dim(x, low, max(low, high), step, axis)


@rule("aten.narrow.default")
def narrow(x: Value, axis: int, start: int, length: int) -> jax.Array:
    """Returns a part of some length along an axis."""
    return slice_axis(x, axis, start, start + length)


@rule("aten.flip.default")
def flip(x: Value, axes: Sequence[int]) -> jax.Array:
    """Returns the value reversed along axes."""
    return lax.rev(x, axes_of(list(axes), x.ndim))


@rule("aten.roll.default")
def roll(x: Value, shifts: Sequence[int] | int, axes: Sequence[int] | int = ()) -> jax.Array:
    """Returns the value moved along axes, what leaves at one end coming in at the other."""
    if axes in ((), []):
        return view(roll(view(x, [-1]), shifts, [0]), x.shape)
    shifts = [shifts] if isinstance(shifts, int) else shifts
    for axis, shift in zip(axes_of(axes, x.ndim), shifts):
        cut = -shift % x.shape[axis]
        parts = slice_axis(x, axis, cut), slice_axis(x, axis, 0, cut)
        x = lax.concatenate(parts, axis) if cut else x
    return x


@rule("aten.slice_scatter.default")
def slice_scatter(
    x: Value,
    part: Value,
    axis: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> jax.Array:
    """Returns the value with another in the place of a slice.

    A slice without gaps is put between its neighbours, which other transformations see through.
    """
    axis = axis_of(axis, x.ndim)
    first, last, _ = slice(start, end, step).indices(x.shape[axis])
    if step != 1 or last <= first:
        where = (slice(None),) * axis + (slice(start, end, step),)
        return jnp.asarray(x).at[where].set(part)
    size = (*x.shape[:axis], last - first, *x.shape[axis + 1 :])
    part = jnp.broadcast_to(jnp.asarray(part, x.dtype), size)
    before = [slice_axis(x, axis, 0, first)] if first else []
    after = [slice_axis(x, axis, last)] if last < x.shape[axis] else []
    return lax.concatenate([*before, part, *after], axis) if before or after else part


@rule("aten.select_scatter.default")
def select_scatter(x: Value, part: Value, axis: int, index: int) -> jax.Array:
    """Returns the value with another in the place of one index."""
    where = (slice(None),) * axis_of(axis, x.ndim) + (index,)
    return jnp.asarray(x).at[where].set(part)


@rule("aten.unfold.default")
def unfold(x: Value, axis: int, size: int, step: int) -> jax.Array:
    """Returns windows along an axis, each window's elements along a new last axis."""
    axis = axis_of(axis, x.ndim)
    starts = range(0, x.shape[axis] - size + 1, step)
    windows = stack([slice_axis(x, axis, i, i + size) for i in starts], axis)
    return jnp.moveaxis(windows, axis + 1, -1)
