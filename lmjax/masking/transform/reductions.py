"""Sums, means and maxima over positions count the visible ones alone.

A sum over positions is taken over the visible ones and scaled by how many there are in all over how
many are visible. So the division behind it, however it is written, gives the mean of the visible
positions, and E[x^2] - E[x]^2 their variance: no way of writing a mean has to be recognised.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.merged import positions_first
from lmjax.masking.transform.nodes import Node, full_size
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Share, Weight
from lmjax.masking.transform.pointwise import channel_of, normal, on_channels, pointwise
from lmjax.masking.transform.shares import as_traced, numbers_of
from lmjax.masking.transform.sliding import padded_axes
from lmjax.masking.transform.tracing import realised
from lmjax.masking.transform.weights import ratio, weight_over

_NEUTRAL = {"max": -np.inf, "min": np.inf, "sum": 0.0}


@rule("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or")
def _reduce(operation: Operation, x: Node) -> Node:
    how, over = operation.name.removeprefix("reduce_"), operation.params["axes"]
    trace, x = operation.trace, positions_first(operation.trace, x, over)
    dims = [d for a in over for d in x.grid_dims(a)]
    weight, x = weight_over(x, dims) if how == "sum" else None, normal(trace, x)
    dims = [d for a in over for d in x.grid_dims(a)]
    if 0 in dims:
        operation.fail(
            "it goes over the batch, so images are mixed (a batch norm in training mode? put the "
            "network into inference mode)"
        )
    if not dims:
        return _over_channels(operation, x, over)
    if how not in _NEUTRAL:
        operation.fail("it goes over positions")
    left = [d for d in range(1, len(x.grid)) if d not in dims and x.grid[d] > 1]
    if x.outside is not None:
        return _with_outside(operation, x, how, left)
    kept = any(d in x.axes[a] for d in left for a in range(len(x.shape)))
    share = numbers_of(x, operation.where()) if how == "sum" else None
    if not left or not kept:
        return _over_all(operation, x, how, weight and weight.counts, share)
    return _over_some(operation, x, how, tuple(dims), weight, share)


def _over_channels(operation: Operation, x: Node, over: Sequence[int]) -> Node:
    """Along channels alone: every position by itself."""
    kept = [a for a in range(len(x.shape)) if a not in over]
    gone = tuple(channel_of(x, a) for a in over if x.channel_dims(a))
    repeated = math.prod(x.shape[a] for a in over if not x.axes[a])
    left = [d for d in range(-len(x.channels), 0) if d not in gone]
    reduce = {
        "reduce_sum": jnp.sum,
        "reduce_max": jnp.max,
        "reduce_min": jnp.min,
        "reduce_prod": jnp.prod,
        "reduce_and": jnp.all,
        "reduce_or": jnp.any,
    }[operation.name]

    def function(values: jax.Array) -> jax.Array:
        y = reduce(values, axis=gone).astype(values.dtype) if gone else values
        if repeated > 1 and operation.name == "reduce_sum":
            y = y * jnp.asarray(repeated, y.dtype)
        return y

    if repeated > 1 and operation.name == "reduce_prod":
        operation.fail("it goes along an axis that repeats one entry")
    rank = len(x.grid)
    place = {rank + len(x.channels) + d: rank + i for i, d in enumerate(left)}
    axes = tuple(tuple(place.get(d, d) for d in x.axes[a]) for a in kept)
    if x.outside is not None:
        x = realised(operation.trace, x)
    return pointwise(
        operation.trace,
        operation.aval,
        [x],
        on_channels(x, function),
        like=x,
        axes=axes,
        channels=[x.channels[d] for d in left] or [1],
        outside=None,
    )


def _over_all(
    operation: Operation,
    x: Node,
    how: str,
    weight: Node | None = None,
    share: np.ndarray | None = None,
) -> Node:
    """Over all positions: what is left belongs to whole images."""
    over, trace = operation.params["axes"], operation.trace
    gone = tuple(channel_of(x, a) for a in over if x.channel_dims(a))
    repeated = math.prod(x.shape[a] for a in over if not x.axes[a])
    kept = [a for a in range(len(x.shape)) if a not in over]
    stored = [1 if not x.axes[a] else x.shape[a] for a in kept]
    batch = next((i for i, a in enumerate(kept) if x.axes[a] == (0,)), None)
    if batch is None:
        operation.fail("the batch is merged with channels")
    rest = [n for i, n in enumerate(stored) if i != batch]

    def run(value: Any, *counts: Any) -> jax.Array:
        if counts or share is not None:
            y = _weighted(share, value, *counts)
        else:
            y = _pooled(x, value, how)
        y = y.reshape(-1, *x.channels)
        y = getattr(y, how)(axis=gone) if gone else y
        y = y * repeated if how == "sum" and repeated > 1 else y
        return jnp.moveaxis(_as(operation.aval.dtype, y).reshape(len(y), *rest), 0, batch)

    inputs = [x] if weight is None else [x, weight]
    return trace.plain(operation.aval, inputs, run, stored=stored)


def _as(dtype: Any, y: jax.Array) -> jax.Array:
    """Converts a sum that was taken in floats; whole numbers are rounded."""
    return (jnp.rint(y) if jnp.issubdtype(dtype, jnp.integer) else y).astype(dtype)


def _pooled(x: Node, value: Any, how: str) -> jax.Array:
    """Sum, maximum or minimum over the positions of an image, `[N, C]`."""
    value = _as_image(x, value)
    if how == "sum":
        return layers.global_average_pool(value) * x.symbol.positions
    if how == "max":
        return layers.global_max_pool(value)
    return -layers.global_max_pool(layers.pointwise(value, jnp.negative))


def _weighted(share: np.ndarray | None, value: Any, counts: Any = None) -> jax.Array:
    """The sum over all positions where each counts as often as it has visible ones, `[N, C]`."""
    x, mask = full_size(value)
    return _scaled_sum(x, mask, tuple(range(1, mask.ndim)), share, counts)


def _scaled_sum(x: jax.Array, mask: jax.Array, dims: tuple[int, ...], share, counts) -> jax.Array:
    """The sum over positions of what is visible, as if it stood for all of them.

    Args:
      x, mask: `[*grid, C]` and `[*grid]`.
      dims: of the grid that are summed over.
      share: how much positions count by what they were multiplied with, `[*grid, 1]`, or None.
      counts: how many visible positions each stands for, or None.
    """
    wide = layers.wide_type(x)
    count = _count(mask, counts).astype(wide)
    numbers = jnp.ones((1,) * count.ndim, wide) if share is None else jnp.asarray(share, wide)
    numbers = jnp.broadcast_to(numbers, count.shape)
    values = jnp.where(mask[..., None], x, 0)
    values = values if counts is None else values * count
    return values.sum(axis=dims) * ratio(numbers.sum(dims), (count * numbers).sum(axis=dims))


def _as_image(x: Node, value: Any) -> Any:
    """A value whose grid is rows and columns, for the global pools."""
    if len(x.grid) == 3:
        return value
    values, mask = full_size(value)
    grid = (x.grid[0], x.symbol.positions, 1)
    return layers.Masked(values.reshape(*grid, -1), mask.reshape(grid))


class _Part(NamedTuple):
    """What is left of the positions.

    Attributes:
      dims: of the grid, which are gone.
      grid: that is left.
      of: the axes of the image that it comes from.
      gone: channels that are gone, from behind.
      channels: that are left.
      axes: of the result.
    """

    dims: tuple[int, ...]
    grid: tuple[int, ...]
    of: tuple[Any, ...]
    gone: tuple[int, ...]
    channels: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]


def _part(operation: Operation, x: Node, dims: tuple[int, ...]) -> _Part:
    rank, over = len(x.grid), operation.params["axes"]
    kept = [d for d in range(rank) if d not in dims]
    gone = tuple(channel_of(x, a) for a in over if x.channel_dims(a))
    left = [d for d in range(-len(x.channels), 0) if d not in gone]
    place = {d: i for i, d in enumerate(kept)}
    place.update({rank + len(x.channels) + d: len(kept) + i for i, d in enumerate(left)})
    others = [a for a in range(len(x.shape)) if a not in over]
    if any(set(x.grid_dims(a)) & set(dims) for a in others):
        operation.fail("it goes over some of the positions that are merged into one axis")
    return _Part(
        dims,
        tuple(x.grid[d] for d in kept),
        tuple(x.symbol.of[d] for d in kept),
        gone,
        tuple(x.channels[d] for d in left) or (1,),
        tuple(tuple(place[d] for d in x.axes[a]) for a in others),
    )


def _over_some(operation: Operation, x: Node, how: str, dims, weight: Weight | None, share) -> Node:
    """Over part of the positions: what is left is known where one of them was visible."""
    part = _part(operation, x, dims)
    grid = part.grid
    inputs = [x] if weight is None else [x, weight.counts]

    def run(value: Any, *counts: Any) -> Any:
        values, mask = full_size(value)
        if how == "sum":
            y = _as(values.dtype, _scaled_sum(values, mask, dims, share, *(counts or (None,))))
        else:
            neutral = jnp.asarray(_NEUTRAL[how], values.dtype)
            y = getattr(jnp.where(mask[..., None], values, neutral), how)(axis=dims)
        y = y.reshape(*grid, *x.channels)
        y = getattr(y, how)(axis=part.gone) if part.gone else y
        y, known = y.reshape(*grid, math.prod(part.channels)), mask.any(axis=dims)
        return layers.Masked(layers.select(known, y), known)

    known = {"mask": x.symbol.other(("any", dims), grid, part.of), "axes": part.axes}
    node = operation.trace.masked(operation.aval, inputs, run, channels=part.channels, **known)
    if how == "sum" and node.masked:
        pooled = x.symbol.sources(dims)
        pooled |= frozenset() if weight is None else weight.pooled
        node.weight = Weight(_counts(operation, inputs, part, known, share), pooled)
        if share is not None:
            node.share = Share(as_traced(share.sum(axis=dims)[..., 0], node))
    return node


def _count(mask: jax.Array, counts: Any = None) -> jax.Array:
    """How many visible positions each position stands for, `[*grid, 1]`."""
    if counts is None:
        return mask[..., None].astype(jnp.float32)
    return full_size(counts).x


def _counts(operation: Operation, inputs: Sequence[Node], part: _Part, known: Any, share) -> Node:
    """The node of the counts of a sum over some positions.

    Where positions count more or less, what is summed up to a number counts by its visible part.
    """
    dims = part.dims
    rank = len(part.grid)
    axes = tuple(tuple(d for d in own if d < rank) for own in part.axes)

    def run(value: Any, *counts: Any) -> Any:
        mask = full_size(value).mask
        count = _count(mask, *counts)
        if share is not None:
            count = (
                count * jnp.asarray(share) * ratio(1, jnp.asarray(share.sum(dims, keepdims=True)))
            )
        return layers.Masked(count.sum(axis=dims), mask.any(axis=dims))

    return Node(operation.aval, inputs, run, **{**known, "axes": axes}, channels=(1,))


def _with_outside(operation: Operation, x: Node, how: str, left: Sequence[int]) -> Node:
    """Over positions and what is outside: the visible ones stand for the image alone."""
    if left:
        operation.fail("it goes over some positions of a padded image")
    assert x.outside is not None
    fill, over = x.outside.fill, operation.params["axes"]
    pads = padded_axes(x)
    inner_shape = [n - sum(p) for n, p in zip(x.shape, pads)]
    inner = pointwise(
        operation.trace,
        jax.ShapeDtypeStruct(inner_shape, x.dtype),
        [x],
        lambda v: v,
        like=x,
        outside=None,
    )
    if how == "sum" and x.share is not None:
        crop = tuple(slice(p, n - q) for n, (p, q) in zip(x.shape, pads))
        inner.share = Share(None if x.share.numbers is None else x.share.numbers[crop])
        share = numbers_of(inner, operation.where())
    else:
        share = None
    pooled = _over_all(operation, inner, how, None, share)

    def around(value: jax.Array) -> jax.Array:
        known = jnp.pad(
            jnp.ones([n - p - q if p or q else 1 for n, (p, q) in zip(x.shape, pads)], bool), pads
        )
        neutral = jnp.asarray(_NEUTRAL[how], x.dtype)
        image = jnp.where(known, neutral, value)
        shape = [x.shape[a] if a in over else n for a, n in enumerate(image.shape)]
        return getattr(jnp.broadcast_to(image, shape), how)(axis=over)

    stored = [n for a, n in enumerate(fill.stored) if a not in over]
    outside = operation.trace.plain(operation.aval, [fill], around, stored=stored)
    join = {"sum": jnp.add, "max": jnp.maximum, "min": jnp.minimum}[how]
    stored = np.broadcast_shapes(pooled.stored, outside.stored)
    return operation.trace.plain(operation.aval, [pooled, outside], join, stored=stored)


# Along channels.


def _along_channels(operation: Operation, x: Node, *others: Node) -> Node:
    """Cumulative sums, argmax, sorts, ... along axes without positions."""
    params, trace = operation.params, operation.trace
    if others or len(operation.equation.outvars) != 1:
        operation.fail("it takes several arrays")
    x = normal(trace, realised(trace, x))
    key = next(k for k in ("axes", "axis", "dimension") if k in params)
    axis = params[key][0] if key == "axes" else params[key]
    if x.grid_dims(axis):
        operation.fail("it goes along positions or the batch")
    if not x.channel_dims(axis) or len(params.get("axes", (0,))) != 1:
        operation.fail("it goes along an axis that repeats one entry")
    gone = len(operation.aval.shape) < len(x.shape)
    dim = channel_of(x, axis)

    def function(values: jax.Array) -> jax.Array:
        at = values.ndim + dim
        y = operation.equation.primitive.bind(
            values, **{**params, key: (at,) if key == "axes" else at}
        )
        return y[0] if operation.equation.primitive.multiple_results else y

    number, rank = len(x.channels) + dim, len(x.grid)
    channels = [n for d, n in enumerate(x.channels) if not (gone and d == number)] or [1]
    axes = x.axes
    if gone:
        axes = tuple(
            tuple(d - 1 if d > rank + number else d for d in own)
            for a, own in enumerate(x.axes)
            if a != axis
        )
    return pointwise(
        trace, operation.aval, [x], on_channels(x, function), like=x, axes=axes, channels=channels
    )


rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "argmax", "argmin", "sort")(
    _along_channels
)
