"""Where operands meet: one grid for all, and channels for the axes of the array."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.nodes import LayerMaskError, Node, full_size, inverse, reshaped
from lmjax.masking.transform.origins import Axes
from lmjax.masking.transform.pointwise import normal, pointwise
from lmjax.masking.transform.symbols import Symbol
from lmjax.masking.transform.tracing import Trace, realised


class Target:
    """Where the operands of an operation meet: a grid, and channels for axes of the array."""

    def __init__(self, mask: Symbol, axes: Axes, channels: Sequence[int]):
        self.mask, self.axes, self.channels = mask, axes, tuple(channels)

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the grid."""
        return self.mask.shape

    def spread(self, node: Node) -> Callable:
        """Returns a function that gives a masked operand's `[*lead, c]` all channels, or one."""
        own = [1] * len(self.channels)
        for axis in range(len(node.shape)):
            for dim, mine in zip(self._channel_dims(axis), node.channel_dims(axis)):
                own[dim] = node.channels[mine]
        if tuple(own) == self.channels or math.prod(own) == 1:
            return lambda x: x

        def run(x: jax.Array) -> jax.Array:
            lead = x.shape[:-1]
            x = jnp.broadcast_to(x.reshape(*lead, *own), (*lead, *self.channels))
            return x.reshape(*lead, math.prod(self.channels))

        return run

    def _channel_dims(self, axis: int) -> list[int]:
        return [d - len(self.grid) for d in self.axes[axis] if d >= len(self.grid)]

    def place(self, node: Node) -> Callable:
        """Returns a function that turns a plain array into `[*grid, C]`, with ones where it can."""
        sizes, rank = (*self.grid, *self.channels), len(self.grid)
        if not node.stored:
            return lambda value: jnp.reshape(value, (1,) * (rank + 1))
        order = [d for dims in self.axes for d in dims]
        split: list[int] = []
        for size, dims in zip(node.stored, self.axes):
            split += [1] * len(dims) if size == 1 else [sizes[d] for d in dims]
        missing = [d for d in range(len(sizes)) if d not in order]
        where = inverse([*order, *missing])
        wide = [*split, *(1 for _ in missing)]
        lead, own = [wide[i] for i in where][:rank], [wide[i] for i in where][rank:]
        channels = own if math.prod(own) == 1 else self.channels

        def run(value: Any) -> jax.Array:
            x = jnp.transpose(jnp.reshape(value, wide), where)
            return jnp.broadcast_to(x, (*lead, *channels)).reshape(*lead, math.prod(channels))

        return run


def meet(trace: Trace, operands: Sequence[Node]) -> tuple[list[Node], Target]:
    """Returns operands of one grid (plain ones as they are), and where they meet."""
    operands = [normal(trace, x) if x.masked else x for x in operands]
    masked = [x for x in operands if x.masked]
    lead = max(masked, key=_dims)
    if any(grid_axes(x) != grid_axes(lead) or x.grid != lead.grid for x in masked):
        operands = unmerged(trace, operands)
        masked = [x for x in operands if x.masked]
        lead = max(masked, key=_dims)
        axes, shape = union(masked, lead)
        operands = [on_grid(trace, x, axes, shape) if x.masked else x for x in operands]
        masked = [x for x in operands if x.masked]
        lead = masked[0]
    mask = functools.reduce(Symbol.both, [x.symbol for x in masked])
    axes, channels, rank = [], [], len(mask.shape)
    for axis in range(len(lead.shape)):
        dims, size = lead.grid_dims(axis), max(x.shape[axis] for x in operands if x.shape)
        rest = size // math.prod((n for n in _sizes(lead, dims)), start=1)
        varies = any(x.channel_dims(axis) for x in masked)
        plain = any(x.stored and x.stored[axis] > 1 for x in operands if not x.masked)
        if rest > 1 and (varies or (plain and not dims)):
            axes.append((*dims, rank + len(channels)))
            channels.append(rest)
        else:
            axes.append(dims)
    return operands, Target(mask, tuple(axes), channels or [1])


def _dims(x: Node) -> int:
    """How many dimensions of the grid its axes have."""
    return sum(map(len, grid_axes(x)))


def unmerged(trace: Trace, operands: Sequence[Node]) -> list[Node]:
    """Returns operands whose positions along each axis are one dimension, where they differ."""
    operands = list(operands)
    masked = [x for x in operands if x.masked]
    for axis in range(len(masked[0].shape)):
        cuts = {tuple(x.grid[d] for d in x.grid_dims(axis)) for x in masked if x.grid_dims(axis)}
        if len(cuts) > 1:
            operands = [
                normal(trace, one_dimension(trace, x, axis)) if x.masked else x for x in operands
            ]
    return operands


def _sizes(node: Node, dims: Sequence[int]):
    return (node.grid[d] + sum(node.pads[d]) for d in dims)


def grid_axes(node: Node) -> Axes:
    """Returns for each axis of a traced array the dimensions of the grid that it stands for."""
    return tuple(node.grid_dims(axis) for axis in range(len(node.shape)))


def union(masked: Sequence[Node], lead: Node) -> tuple[Axes, tuple[int, ...]]:
    """Dimensions that all operands fit into: those of the lead, then what others add."""
    axes, shape = list(grid_axes(lead)), list(lead.grid)
    for node in masked:
        for axis, dims in enumerate(grid_axes(node)):
            if dims and not axes[axis] and dims != (0,):
                axes[axis] = tuple(range(len(shape), len(shape) + len(dims)))
                shape += [node.grid[d] for d in dims]
            elif dims and not axes[axis]:
                axes[axis] = (0,)
    return tuple(axes), tuple(shape)


def _correspondence(node: Node, axes: Axes, rank: int) -> list[int | None]:
    """For each dimension of another grid the one of the node; None where it has none."""
    source: list[int | None] = [None] * rank
    for mine, theirs in zip(grid_axes(node), axes):
        if mine and (len(mine) != len(theirs)):
            raise LayerMaskError("positions are merged into one axis in one operand alone")
        for d, to in zip(mine, theirs):
            source[to] = d
    used = {d for d in source if d is not None}
    if any(n > 1 for d, n in enumerate(node.grid) if d not in used):
        raise LayerMaskError("operands whose positions do not correspond")
    if 0 not in used:
        raise LayerMaskError("an operand without a batch axis that has positions")
    return source


def on_grid(trace: Trace, node: Node, axes: Axes, shape: tuple[int, ...]) -> Node:
    """Returns a node on a grid with more dimensions, or with the same ones in another order."""
    if grid_axes(node) == axes and node.grid == shape:
        return node
    if node.outside is not None:
        node = realised(trace, node)
    source = _correspondence(node, axes, len(shape))
    used = {d for d in source if d is not None}
    order = [d for d in source if d is not None]
    new = tuple(i for i, d in enumerate(source) if d is None)
    squeezed = tuple(d for d in range(len(node.grid)) if d not in used)
    order = [d - sum(s < d for s in squeezed) for d in order]

    def arrange(x: jax.Array, rank: int) -> jax.Array:
        rest = tuple(range(len(order), rank - len(squeezed)))
        x = jnp.transpose(jnp.squeeze(x, squeezed), (*order, *rest))
        x = jnp.expand_dims(x, new)
        return jnp.broadcast_to(x, (*shape, *x.shape[len(shape) :]))

    def run(value: Any) -> Any:
        x, mask = full_size(value)
        return layers.Masked(arrange(x, x.ndim), arrange(mask, mask.ndim))

    rank, number = len(shape), len(node.grid)
    own = tuple(
        theirs + tuple(rank + d - number for d in node.axes[axis] if d >= number)
        if node.grid_dims(axis)
        else tuple(rank + d - number for d in node.axes[axis])
        for axis, theirs in enumerate(axes)
    )
    return Node(
        jax.ShapeDtypeStruct(node.shape, node.dtype),
        [node],
        run,
        mask=node.symbol.other(
            ("arranged", tuple(source)),
            shape,
            [frozenset() if d is None else node.symbol.of[d] for d in source],
        ),
        axes=own,
        channels=node.channels,
    )


def one_dimension(trace: Trace, x: Node, axis: int) -> Node:
    """Returns a node whose positions along an axis are one dimension of the grid."""
    dims = x.grid_dims(axis)
    if len(dims) < 2:
        return x
    if 0 in dims:
        raise LayerMaskError(f"it works along axis {axis}, which holds the batch and positions")
    x = realised(trace, x)
    order = [d for d in range(len(x.grid)) if d not in dims[1:]]
    at = order.index(dims[0])
    order[at : at + 1] = list(dims)
    shape = [x.grid[d] for d in order]
    shape[at : at + len(dims)] = [int(np.prod([x.grid[d] for d in dims]))]
    left = [d for d in order if d not in dims[1:]]
    of = [x.symbol.of[d] for d in left]
    of[at] = x.symbol.sources(dims)
    place = {d: i for i, d in enumerate(left)}
    rank, shift = len(x.grid), len(shape) - len(x.grid)
    axes = tuple(
        (at, *(d + shift for d in own if d >= rank))
        if a == axis
        else tuple(place[d] if d < rank else d + shift for d in own)
        for a, own in enumerate(x.axes)
    )

    def run(value: Any) -> Any:
        values, mask = full_size(value)
        mask = jnp.transpose(mask, order).reshape(shape)
        values = jnp.transpose(values, (*order, rank)).reshape(*shape, values.shape[-1])
        return layers.Masked(values, mask)

    aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
    mask = x.symbol.other(("one dimension", tuple(order), at), shape, of)
    return Node(aval, (x,), run, mask=mask, axes=axes, channels=x.channels)


def as_image(trace: Trace, node: Node, space: Sequence[int]) -> Node:
    """Returns a node with two dimensions of positions, for windows that slide over some axes.

    Args:
      trace: to add it to.
      node: the value.
      space: its axes of rows and columns, of which one may have one entry and no positions, or may
        not be there.
    """
    if len(node.grid) > 3:
        node = _without_unused(node)
    bare = [a for a in space if node.shape[a] == 1 and not node.axes[a]]
    axes, rank = list(node.axes), len(node.grid)
    unused = [d for d in range(1, rank) if not any(d in own for own in axes)]
    new = max(3 - rank, len(bare) - len(unused), 0)
    if rank + new > 3 or not (bare or new):
        return node
    free = iter([*unused, *range(rank, rank + new)])
    axes = [tuple(d + new if d >= rank else d for d in own) for own in axes]
    for axis in bare:
        axes[axis] = (next(free),)
    if not new:
        return _relabelled(trace, node, tuple(axes))
    shape = (*node.grid, *(1 for _ in range(new)))
    run = functools.partial(reshaped, grid=shape)
    of = (*node.symbol.of, *(frozenset[int]() for _ in range(new)))
    mask = node.symbol.other(("as image", new), shape, of)
    aval = jax.ShapeDtypeStruct(node.shape, node.dtype)
    return Node(aval, (node,), run, mask=mask, axes=tuple(axes), channels=node.channels)


def _without_unused(node: Node) -> Node:
    """The node without dimensions of one position that no axis stands for."""
    rank, used = len(node.grid), {d for own in node.axes for d in own}
    kept = [d for d in range(rank) if d == 0 or d in used or node.grid[d] > 1]
    if len(kept) == rank:
        return node
    shape = [node.grid[d] for d in kept]
    place = {d: i for i, d in enumerate([*kept, *range(rank, rank + len(node.channels))])}
    run = functools.partial(reshaped, grid=shape)
    mask = node.symbol.other(("used", *kept), shape, [node.symbol.of[d] for d in kept])
    axes = tuple(tuple(place[d] for d in own) for own in node.axes)
    aval = jax.ShapeDtypeStruct(node.shape, node.dtype)
    return Node(aval, (node,), run, mask=mask, axes=axes, channels=node.channels)


def _relabelled(trace: Trace, node: Node, axes: Axes) -> Node:
    aval = jax.ShapeDtypeStruct(node.shape, node.dtype)
    return pointwise(trace, aval, [node], lambda x: x, like=node, axes=axes)


def placed(trace: Trace, node: Node, target: Target) -> Node:
    """A plain operand as `[*grid, C]`; 1 where it repeats one entry."""
    place = target.place(node)
    shape = jax.eval_shape(place, jax.ShapeDtypeStruct(node.stored, node.dtype))
    return trace.plain(shape, [node], place)
