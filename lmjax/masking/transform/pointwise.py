"""Functions of each position's channels, with plain arrays beside them."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import core

from lmjax.masking import layers
from lmjax.masking.transform.nodes import LayerMaskError, Node
from lmjax.masking.transform.tracing import Trace


class Pointwise(Node):
    """A function of each position's channels, and of plain arrays that broadcast to them.

    Attributes:
      function: takes one array `[*lead, C]` for each input, where `lead` is the grid, or rows; and
        `[..., 1]` where an input repeats one entry. Chains of these nodes are composed.
      of_entries: the same function of one entry of each input, if it works entry by entry.
      risky: whether its slope may be infinite.
    """

    def __init__(self, aval: Any, inputs: Sequence[Node], function: Callable, **known: Any):
        super().__init__(aval, inputs, **known)
        self.function, self.risky = function, False
        self.of_entries: Callable | None = None

    def where_hidden(self, entries: Sequence[np.ndarray | None]) -> np.ndarray | None:
        """Returns what it gives where its inputs hold these entries; None where that is unknown."""
        known = [entry for entry in entries if entry is not None]
        if self.of_entries is None or self.risky or len(known) < len(entries):
            return None
        with core.eval_context():
            return np.asarray(self.of_entries(*known))


def apply_pointwise(
    inputs: Sequence[Node], function: Callable, values: Sequence[Any], *, keeps_zero: bool = False
) -> Any:
    """Runs a function of channels on stored values and arrays.

    Args:
      inputs: of the function.
      function: of them, in their order.
      values: of the inputs.
      keeps_zero: whether it gives 0 where all masked inputs, which have one mask, hold 0. At full
        size it is applied as it is then; see `layers.pointwise`.
    """
    values = _alike(inputs, values)
    first = next(i for i, x in enumerate(inputs) if x.masked)
    if keeps_zero and isinstance(values[first], layers.Masked):
        rank = values[first].x.ndim
        arrays = (v.x if x.masked else jnp.reshape(v, (1,) * rank) for x, v in zip(inputs, values))
        return layers.Masked(function(*arrays), values[first].mask)
    order = [first, *(i for i in range(len(inputs)) if i != first)]

    def in_order(*arrays: jax.Array) -> jax.Array:
        placed = dict(zip(order, arrays))
        return function(*(placed[i] for i in range(len(inputs))))

    return layers.pointwise(values[first], in_order, *(values[i] for i in order[1:]))


def _alike(inputs: Sequence[Node], values: Sequence[Any]) -> list[Any]:
    """The values, all at full size where one of them is, as behind a resize."""
    masked = [v for x, v in zip(inputs, values) if x.masked]
    if len({isinstance(v, layers.Masked) for v in masked}) < 2:
        return list(values)
    return [layers.full_size(v) if x.masked else v for x, v in zip(inputs, values)]


def pointwise(
    trace: Trace,
    aval: Any,
    inputs: Sequence[Node],
    function: Callable,
    *,
    like: Node | None = None,
    **known: Any,
) -> Node:
    """Returns a node for a function of channels; `like` gives what `known` does not say."""
    if like is not None:
        base = {"mask": like.mask, "axes": like.axes, "channels": like.channels}
        known = {**base, "outside": like.outside, **known}
    return trace.settled(Pointwise(aval, inputs, function, **known))


# Channels.


def on_channels(node: Node, function: Callable) -> Callable:
    """Returns a function of `[*lead, C]` from one of `[*lead, *channels]`."""

    def run(x: jax.Array) -> jax.Array:
        lead = x.shape[:-1]
        y = function(x.reshape(*lead, *node.channels))
        return y.reshape(*lead, math.prod(y.shape[len(lead) :]))

    return run


def normal(trace: Trace, node: Node) -> Node:
    """Returns a node with at most one channel dimension for each axis, in the order of axes."""
    order = [d for axis in range(len(node.shape)) for d in node.channel_dims(axis)]
    order += [d for d in range(len(node.channels)) if d not in order]  # of one entry
    groups = [node.channel_dims(axis) for axis in range(len(node.shape))]
    sizes = [math.prod(node.channels[d] for d in dims) for dims in groups if dims]
    if order == list(range(len(order))) and sizes == list(node.channels):
        return node
    rank, number, axes = len(node.grid), iter(range(len(sizes))), []
    for axis, dims in enumerate(groups):
        _check_order(node, axis)
        axes.append(node.grid_dims(axis) + ((rank + next(number),) if dims else ()))

    def make() -> Node:
        permute = functools.partial(_permuted, order=order)
        result = pointwise(
            trace,
            jax.ShapeDtypeStruct(node.shape, node.dtype),
            [node],
            on_channels(node, permute),
            like=node,
            axes=tuple(axes),
            channels=sizes,
        )
        result.place, result.slices, result.weight = node.place, node.slices, node.weight
        result.share = node.share
        return result

    return node.symbol.once(("normal", node), make)


def _permuted(x: jax.Array, order: Sequence[int]) -> jax.Array:
    lead = x.ndim - len(order)
    return jnp.transpose(x, (*range(lead), *(lead + d for d in order)))


def _check_order(node: Node, axis: int) -> None:
    grid, channels = node.grid_dims(axis), node.channel_dims(axis)
    if grid and channels and node.axes[axis] != (*grid, *(len(node.grid) + d for d in channels)):
        raise LayerMaskError(f"axis {axis} holds channels in front of positions or of the batch")


def channel_of(node: Node, axis: int) -> int:
    """Returns the number, from behind, of the channel dimension of an axis (of a normal node)."""
    (dim,) = node.channel_dims(axis)
    return dim - len(node.channels)
