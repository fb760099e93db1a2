"""Axes in which positions and channels are merged, as in an image that was flattened.

Such an axis stands for dimensions of the grid and for channels, in the order in which they were
merged. Rules want positions first, as they are stored; here is how operands come to that order.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lmjax.masking.transform.nodes import LayerMaskError, Node
from lmjax.masking.transform.pointwise import pointwise
from lmjax.masking.transform.tracing import Trace

Order = tuple[int | None, ...]


def positions_first(trace: Trace, x: Node, over: Sequence[int]) -> Node:
    """Returns a node whose positions come before channels, in axes along which order is all one.

    Args:
      trace: to add it to.
      x: a node with positions.
      over: the axes, which are about to be summed.
    """
    axes = tuple(_sorted(x, axis) if axis in over else own for axis, own in enumerate(x.axes))
    if axes == x.axes:
        return x
    aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
    made = pointwise(trace, aval, [x], lambda values: values, like=x, axes=axes)
    made.weight, made.share, made.place = x.weight, x.share, x.place
    return made


def _sorted(x: Node, axis: int) -> tuple[int, ...]:
    """The dimensions of an axis, those of the grid first."""
    channels = (len(x.grid) + d for d in x.channel_dims(axis))
    return (*x.grid_dims(axis), *channels)


def in_order(trace: Trace, operands: Sequence[Node]) -> tuple[list[Node], dict[int, Order]]:
    """Returns operands whose positions come before channels, in axes that have both.

    An image that was flattened with its channels first has them in front of positions. Operands
    meet with positions first; `put_back` restores the order in the result.

    Args:
      trace: to add to.
      operands: that broadcast to each other.

    Returns:
      operands: of which plain ones are arranged like those with positions.
      orders: of each axis that was changed, the sizes of its positions, and None for channels.

    Raises:
      LayerMaskError: operands were flattened in different ways.
    """
    operands, orders = list(operands), {}
    for axis in {axis for x in operands if x.masked for axis in x.merged}:
        runs = {_runs(x, axis) for x in operands if x.masked and x.axes[axis]}
        if len(runs) > 1:
            raise LayerMaskError(f"positions and channels of axis {axis} were merged differently")
        sizes, which = zip(*runs.pop())
        if which == tuple(sorted(which)):
            continue
        if which.count(True) > 1:
            raise LayerMaskError(f"axis {axis} holds channels between positions")
        orders[axis] = tuple(None if channel else n for n, channel in zip(sizes, which))
        arrange = functools.partial(_arranged, axis=axis, sizes=sizes, channels=which.index(True))
        operands = [
            positions_first(trace, x, [axis]) if x.masked else _plain(trace, x, axis, arrange)
            for x in operands
        ]
    return operands, orders


def _runs(x: Node, axis: int) -> tuple[tuple[int, bool], ...]:
    """Sizes of what an axis holds, and whether it is channels, which are one where they adjoin."""
    sizes, rank, runs = (*x.grid, *x.channels), len(x.grid), []
    for channel, dims in itertools.groupby(x.axes[axis], lambda d: d >= rank):
        own = [sizes[d] for d in dims]
        runs += [(math.prod(own), True)] if channel else [(n, False) for n in own]
    return tuple(runs)


def _plain(trace: Trace, x: Node, axis: int, arrange: Callable) -> Node:
    if not x.stored or x.stored[axis] == 1:
        return x
    aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return trace.plain(aval, [x], arrange, stored=x.stored)


def _arranged(value: Any, *, axis: int, sizes: Sequence[int], channels: int) -> jax.Array:
    """An array whose channels come last within an axis."""
    value = jnp.asarray(value)
    apart = value.reshape(*value.shape[:axis], *sizes, *value.shape[axis + 1 :])
    last = jnp.moveaxis(apart, axis + channels, axis + len(sizes) - 1)
    return last.reshape(value.shape)


def put_back(node: Node, orders: dict[int, Order]) -> None:
    """Gives the axes of a new node the orders that `in_order` changed."""
    axes = list(node.axes)
    for axis, order in orders.items():
        positions = iter(node.grid_dims(axis))
        channels = tuple(len(node.grid) + d for d in node.channel_dims(axis))
        if len(node.grid_dims(axis)) != len(order) - 1:
            raise LayerMaskError(f"positions of axis {axis} were merged with channels elsewhere")
        own = [channels if size is None else (next(positions),) for size in order]
        axes[axis] = tuple(itertools.chain.from_iterable(own))
    node.axes = tuple(axes)
