"""How many visible positions a value stands for, where a mean is taken axis by axis.

The mean over columns of means over rows is the mean over all visible positions only if each column
counts as often as it has visible rows. So a sum over some positions carries its counts, through
everything that only moves or scales it, up to the sum over the others.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lmjax.masking import layers
from lmjax.masking.transform.nodes import Node, full_size
from lmjax.masking.transform.operation import RULES, Operation
from lmjax.masking.transform.origins import Place, Weight

_MOVES = frozenset(
    [
        *("broadcast_in_dim", "concatenate", "reshape", "slice", "split", "squeeze", "stack"),
        *("transpose", "expand_dims", "rev"),
    ]
)
_SCALES = frozenset(["mul", "div", "neg", "convert_element_type", "copy"])
_SHIFTS = frozenset(["add", "sub"])
_OVER_CHANNELS = frozenset(["dot_general", "conv_general_dilated"])
_CUTS = frozenset(["slice", "split", "dynamic_slice"])
_POOLS = frozenset(["reduce_sum", "reduce_max", "reduce_min"])


def ratio(total: float | jax.Array, count: jax.Array) -> jax.Array:
    """Returns how often each visible position counts where they stand for all; 0 without any."""
    return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0)


def weight_over(x: Node, dims: Iterable[int]) -> Weight | None:
    """Returns the weight of a node in a sum over dimensions of its grid.

    None where they were pooled before: what is there now are the results, which count alike.
    """
    pooled_again = x.weight is not None and x.weight.pooled & x.symbol.sources(dims)
    return None if pooled_again else x.weight


def follow(operation: Operation, operands: Sequence[Node], results: Sequence[Node]) -> None:
    """Gives the results of an operation the weights and places of its operands, if they keep them.

    Args:
      operation: it.
      operands: its operands.
      results: as its rule made them.
    """
    masked = [x for x in operands if x.masked]
    if operation.name == "squeeze" and results[0].masked:
        results[0].slices = masked[0].slices
    if all(y.masked for y in results):
        _weigh(operation, operands, masked, results)
        _locate(operation, operands, masked, results)


def _weigh(operation: Operation, operands, masked: Sequence[Node], results) -> None:
    if any(x.weight is None for x in masked):
        return
    if operation.name in _MOVES and len(masked) == len(operands):
        counts = _moved(operation, [x.weight.counts for x in operands], operands)
        joined = any(math.prod(count.channels) > 1 for count in counts if count.masked)
        if joined or any(y.merged for y in results):
            counts = _moved(operation, list(map(_for_each_channel, operands)), operands)
        pooled = frozenset().union(*(x.weight.pooled for x in operands))
        for y, count in zip(results, counts):
            y.weight = Weight(count, pooled) if count.masked else None
    if len(masked) == 1 and _treats_alike(operation, masked[0], operands, results[0]):
        weight: Any = masked[0].weight
        results[0].weight = Weight(_counts_for(results[0], weight.counts), weight.pooled)


def _treats_alike(operation: Operation, x: Node, operands: Sequence[Node], y: Node) -> bool:
    """Whether an operation does the same to all positions, and means stay means under it."""
    if operation.name in _OVER_CHANNELS:
        weight: Any = x.weight
        return y.symbol is x.symbol and math.prod(weight.counts.channels) == 1
    if operation.name not in _SCALES | _SHIFTS or y.grid != x.grid:
        return False
    return not any(
        n > 1 and x.of_positions(axis)
        for each in operands
        if not each.masked
        for axis, n in enumerate(each.stored)
    )


def _counts_for(y: Node, counts: Node) -> Node:
    """The counts as those of another value on the same grid."""
    if counts.shape == y.shape:
        return counts
    axes = tuple(y.grid_dims(axis) for axis in range(len(y.shape)))
    aval = jax.ShapeDtypeStruct(y.shape, y.dtype)
    known = {"mask": y.mask, "axes": axes, "channels": counts.channels}
    return Node(aval, [counts], lambda value: value, **known)


def _moved(operation: Operation, counts: Sequence[Node], operands: Sequence[Node]) -> list[Node]:
    for count, x in zip(counts, operands):
        count.place = x.place
    results = RULES[operation.name](operation, *counts)
    return results if isinstance(results, list) else [results]


def _for_each_channel(x: Node) -> Node:
    """The counts of a node, for each channel: they are joined with others, or with positions."""
    assert x.weight is not None
    known = {"mask": x.mask, "axes": x.axes, "channels": x.channels}
    number = math.prod(x.channels)

    def run(counts: Any) -> Any:
        y, mask = full_size(counts)
        return layers.Masked(jnp.broadcast_to(y, (*mask.shape, number)), mask)

    return Node(jax.ShapeDtypeStruct(x.shape, x.dtype), [x.weight.counts], run, **known)


def _locate(operation: Operation, operands, masked: Sequence[Node], results) -> None:
    """Pieces of one value that are joined again are no branches: each has positions of its own."""
    x = masked[0]
    if operation.name in _CUTS | _POOLS and any(y.grid != x.grid for y in results):
        axes = operation.params.get("axes")
        if axes is None:
            axes = [a for a, n in enumerate(x.shape) if any(y.shape[a] != n for y in results)]
        changed = {d for axis in axes for d in x.grid_dims(axis)}
        old = x.place or Place(x, frozenset())
        place = Place(old.source, old.cut | x.symbol.sources(changed))
        for y in results:
            y.place = place
    elif operation.name in _MOVES | _SCALES | _POOLS | _CUTS and _are_numbers(operands):
        places = [x.place for x in masked if x.place is not None]
        if len(places) == len(masked) and len({p.source for p in places}) == 1:
            cut = frozenset[int]().union(*(p.cut for p in places))
            for y in results:
                y.place = Place(places[0].source, cut)


def _are_numbers(operands: Sequence[Node]) -> bool:
    """Whether all operands but those with positions are one number each."""
    return all(x.masked or math.prod(x.stored) == 1 for x in operands)
