"""Concatenations and stacks: of channels, of positions, of pieces of one value."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.elementwise import around
from lmjax.masking.transform.grids import (
    Target,
    grid_axes,
    on_grid,
    one_dimension,
    placed,
    union,
    unmerged,
)
from lmjax.masking.transform.nodes import Node, full_size
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Axes
from lmjax.masking.transform.pointwise import normal, pointwise
from lmjax.masking.transform.symbols import Symbol
from lmjax.masking.transform.tracing import Trace, realised


@rule("concatenate")
def _concatenate(operation: Operation, *operands: Node) -> Node:
    return concatenated(operation, operation.aval, operands, operation.params["dimension"])


@rule("stack")
def _stack(operation: Operation, *operands: Node) -> Node:
    axis, aval = operation.params["axis"], operation.aval
    shape = [1 if a == axis else n for a, n in enumerate(aval.shape)]
    one = jax.ShapeDtypeStruct(shape, aval.dtype)
    wide = [with_axis(operation.trace, x, one, axis) for x in operands]
    return concatenated(operation, aval, wide, axis)


def with_axis(trace: Trace, x: Node, aval: Any, axis: int) -> Node:
    """Returns a node with one more axis, of one entry."""
    if not x.masked:
        stored = [*x.stored[:axis], 1, *x.stored[axis:]]
        return trace.plain(aval, [x], lambda v: jnp.expand_dims(v, axis), stored=stored)
    axes = (*x.axes[:axis], (), *x.axes[axis:])
    place, x = x.place, realised(trace, x)
    wide = pointwise(trace, aval, [x], lambda v: v, like=x, axes=axes)
    wide.place = place
    return wide


def concatenated(operation: Operation, aval: Any, operands: Sequence[Node], axis: int) -> Node:
    """Returns the node of a concatenation along an axis."""
    trace = operation.trace
    operands = [x for x in operands if x.shape[axis]]  # without empty ones, as edges of a pad by 0
    if len(operands) == 1:
        return operands[0]
    operands = [normal(trace, x) if x.masked else x for x in operands]
    if any(x.masked and x.of_positions(axis) for x in operands):
        return _concatenated_positions(operation, aval, operands, axis)
    if any(x.masked and x.grid_dims(axis) for x in operands):
        operation.fail("it concatenates along the batch")
    if _are_pieces(operands, axis):
        return _stacked(operation, aval, operands, axis)
    return _concatenated_channels(operation, aval, operands, axis)


def _are_pieces(operands: Sequence[Node], axis: int) -> bool:
    """Whether one-entry axes are joined where each holds other positions of one value."""
    if not all(x.masked and not x.axes[axis] and x.shape[axis] == 1 for x in operands):
        return False
    places = [x.place for x in operands]
    of_one = all(p is not None and places[0] and p.source is places[0].source for p in places)
    return of_one and len({x.mask for x in operands}) > 1


def _concatenated_channels(operation, aval: Any, operands: Sequence[Node], axis: int) -> Node:
    trace = operation.trace
    join = functools.partial(_join_plain, axis=axis, sizes=[x.shape[axis] for x in operands])
    operands, outside = around(trace, operands, aval, join, along=axis)
    operands = unmerged(trace, operands)
    masked = [x for x in operands if x.masked]
    lead = max(masked, key=lambda x: sum(map(len, grid_axes(x))))
    grid_of, grid = union(masked, lead)
    operands = [on_grid(trace, x, grid_of, grid) if x.masked else x for x in operands]
    mask = functools.reduce(Symbol.both, [x.symbol for x in operands if x.masked])
    axes, slots = _slots(operands, grid_of, len(grid), axis)
    targets = [Target(mask, axes, [x.shape[a] for a in slots]) for x in operands]
    given = [x if x.masked else placed(trace, x, t) for x, t in zip(operands, targets)]
    channels = [aval.shape[a] for a in slots]
    function = _join(operands, targets, slots.index(axis) - len(slots), math.prod(channels))
    known = {"mask": mask, "axes": axes, "channels": channels, "outside": outside}
    return pointwise(trace, aval, given, function, **known)


def _slots(operands: Sequence[Node], grid_of: Axes, rank: int, axis: int) -> tuple[Axes, list[int]]:
    """Axes of the result, and those among them that are channels."""
    axes, slots = [], []
    for a, dims in enumerate(grid_of):
        varies = any(x.channel_dims(a) if x.masked else x.stored[a] > 1 for x in operands)
        if a == axis or (varies and not dims):
            axes.append((rank + len(slots),))
            slots.append(a)
        else:
            axes.append(dims)
    return tuple(axes), slots


def _join(operands: Sequence[Node], targets: Sequence[Target], at: int, number: int) -> Callable:
    """A function that concatenates channels `[*lead, *channels]` of all operands."""
    spread = [_filled(target, x) for target, x in zip(targets, operands)]

    def function(*arrays: jax.Array) -> jax.Array:
        arrays = tuple(f(a) for f, a in zip(spread, arrays))
        lead = np.broadcast_shapes(*(a.shape[:-1] for a in arrays))
        parts = [
            jnp.broadcast_to(a, (*lead, a.shape[-1])).reshape(*lead, *target.channels)
            for a, target in zip(arrays, targets)
        ]
        return jnp.concatenate(parts, axis=at).reshape(*lead, number)

    return function


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
        full = [full_size(v) for v in values]
        x = jnp.stack([v.x for v in full], axis=rank)
        return layers.Masked(x, jnp.stack([v.mask for v in full], axis=rank))

    grid = (*first.grid, len(operands))
    cut = frozenset[int]().union(*(x.place.cut for x in operands if x.place is not None))
    mask = first.symbol.other(
        ("stacked", *(x.symbol for x in operands)), grid, (*first.symbol.of, cut)
    )
    return trace.masked(aval, operands, run, mask=mask, axes=tuple(axes), channels=first.channels)


def _filled(target: Any, x: Node) -> Callable:
    """All channels of an operand, also where it repeats one entry."""
    spread = target.spread(x) if x.masked else (lambda v: v)
    number = int(np.prod(target.channels))

    def run(values: jax.Array) -> jax.Array:
        return jnp.broadcast_to(spread(values), (*values.shape[:-1], number))

    return run


def _join_plain(*arrays: jax.Array, axis: int, sizes: Sequence[int]) -> jax.Array:
    rest = np.broadcast_shapes(
        *([1 if a == axis else n for a, n in enumerate(x.shape)] for x in arrays)
    )
    wide = [
        jnp.broadcast_to(x, [size if a == axis else n for a, n in enumerate(rest)])
        for x, size in zip(arrays, sizes, strict=True)
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
    given = [_known(x, first, axis) for x in operands]

    def run(*values: Any) -> Any:
        parts = [f(v) for f, v in zip(given, values)]
        joined = (jnp.concatenate(each, axis=dim) for each in zip(*parts))
        return layers.Masked(*joined)

    grid = [aval.shape[axis] if d == dim else n for d, n in enumerate(first.grid)]
    mask = first.symbol.other(("concatenate", operation), grid)
    return trace.masked(aval, operands, run, mask=mask, axes=first.axes, channels=first.channels)


def _known(x: Node, like: Node, axis: int) -> Callable:
    """A function that gives an operand full-size; plain ones, such as a class token, are known."""
    if x.masked:
        return full_size
    (dim,) = like.grid_dims(axis)
    grid = [x.shape[axis] if d == dim else n for d, n in enumerate(like.grid)]
    aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
    layout = Node(aval, mask=Symbol(grid), axes=like.axes, channels=like.channels)

    def run(value: Any) -> Any:
        full = jnp.broadcast_to(value, x.shape)
        return layers.Masked(layout.store(full), jnp.ones(layout.grid, bool))

    return run
