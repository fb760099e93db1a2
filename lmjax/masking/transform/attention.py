"""Products of two values with positions: attention, where hidden ones do not count."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.masking import layers
from lmjax.masking.transform.nodes import Node, full_size, mask_layout
from lmjax.masking.transform.operation import Operation
from lmjax.masking.transform.symbols import Symbol
from lmjax.masking.transform.weights import ratio


def between(operation: Operation, a: Node, b: Node) -> Node:
    """A product of two values with positions: what is summed over positions counts visible ones."""
    ((ca, cb), (ba, bb)) = operation.params["dimension_numbers"]
    free_a = [(i, None) for i in range(len(a.shape)) if i not in (*ca, *ba)]
    free_b = [(None, j) for j in range(len(b.shape)) if j not in (*cb, *bb)]
    axes, grid, of, channels = _joint(operation, a, b, [*zip(ba, bb), *free_a, *free_b])
    result = Node(
        operation.aval,
        (a, b),
        mask=Symbol(grid, "other", (a.symbol, b.symbol), of=of),
        axes=axes,
        channels=channels,
    )
    narrow = mask_layout(result)
    total = math.prod(a.shape[i] for i, j in zip(ca, cb) if a.of_positions(i) or b.of_positions(j))
    counted = any(a.of_positions(i) or b.of_positions(j) for i, j in zip(ca, cb))
    pairs = [*zip(ca, cb), *zip(ba, bb)]

    def run(first: Any, second: Any) -> Any:
        first, second = full_size(first), full_size(second)
        y = operation.bind(a.array(first), b.array(second))
        count = _count(operation, pairs, a.mask_array(first.mask), b.mask_array(second.mask))
        mask = narrow.store(count > 0)[..., 0]
        if counted:
            y = (y * ratio(total, count.astype(layers.wide_type(y)))).astype(y.dtype)
        return layers.Masked(layers.select(mask, result.store(y)), mask)

    result.run = run
    return operation.trace.settled(result)


def _count(operation: Operation, pairs, first: jax.Array, second: jax.Array) -> jax.Array:
    """How many pairs of visible positions each sum is over."""
    one, two = list(first.shape), list(second.shape)
    for i, j in pairs:
        one[i] = two[j] = max(one[i], two[j])
    return lax.dot_general(
        jnp.broadcast_to(first, one).astype(jnp.float32),
        jnp.broadcast_to(second, two).astype(jnp.float32),
        operation.params["dimension_numbers"],
        precision=lax.Precision.HIGHEST,
    )


def _joint(operation: Operation, a: Node, b: Node, pairs: Sequence[tuple]):
    """Axes, grid and channels of the result, from the axes of both operands."""
    found, batch = [], 0
    for (i, j), size in zip(pairs, operation.aval.shape):
        mine = () if i is None else a.grid_dims(i)
        theirs = () if j is None else b.grid_dims(j)
        if mine and theirs and [a.grid[d] for d in mine] != [b.grid[d] for d in theirs]:
            operation.fail("positions are merged into one axis in one operand alone")
        sizes = [a.grid[d] for d in mine] or [b.grid[d] for d in theirs]
        sources = [a.symbol.of[d] for d in mine] or [b.symbol.of[d] for d in theirs]
        found.append((sizes, sources, 0 in mine or 0 in theirs, size // math.prod(sizes)))
        batch += 0 in mine or 0 in theirs
    if batch != 1:
        operation.fail("it multiplies different images")
    lead = next((sizes, sources) for sizes, sources, of_batch, _ in found if of_batch)
    grid, of, axes, slots = [lead[0][0]], [lead[1][0]], [], []
    for sizes, sources, of_batch, rest in found:
        dims = [0] if of_batch else []
        for n, source in list(zip(sizes, sources))[int(of_batch) :]:
            dims.append(len(grid))
            grid.append(n)
            of.append(source)
        axes.append((dims, rest))
    channels: list[int] = []
    for dims, rest in axes:
        slots.append((*dims, *((len(grid) + len(channels),) if rest > 1 else ())))
        channels += [rest] if rest > 1 else []
    return tuple(slots), grid, of, channels or [1]
