"""Slices, and what joins them: pieces of positions, of channels, and pools written with slices."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.nodes import Node, Outside
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.pointwise import (
    Target,
    around,
    channel_of,
    elementwise,
    grid_axes,
    normal,
    on_channels,
    on_grid,
    placed,
    pointwise,
    union,
)
from lmjax.masking.transform.pools import pool
from lmjax.masking.transform.sliding import Sliding, part, uncut
from lmjax.masking.transform.symbols import Slide, Symbol, still
from lmjax.masking.transform.tracing import Trace, realised


class Slices(NamedTuple):
    """How a node was made from slices of one value.

    Attributes:
      source: the value.
      windows: for each slice, its windows of one position on the axes of the source.
      how: `"max"`, `"min"` or `"add"` where several are joined, else None.
    """

    source: Node
    windows: tuple[tuple[Slide, ...], ...]
    how: str | None


@rule("slice")
def _slice(operation: Operation, x: Node) -> Node:
    params = operation.params
    starts, limits = params["start_indices"], params["limit_indices"]
    return sliced(operation, x, operation.aval, starts, limits, params["strides"])


@rule("split")
def _split(operation: Operation, x: Node) -> list[Node]:
    axis, start, results = operation.params["axis"], 0, []
    for variable, size in zip(operation.equation.outvars, operation.params["sizes"]):
        starts = [start if a == axis else 0 for a in range(len(x.shape))]
        limits = [start + size if a == axis else n for a, n in enumerate(x.shape)]
        results.append(sliced(operation, x, variable.aval, starts, limits))
        start += size
    return results


@rule("dynamic_slice")
def _dynamic_slice(operation: Operation, x: Node, *starts: Node) -> Node:
    sizes = operation.params["slice_sizes"]
    if not x.masked or any(s.constant is None for s in starts):
        operation.fail("where the slice starts is not known while tracing")
    first = [
        int(np.clip(int(s.constant), 0, n - k))  # type: ignore[arg-type]
        for s, n, k in zip(starts, x.shape, sizes)
    ]
    limits = [a + k for a, k in zip(first, sizes)]
    return sliced(operation, x, operation.aval, first, limits)


def sliced(
    operation: Operation,
    x: Node,
    aval: Any,
    starts: Sequence[int],
    limits: Sequence[int],
    strides: Sequence[int] | None = None,
) -> Node:
    """Returns the node of a slice."""
    strides = strides or (1,) * len(starts)
    trace, x = operation.trace, normal(operation.trace, x)
    cut = {
        a: Slide(1, step, -start, 1, aval.shape[a])
        for a, (start, limit, step) in enumerate(zip(starts, limits, strides))
        if (start, limit, step) != (0, x.shape[a], 1)
    }
    for axis in cut:
        if len(x.grid_dims(axis)) > 1:
            x = normal(trace, one_dimension(trace, x, axis))
        if 0 in x.grid_dims(axis):
            operation.fail("it takes part of the batch")
    of_channels = {a: s for a, s in cut.items() if not x.grid_dims(a)}
    of_positions = {a: s for a, s in cut.items() if x.grid_dims(a)}
    if of_channels:
        x = _sliced_channels(operation, x, of_channels)
    if not of_positions:
        return x
    return _sliced_positions(operation, x, aval, of_positions)


def _sliced_channels(operation: Operation, x: Node, cut: dict[int, Slide]) -> Node:
    index, channels = [slice(None)] * len(x.channels), list(x.channels)
    for axis, s in cut.items():
        if not x.channel_dims(axis):  # it repeats one entry
            continue
        stop = s.first + (s.outputs - 1) * s.stride + 1
        index[channel_of(x, axis)] = slice(s.first, stop, s.stride)
        channels[channel_of(x, axis)] = s.outputs
    shape = [cut[a].outputs if a in cut else n for a, n in enumerate(x.shape)]
    aval = jax.ShapeDtypeStruct(shape, x.dtype)
    outside = None
    if x.outside is not None:
        fill = x.outside.fill
        plain = tuple(
            slice(
                cut[a].first, cut[a].first + (cut[a].outputs - 1) * cut[a].stride + 1, cut[a].stride
            )
            if a in cut and n > 1
            else slice(None)
            for a, n in enumerate(fill.stored)
        )
        stored = [m if n > 1 else 1 for n, m in zip(fill.stored, shape)]
        taken = operation.trace.plain(aval, [fill], lambda v: v[plain], stored=stored)
        outside = Outside(x.pads, taken)
    function = on_channels(x, lambda values: values[(..., *index)])
    return pointwise(
        operation.trace, aval, [x], function, like=x, channels=channels, outside=outside
    )


def _sliced_positions(operation: Operation, x: Node, aval: Any, cut: dict[int, Slide]) -> Node:
    sliding = Sliding(operation, x, cut)
    whole, parts = uncut(sliding.slides, x.grid)
    steps = tuple(s.stride for s in whole)
    plainly = whole == sliding.slides and len(x.grid) == 3
    plainly = plainly and jnp.issubdtype(x.dtype, jnp.floating)
    cuts_end = any(p.stop < n for p, n in zip(parts, x.grid))

    def run(value: Any) -> Any:
        if plainly and not cuts_end:
            return layers.max_pool(value, window=1, stride=steps[1:])
        step = [slice(p.start, p.stop, s) for p, s in zip(parts, steps)]
        return part(value, step)

    outside = None
    if sliding.anything_outside:
        assert x.outside is not None
        fill = x.outside.fill
        index = tuple(
            slice(
                cut[a].first, cut[a].first + (cut[a].outputs - 1) * cut[a].stride + 1, cut[a].stride
            )
            if a in cut and n > 1
            else slice(None)
            for a, n in enumerate(fill.stored)
        )
        stored = [m if n > 1 else 1 for n, m in zip(fill.stored, aval.shape)]
        taken = operation.trace.plain(aval, [fill], lambda v: v[index], stored=stored)
        outside = Outside(sliding.pads, taken)
    node = operation.trace.masked(
        aval,
        (x,),
        run,
        mask=x.symbol.window(sliding.slides),
        axes=x.axes,
        channels=x.channels,
        outside=outside,
    )
    windows = tuple(cut.get(a, Slide(1, 1, 0, 1, n)) for a, n in enumerate(x.shape))
    if node.masked:
        node.origin = Slices(x, (windows,), None)
    return node


def one_dimension(trace: Trace, x: Node, axis: int) -> Node:
    """Returns a node whose positions along an axis are one dimension of the grid."""
    dims = x.grid_dims(axis)
    if len(dims) < 2:
        return x
    if 0 in dims:
        raise_merged(x, axis)
    x = realised(trace, x)
    order = [d for d in range(len(x.grid)) if d not in dims[1:]]
    at = order.index(dims[0])
    order[at : at + 1] = list(dims)
    shape = [x.grid[d] for d in order]
    shape[at : at + len(dims)] = [int(np.prod([x.grid[d] for d in dims]))]
    left = [d for d in order if d not in dims[1:]]
    sources = {x.symbol.of[d] for d in dims}
    of = [x.symbol.of[d] for d in left]
    of[at] = sources.pop() if len(sources) == 1 else "merged"
    place = {d: i for i, d in enumerate(left)}
    rank, shift = len(x.grid), len(shape) - len(x.grid)
    axes = tuple(
        (at, *(d + shift for d in own if d >= rank))
        if a == axis
        else tuple(place[d] if d < rank else d + shift for d in own)
        for a, own in enumerate(x.axes)
    )

    def run(value: Any) -> Any:
        values, mask = layers.full_size(value)
        mask = jnp.transpose(mask, order).reshape(shape)
        values = jnp.transpose(values, (*order, rank)).reshape(*shape, values.shape[-1])
        return layers.Masked(values, mask)

    aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
    mask = x.symbol.other(("one dimension", tuple(order), at), shape, of)
    return Node(aval, (x,), run, mask=mask, axes=axes, channels=x.channels)


def raise_merged(x: Node, axis: int):
    """Raises the error for an operation along an axis that holds the batch and positions."""
    from lmjax.masking.transform.nodes import LayerMaskError

    raise LayerMaskError(f"it works along axis {axis}, which holds the batch and positions")


# Pools written with slices.


@rule("max", "min", "add", "add_any")
def _joined(operation: Operation, *operands: Node) -> Node:
    how = operation.name.removesuffix("_any")
    slices = [x.origin for x in operands]
    alike = len(operands) == 2 and all(
        isinstance(s, Slices) and s.how in (None, how) for s in slices
    )
    if not alike or slices[0].source is not slices[1].source:
        return elementwise(operation, *operands)
    return _pool_of_slices(operation, operands[0], slices[0], slices[1], how)


def _pool_of_slices(operation, like: Node, one: Slices, other: Slices, how: str) -> Node:
    """A pool of slices: as a pool over windows where they fill one."""
    source, windows = one.source, (*one.windows, *other.windows)
    joined, window = Slices(source, windows, how), _filled_window(source, windows)
    if window is not None and len(source.grid) == 3:
        node = pool(operation, source, window, "sum" if how == "add" else how)
    else:
        node = _loose_slices(operation, like, joined)
    node.origin = joined
    return node


def _filled_window(source: Node, windows: Sequence[Sequence[Slide]]) -> dict[int, Slide] | None:
    """The window along each axis that slices fill together, or None where they fill none."""
    filled = {}
    for axis in range(len(source.shape)):
        own = {w[axis] for w in windows}
        if len(own) == 1 and next(iter(own)) == still(source.shape[axis]):
            continue
        firsts, strides = sorted(w.first for w in own), {w.stride for w in own}
        if len(strides) > 1 or firsts != list(range(firsts[0], firsts[0] + len(firsts))):
            return None
        outputs = {w.outputs for w in own}
        filled[axis] = Slide(len(own), strides.pop(), -firsts[0], 1, outputs.pop())
    size = math.prod(s.size for s in filled.values())
    return filled if size == len(set(windows)) == len(windows) else None


def _loose_slices(operation: Operation, like: Node, joined: Slices) -> Node:
    """Slices that fill no window (yet)."""
    source, shape = joined.source, list(joined.source.grid)
    for axis, window in enumerate(joined.windows[0]):
        if len(source.grid_dims(axis)) == 1:
            shape[source.grid_dims(axis)[0]] = window.outputs

    def run(value: Any) -> Any:
        if source.outside is not None:
            operation.fail("slices of a padded image that fill no window")
        return _run_slices(joined, value)

    return operation.trace.masked(
        operation.aval,
        (source,),
        run,
        mask=source.symbol.other(("slices", joined.windows), shape),
        axes=like.axes,
        channels=like.channels,
    )


def _run_slices(slices: Slices, value: Any) -> Any:
    source, how = slices.source, slices.how
    x, mask = layers.full_size(value)
    index = [_grid_index(source, window) for window in slices.windows]
    views, known = [x[i] for i in index], [mask[i][..., None] for i in index]
    visible = functools.reduce(jnp.logical_or, known)
    if how == "add":
        count = sum(k.astype(jnp.float32) for k in known)
        total = sum(jnp.where(k, v, 0) for k, v in zip(known, views))
        y = total * (len(index) / jnp.maximum(count, 1)).astype(x.dtype)
    else:
        join: Callable = jnp.maximum if how == "max" else jnp.minimum
        neutral = -jnp.inf if how == "max" else jnp.inf
        y = functools.reduce(join, [jnp.where(k, v, neutral) for k, v in zip(known, views)])
    return layers.Masked(jnp.where(visible, y, jnp.zeros((), y.dtype)), visible[..., 0])


def _grid_index(source: Node, window: Sequence[Slide]) -> tuple[slice, ...]:
    index = [slice(None)] * len(source.grid)
    for axis, s in enumerate(window):
        if len(source.grid_dims(axis)) == 1:
            stop = s.first + (s.outputs - 1) * s.stride + 1
            index[source.grid_dims(axis)[0]] = slice(s.first, stop, s.stride)
    return tuple(index)


# Joining pieces.


@rule("concatenate")
def _concatenate(operation: Operation, *operands: Node) -> Node:
    return concatenated(operation, operation.aval, operands, operation.params["dimension"])


@rule("stack")
def _stack(operation: Operation, *operands: Node) -> Node:
    axis, aval = operation.params["axis"], operation.aval
    shape = [1 if a == axis else n for a, n in enumerate(aval.shape)]
    one = jax.ShapeDtypeStruct(shape, aval.dtype)
    wide = [_with_axis(operation.trace, x, one, axis) for x in operands]
    return concatenated(operation, aval, wide, axis)


def _with_axis(trace: Trace, x: Node, aval: Any, axis: int) -> Node:
    if not x.masked:
        stored = [*x.stored[:axis], 1, *x.stored[axis:]]
        return trace.plain(aval, [x], lambda v: jnp.expand_dims(v, axis), stored=stored)
    axes = (*x.axes[:axis], (), *x.axes[axis:])
    x = realised(trace, x)
    return pointwise(trace, aval, [x], lambda v: v, like=x, axes=axes)


def concatenated(operation: Operation, aval: Any, operands: Sequence[Node], axis: int) -> Node:
    """Returns the node of a concatenation along an axis."""
    trace = operation.trace
    operands = [normal(trace, x) if x.masked else x for x in operands]
    if any(x.masked and x.of_positions(axis) for x in operands):
        return _concatenated_positions(operation, aval, operands, axis)
    if any(x.masked and x.grid_dims(axis) for x in operands):
        operation.fail("it concatenates along the batch")
    apart = all(x.masked and not x.axes[axis] and x.shape[axis] == 1 for x in operands)
    if apart and len({x.mask for x in operands}) > 1:
        return _stacked(operation, aval, operands, axis)
    return _concatenated_channels(operation, aval, operands, axis)


def _concatenated_channels(operation, aval: Any, operands: Sequence[Node], axis: int) -> Node:
    trace = operation.trace
    join = functools.partial(_join_plain, axis=axis, shape=aval.shape)
    operands, outside = around(trace, operands, aval, join, along=axis)
    masked = [x for x in operands if x.masked]
    lead = max(masked, key=lambda x: sum(map(len, grid_axes(x))))
    axes, grid = union(masked, lead)
    operands = [on_grid(trace, x, axes, grid) if x.masked else x for x in operands]
    masked = [x for x in operands if x.masked]
    mask = functools.reduce(Symbol.both, [x.symbol for x in masked])
    own_axes, slots = [], []
    for a, n in enumerate(aval.shape):
        varies = any(x.channel_dims(a) for x in masked)
        plain = any(x.stored[a] > 1 for x in operands if not x.masked)
        if a == axis or ((varies or plain) and not axes[a]):
            own_axes.append((len(grid) + len(slots),))
            slots.append(a)
        else:
            own_axes.append(axes[a])

    def target(x: Node) -> Target:
        return Target(mask, tuple(own_axes), [x.shape[a] for a in slots])

    spread = [_filled(target(x), x) for x in operands]
    given = [x if x.masked else placed(trace, x, target(x)) for x in operands]
    at, channels = slots.index(axis) - len(slots), [aval.shape[a] for a in slots]
    shapes = [target(x).channels for x in operands]

    def function(*arrays: jax.Array) -> jax.Array:
        arrays = tuple(f(a) for f, a in zip(spread, arrays))
        lead_shape = np.broadcast_shapes(*(a.shape[:-1] for a in arrays))
        parts = [
            jnp.broadcast_to(a, (*lead_shape, a.shape[-1])).reshape(*lead_shape, *shape)
            for a, shape in zip(arrays, shapes)
        ]
        return jnp.concatenate(parts, axis=at).reshape(*lead_shape, int(np.prod(channels)))

    return pointwise(
        trace,
        aval,
        given,
        function,
        mask=mask,
        axes=tuple(own_axes),
        channels=channels,
        outside=outside,
    )


def _stacked(operation, aval: Any, operands: Sequence[Node], axis: int) -> Node:
    """Arrays with masks of their own: a new dimension of positions."""
    trace = operation.trace
    operands = [realised(trace, x) for x in operands]
    first, rank = operands[0], len(operands[0].grid)
    if any(
        (x.axes, x.grid, x.channels) != (first.axes, first.grid, first.channels) for x in operands
    ):
        operation.fail("it stacks arrays whose axes stand for different positions")
    axes = [tuple(d + 1 if d >= rank else d for d in own) for own in first.axes]
    axes[axis] = (rank,)

    def run(*values: Any) -> Any:
        full = [layers.full_size(v) for v in values]
        x = jnp.stack([v.x for v in full], axis=rank)
        return layers.Masked(x, jnp.stack([v.mask for v in full], axis=rank))

    grid = (*first.grid, len(operands))
    mask = first.symbol.other(
        ("stacked", *(x.symbol for x in operands)), grid, (*first.symbol.of, ("stacked", axis))
    )
    return trace.masked(aval, operands, run, mask=mask, axes=tuple(axes), channels=first.channels)


def _filled(target: Any, x: Node) -> Callable:
    """All channels of an operand, also where it repeats one entry."""
    spread = target.spread(x) if x.masked else (lambda v: v)
    number = int(np.prod(target.channels))

    def run(values: jax.Array) -> jax.Array:
        return jnp.broadcast_to(spread(values), (*values.shape[:-1], number))

    return run


def _join_plain(*arrays: jax.Array, axis: int, shape: Sequence[int]) -> jax.Array:
    rest = np.broadcast_shapes(
        *([1 if a == axis else n for a, n in enumerate(x.shape)] for x in arrays)
    )
    wide = [
        jnp.broadcast_to(x, [x.shape[a] if a == axis else n for a, n in enumerate(rest)])
        for x in arrays
    ]
    return jnp.concatenate(wide, axis=axis)


def _concatenated_positions(operation, aval: Any, operands: Sequence[Node], axis: int) -> Node:
    trace = operation.trace
    operands = [
        normal(trace, one_dimension(trace, realised(trace, x), axis)) if x.masked else x
        for x in operands
    ]
    first = next(x for x in operands if x.masked)
    if any(x.masked and x.axes != first.axes for x in operands):
        operation.fail("its operands have positions along different axes")
    (dim,) = first.grid_dims(axis)
    grids = [[x.shape[axis] if d == dim else n for d, n in enumerate(first.grid)] for x in operands]
    grid = [aval.shape[axis] if d == dim else n for d, n in enumerate(first.grid)]
    layouts = [
        Node(
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            mask=Symbol(g),
            axes=first.axes,
            channels=first.channels,
        )
        for x, g in zip(operands, grids)
    ]

    def run(*values: Any) -> Any:
        parts = [
            layers.full_size(v)
            if x.masked
            else layers.Masked(
                layout.store(jnp.broadcast_to(v, x.shape)), jnp.ones(layout.grid, bool)
            )
            for x, v, layout in zip(operands, values, layouts)
        ]
        return layers.Masked(
            jnp.concatenate([p.x for p in parts], axis=dim),
            jnp.concatenate([p.mask for p in parts], axis=dim),
        )

    return trace.masked(
        aval,
        operands,
        run,
        mask=first.symbol.other(("concatenate", operation), grid),
        axes=first.axes,
        channels=first.channels,
    )


@rule("rev")
def _reverse(operation: Operation, x: Node) -> Node:
    trace, over = operation.trace, operation.params["dimensions"]
    x = normal(trace, realised(trace, x))
    if any(len(x.grid_dims(a)) > 1 or 0 in x.grid_dims(a) for a in over):
        operation.fail("it reverses the batch, or positions that are merged into one axis")
    dims = tuple(d for a in over for d in x.grid_dims(a))
    channels = tuple(channel_of(x, a) for a in over if x.channel_dims(a))
    flip = on_channels(x, lambda v: jnp.flip(v, channels))
    if not dims:
        return pointwise(trace, operation.aval, [x], flip, like=x)

    def run(value: Any) -> Any:
        values, mask = layers.full_size(value)
        return layers.Masked(jnp.flip(flip(values), dims), jnp.flip(mask, dims))

    mask = x.symbol.other(("reversed", dims), x.grid)
    return trace.masked(operation.aval, (x,), run, mask=mask, axes=x.axes, channels=x.channels)


@rule("gather")
def _gather(operation: Operation, x: Node, indices: Node) -> Node:
    """Whole slices along one axis, by indices that are known (`jnp.take`)."""
    params, numbers = operation.params, operation.params["dimension_numbers"]
    sizes = params["slice_sizes"]
    if not x.masked or indices.constant is None:
        operation.fail("its indices are not known while tracing")
    taken = [a for a, (k, n) in enumerate(zip(sizes, x.shape)) if k != n]
    single = tuple(numbers.start_index_map)
    if (
        len(single) != 1
        or any(a != single[0] for a in taken)
        or numbers.collapsed_slice_dims not in ((), single)
        or getattr(numbers, "operand_batching_dims", ())
    ):
        operation.fail("it takes more than whole slices along one axis")
    (axis,) = single
    assert indices.constant is not None
    index = np.broadcast_to(indices.constant, indices.shape)[..., 0]
    if numbers.collapsed_slice_dims != single or index.ndim != 1:
        operation.fail("it takes more than single slices by a list of indices")
    if ((index < 0) | (index >= x.shape[axis])).any():
        operation.fail("some of its indices are beyond the array")
    x = normal(operation.trace, one_dimension(operation.trace, realised(operation.trace, x), axis))
    shape = [len(index) if a == axis else n for a, n in enumerate(x.shape)]
    node = _taken(operation, x, jax.ShapeDtypeStruct(shape, x.dtype), axis, index)
    rest = iter(a for a in range(len(x.shape)) if a != axis)
    order = [next(rest) if a in numbers.offset_dims else axis for a in range(len(x.shape))]
    axes = tuple(node.axes[a] for a in order)
    return pointwise(operation.trace, operation.aval, [node], lambda v: v, like=node, axes=axes)


def _taken(operation: Operation, x: Node, aval: Any, axis: int, index: np.ndarray) -> Node:
    trace = operation.trace
    if not x.grid_dims(axis):
        if not x.channel_dims(axis):
            operation.fail("it takes from an axis that repeats one entry")
        channels = list(x.channels)
        channels[channel_of(x, axis)] = len(index)
        take = on_channels(x, lambda v: jnp.take(v, index, axis=channel_of(x, axis)))
        return pointwise(trace, aval, [x], take, like=x, channels=channels)
    (dim,) = x.grid_dims(axis)
    if dim == 0:
        operation.fail("it takes from the batch")
    shape = [len(index) if d == dim else n for d, n in enumerate(x.grid)]

    def run(value: Any) -> Any:
        values, mask = layers.full_size(value)
        return layers.Masked(jnp.take(values, index, axis=dim), jnp.take(mask, index, axis=dim))

    mask = x.symbol.other(("taken", dim, tuple(index.tolist())), shape)
    return trace.masked(aval, (x,), run, mask=mask, axes=x.axes, channels=x.channels)
