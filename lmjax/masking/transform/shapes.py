"""Transposes, broadcasts, squeezes and reshapes: most of them change only what axes stand for."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from lmjax.masking import layers
from lmjax.masking.transform.nodes import LayerMaskError, Node, full_size, reshaped
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Axes, Outside
from lmjax.masking.transform.pointwise import normal, pointwise
from lmjax.masking.transform.tracing import Trace, realised


def relabelled(operation: Operation, x: Node, axes: Axes, fill: Any = None, **known: Any) -> Node:
    """Returns the same stored value with other axes.

    Args:
      operation: gives shape and dtype.
      x: a node with positions.
      axes: of the result.
      fill: function of what is outside the image, where there is something; None keeps it.
      **known: what differs from `x` besides.
    """
    trace, outside = operation.trace, x.outside
    if outside is not None and fill is not None:
        outside = Outside(outside.pads, fill(outside.fill))
    known = {"outside": outside, **known}
    return pointwise(trace, operation.aval, [x], lambda values: values, like=x, axes=axes, **known)


@rule("transpose")
def _transpose(operation: Operation, x: Node) -> Node:
    order = operation.params["permutation"]

    def fill(outside: Node) -> Node:
        stored = [outside.stored[a] for a in order]
        run = functools.partial(jnp.transpose, axes=order)
        return operation.trace.plain(operation.aval, [outside], run, stored=stored)

    return relabelled(operation, x, tuple(x.axes[a] for a in order), fill)


@rule("broadcast_in_dim")
def _broadcast(operation: Operation, x: Node, *sizes: Node) -> Node:
    if sizes:
        operation.fail("its shape is not known while tracing")
    aval, places = operation.aval, operation.params["broadcast_dimensions"]
    axes: list[tuple[int, ...]] = [()] * len(aval.shape)
    for axis, to in enumerate(places):
        if x.shape[axis] != aval.shape[to] and x.axes[axis]:
            if x.grid_dims(axis) or len(x.axes[axis]) > 1:
                operation.fail("it repeats positions or images")
            continue  # one channel, repeated
        axes[to] = x.axes[axis]

    def fill(outside: Node) -> Node:
        stored = [1] * len(aval.shape)
        for n, to in zip(outside.stored, places):
            stored[to] = n
        run = functools.partial(jnp.reshape, shape=stored)
        return operation.trace.plain(aval, [outside], run, stored=stored)

    return relabelled(operation, x, tuple(axes), fill)


@rule("squeeze")
def _squeeze(operation: Operation, x: Node) -> Node:
    gone = operation.params["dimensions"]
    kept = [a for a in range(len(x.shape)) if a not in gone]
    if any(0 in x.grid_dims(a) for a in gone):
        operation.fail("it drops the batch")

    def fill(outside: Node) -> Node:
        stored = [outside.stored[a] for a in kept]
        run = functools.partial(jnp.reshape, shape=stored)
        return operation.trace.plain(operation.aval, [outside], run, stored=stored)

    return relabelled(operation, x, tuple(x.axes[a] for a in kept), fill)


class Factor(NamedTuple):
    """Part of an axis.

    Attributes:
      size: how many entries.
      dim: the stored dimension that it belongs to; None where one entry is repeated.
    """

    size: int
    dim: int | None


@rule("reshape")
def _reshape(operation: Operation, x: Node) -> Node:
    if operation.params.get("dimensions") is not None:
        operation.fail("a reshape that permutes")
    x = realised(operation.trace, x)
    if _grouped(_factors(x), operation.aval.shape) is None:
        x = normal(operation.trace, x)  # channels that were merged in another order
    groups = _cut(operation, x)
    if any(len(g) > 1 and any(f.dim is None for f in g) for g in groups):
        x = _with_repeats(operation, x, groups)
        groups = _cut(operation, x)
    x, groups = _split_dims(operation.trace, x, groups)
    rank = len(x.grid)
    sizes = (*x.grid, *x.channels)
    mixed = [
        a
        for a, dims in enumerate(groups)
        if any(0 < d < rank and sizes[d] > 1 for d in dims)
        and any(d >= rank and sizes[d] > 1 for d in dims)
    ]
    if not mixed:
        return relabelled(operation, x, groups)
    inside = {d for a in mixed for d in groups[a] if 0 < d < rank}
    flattened = len(mixed) == 1 and inside == {d for d in range(1, rank) if x.grid[d] > 1}
    if flattened or any(0 in groups[a] for a in mixed):  # the latter on the way to another order
        return relabelled(operation, x, groups)
    if inside == set(range(1, rank)):
        operation.fail("it merges positions with channels, in several axes")
    return _into_channels(operation, x, groups, sorted(inside))


def _factors(x: Node) -> list[Factor]:
    sizes, factors = (*x.grid, *x.channels), []
    for axis, n in enumerate(x.shape):
        factors += [Factor(sizes[d], d) for d in x.axes[axis]] or [Factor(n, None)]
    return factors


def _cut(operation: Operation, x: Node) -> list[list[Factor]]:
    """The factors of each axis of the result, or an error."""
    groups = _grouped(_factors(x), operation.aval.shape)
    if groups is None:
        operation.fail("a reshape that cuts across axes")
    return groups


def _grouped(factors: list[Factor], shape: Sequence[int]) -> list[list[Factor]] | None:
    """The factors of each axis of the result, in order; a factor may be cut in two.

    None where that would cut across axes.
    """
    groups: list[list[Factor]] = []
    for size in shape:
        group, product = [], 1
        while factors and (product < size or (size == 1 and not group and factors[0].size == 1)):
            factor = factors.pop(0)
            if factor.size == 1:
                of_batch = factor.dim == 0
                if (of_batch or size == 1) and factor.dim is not None:
                    group.append(factor)
                if size == 1:
                    break
                continue
            needed = size // product
            if factor.size > needed:
                if factor.size % needed:
                    return None
                factors.insert(0, Factor(factor.size // needed, factor.dim))
                factor = Factor(needed, factor.dim)
            group.append(factor)
            product *= factor.size
        if product != size:
            return None
        groups.append(group)
    return groups


def _with_repeats(operation: Operation, x: Node, groups: list[list[Factor]]) -> Node:
    """The node with entries that are repeated along an axis made: they merge with others."""
    rank = len(x.grid)
    of_positions = any(
        f.dim is not None and 0 < f.dim < rank
        for g in groups
        if any(f.dim is None for f in g) and len(g) > 1
        for f in g
    )
    new = [a for a, n in enumerate(x.shape) if n > 1 and not x.axes[a]]
    if of_positions:
        return _repeated_positions(x, new)
    return _repeated_channels(operation.trace, x, new)


def _repeated_channels(trace: Trace, x: Node, new: Sequence[int]) -> Node:
    axes, sizes = list(x.axes), [x.shape[a] for a in new]
    for i, a in enumerate(new):
        axes[a] = (len(x.grid) + len(x.channels) + i,)
    channels = [*x.channels, *sizes]

    def repeat(values: jax.Array) -> jax.Array:
        wide = values.reshape(*values.shape, *(1 for _ in sizes))
        wide = jnp.broadcast_to(wide, (*values.shape, *sizes))
        return wide.reshape(*values.shape[:-1], math.prod(channels))

    aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pointwise(trace, aval, [x], repeat, like=x, axes=tuple(axes), channels=channels)


def _repeated_positions(x: Node, new: Sequence[int]) -> Node:
    rank, sizes = len(x.grid), [x.shape[a] for a in new]
    axes = [tuple(d + len(new) if d >= rank else d for d in own) for own in x.axes]
    for i, a in enumerate(new):
        axes[a] = (rank + i,)
    grid = (*x.grid, *sizes)

    def run(value: Any) -> Any:
        values, mask = full_size(value)
        at = tuple(range(rank, len(grid)))
        values = jnp.broadcast_to(jnp.expand_dims(values, at), (*grid, values.shape[-1]))
        return layers.Masked(values, jnp.broadcast_to(jnp.expand_dims(mask, at), grid))

    of = (*x.symbol.of, *(frozenset[int]() for _ in sizes))
    mask = x.symbol.other(("repeated", tuple(sizes)), grid, of)
    aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return Node(aval, (x,), run, mask=mask, axes=tuple(axes), channels=x.channels)


def _split_dims(trace: Trace, x: Node, groups: list[list[Factor]]) -> tuple[Node, Axes]:
    """The node with its dimensions cut as the groups say, and its axes by them."""
    rank = len(x.grid)
    sizes: list[list[int]] = [[] for _ in range(rank + len(x.channels))]
    for group in groups:
        for size, dim in group:
            if dim is not None:
                sizes[dim].append(size)
    old = (*x.grid, *x.channels)
    pieces = [own or [n] for own, n in zip(sizes, old)]
    first = [sum(map(len, pieces[:d])) for d in range(len(pieces))]
    used = dict.fromkeys(range(len(pieces)), 0)
    axes = []
    for group in groups:
        dims = []
        for _, dim in group:
            if dim is not None:
                dims.append(first[dim] + used[dim])
                used[dim] += 1
        axes.append(tuple(dims))
    grid = [n for own in pieces[:rank] for n in own]
    channels = [n for own in pieces[rank:] for n in own]
    if len(pieces[0]) > 1:
        raise_batch()
    of = [x.symbol.of[d] for d, own in enumerate(pieces[:rank]) for _ in own]
    return _with_grid(trace, x, grid, channels, of), tuple(axes)


def raise_batch() -> NoReturn:
    """Raises the error for a batch that is cut in two."""
    raise LayerMaskError("it cuts the batch in two")


def _with_grid(trace: Trace, x: Node, grid: Sequence[int], channels: Sequence[int], of) -> Node:
    """The node with positions cut into more dimensions; its axes are those of the caller."""
    grid = tuple(grid)
    if grid == x.grid and tuple(channels) == x.channels:
        return x
    aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
    if grid == x.grid:
        return pointwise(trace, aval, [x], lambda v: v, like=x, channels=channels)

    run = functools.partial(reshaped, grid=grid)
    mask = x.symbol.other("cut", grid, of)
    return Node(aval, (x,), run, mask=mask, axes=x.axes, channels=channels)


def _into_channels(operation: Operation, x: Node, axes: Axes, inside: Sequence[int]) -> Node:
    """Positions that become channels, as in space to depth: known where all of them are."""
    rank = len(x.grid)
    kept = [d for d in range(rank) if d not in inside]
    grid = [x.grid[d] for d in kept]
    place = {d: i for i, d in enumerate((*kept, *inside, *range(rank, rank + len(x.channels))))}
    channels = [*(x.grid[d] for d in inside), *x.channels]

    def run(value: Any) -> Any:
        values, mask = full_size(value)
        values = jnp.transpose(values, (*kept, *inside, rank))
        mask = mask.all(axis=tuple(inside))
        return layers.Masked(layers.select(mask, values.reshape(*grid, math.prod(channels))), mask)

    return operation.trace.masked(
        operation.aval,
        (x,),
        run,
        mask=x.symbol.other(("into channels", tuple(inside)), grid, [x.symbol.of[d] for d in kept]),
        axes=tuple(tuple(place[d] for d in own) for own in axes),
        channels=channels,
    )
