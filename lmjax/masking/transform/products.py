"""Products: dense layers at every position, attention between positions, fixed weights."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.masking import layers
from lmjax.masking.transform.convolutions import Convolution
from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Weight
from lmjax.masking.transform.pointwise import channel_of, normal, pointwise
from lmjax.masking.transform.symbols import Symbol, still
from lmjax.masking.transform.tracing import realised
from lmjax.masking.transform.weights import ratio, weight_over


class Product(NamedTuple):
    """A product of a value with positions and a plain array.

    Attributes:
      operation: the product.
      x, weights: its operands.
      contracted, batch: pairs of axes of `x` and of `weights`.
      free: for each axis of the result the axis of `x` that it is, or None.
      masked_first: whether `x` is the first operand.
    """

    operation: Operation
    x: Node
    weights: Node
    contracted: tuple[tuple[int, int], ...]
    batch: tuple[tuple[int, int], ...]
    free: tuple[int | None, ...]
    masked_first: bool

    def bind(self, x: jax.Array, weights: jax.Array) -> jax.Array:
        """Multiplies arrays in the traced layout."""
        return self.operation.bind(*((x, weights) if self.masked_first else (weights, x)))

    def multiply(self, x: jax.Array, weights: jax.Array) -> jax.Array:
        """Multiplies arrays of another type, along the same axes."""
        one = tuple(i for i, _ in self.contracted), tuple(j for _, j in self.contracted)
        two = tuple(i for i, _ in self.batch), tuple(j for _, j in self.batch)
        if self.masked_first:
            return lax.dot_general(x, weights, (one, two), precision=lax.Precision.HIGHEST)
        numbers = (one[::-1], two[::-1])
        return lax.dot_general(weights, x, numbers, precision=lax.Precision.HIGHEST)


@rule("dot_general")
def _dot(operation: Operation, a: Node, b: Node) -> Node:
    trace = operation.trace
    a, b = (normal(trace, realised(trace, x)) if x.masked else x for x in (a, b))
    if a.masked and b.masked:
        return _between(operation, a, b)
    product = _product(operation, a, b)
    if any(product.x.of_positions(i) for i, _ in product.contracted):
        return _over_positions(product)
    if any(product.x.grid_dims(i) for i, _ in product.contracted):
        operation.fail("it sums over the batch, so images are mixed")
    if product.batch or not all(product.x.channel_dims(i) for i, _ in product.contracted):
        return _in_layout(product)
    if _is_convolution(product):
        return _convolution(product)
    return _products(product)


def _product(operation: Operation, a: Node, b: Node) -> Product:
    ((ca, cb), (ba, bb)) = operation.params["dimension_numbers"]
    free_a = [i for i in range(len(a.shape)) if i not in (*ca, *ba)]
    free_b = [i for i in range(len(b.shape)) if i not in (*cb, *bb)]
    if a.masked:
        free = (*ba, *free_a, *(None for _ in free_b))
        return Product(operation, a, b, tuple(zip(ca, cb)), tuple(zip(ba, bb)), free, True)
    free = (*bb, *(None for _ in free_a), *free_b)
    return Product(operation, b, a, tuple(zip(cb, ca)), tuple(zip(bb, ba)), free, False)


def _result(product: Product, run: Any = None) -> Node:
    """A node with the positions of `x`, its free channels, and the free ones of the weights."""
    operation, x = product.operation, product.x
    channels, axes, rank = [], [], len(x.grid)
    for size, mine in zip(operation.aval.shape, product.free):
        grid = () if mine is None else x.grid_dims(mine)
        rest = size // math.prod(x.grid[d] for d in grid)
        of_channels = mine is None or x.channel_dims(mine)
        axes.append((*grid, *((rank + len(channels),) if of_channels else ())))
        channels += [rest] if of_channels else []
    return Node(
        operation.aval,
        (x, product.weights),
        run,
        mask=x.mask,
        axes=tuple(axes),
        channels=channels or [1],
    )


def _is_convolution(product: Product) -> bool:
    x, weights = product.x, product.weights
    return (
        len(x.grid) == 3
        and len(x.channels) == 1
        and len(weights.shape) == 2
        and len(product.contracted) == 1
        and jnp.issubdtype(x.dtype, jnp.floating)
        and x.dtype == product.operation.aval.dtype
    )


def _convolution(product: Product) -> Node:
    """A dense layer at every position of an image is a 1x1 convolution."""
    operation, x = product.operation, product.x
    ((_, theirs),) = product.contracted
    result, precision = _result(product), operation.params["precision"]
    if precision is not None and not product.masked_first:
        precision = tuple(reversed(precision))
    full = product.weights.shape

    def run(value: Any, weights: jax.Array, *, rings: int, keep: Any) -> Any:
        weights = jnp.broadcast_to(weights, full)
        kernel = weights if theirs == 0 else weights.T
        kernel = kernel[None, None].astype(value.x.dtype)
        return layers.conv(value, kernel, keep=keep, precision=precision)

    node = Convolution(
        operation.aval,
        (x, product.weights),
        run,
        mask=x.mask,
        axes=result.axes,
        channels=result.channels,
        slides=[still(n) for n in x.grid],
    )
    return operation.trace.settled(node)


def _products(product: Product) -> Node:
    """A sum over channels with weights, at every position by itself."""
    operation, x, weights = product.operation, product.x, product.weights
    trace, params = operation.trace, operation.params
    contracted = [channel_of(x, i) for i, _ in product.contracted]
    theirs = tuple(j for _, j in product.contracted)
    kept = [d for d in range(-len(x.channels), 0) if d not in contracted]
    result = _result(product)
    # lax gives what is left of x first, then what is left of the weights, each in order.
    order = [len(kept) if mine is None else None for mine in product.free]
    new = iter(range(len(kept), len(kept) + order.count(len(kept))))
    slots = []
    for mine in product.free:
        if mine is None:
            slots.append(next(new))
        elif x.channel_dims(mine):
            slots.append(kept.index(channel_of(x, mine)))

    def function(values: jax.Array, flat: jax.Array) -> jax.Array:
        lead = values.shape[:-1]
        values = values.reshape(*lead, *x.channels)
        numbers = ((tuple(values.ndim + d for d in contracted), theirs), ((), ()))
        y = lax.dot_general(
            values,
            flat.reshape(weights.shape),
            numbers,
            precision=_in_order(params["precision"], product.masked_first),
            preferred_element_type=params["preferred_element_type"],
        )
        y = jnp.transpose(y, (*range(len(lead)), *(len(lead) + s for s in slots)))
        return y.reshape(*lead, math.prod(result.channels))

    shape = [*(1 for _ in x.grid), math.prod(weights.shape)]
    flat = trace.plain(
        jax.ShapeDtypeStruct(shape, weights.dtype),
        [weights],
        lambda w: jnp.broadcast_to(w, weights.shape).reshape(shape),
    )
    return pointwise(
        trace,
        operation.aval,
        [x, flat],
        function,
        mask=x.mask,
        axes=result.axes,
        channels=result.channels,
    )


def _in_order(precision: Any, in_order: bool) -> Any:
    return precision if in_order or precision is None else tuple(reversed(precision))


def _in_layout(product: Product) -> Node:
    """A product with batch axes: computed in the traced layout."""
    x, weights = product.x, product.weights
    result = _result(product)

    def run(value: Any, given: jax.Array) -> Any:
        value = layers.full_size(value)
        y = product.bind(x.array(value), jnp.broadcast_to(given, weights.shape))
        return layers.Masked(layers.select(value.mask, result.store(y)), value.mask)

    result.run = run
    return product.operation.trace.settled(result)


# Fixed weights: over positions with numbers that are known.


def _over_positions(product: Product) -> Node:
    x, weights, operation = product.x, product.weights, product.operation
    constant = weights.constant
    if constant is not None and (constant >= 0).all() and not product.batch:
        return _weighted_mean(product)
    rest = [i for i in product.free if i is not None]
    if all(x.axes[i] == (0,) or not x.axes[i] for i in rest) and not product.batch:
        array = operation.trace.array(x)  # like a flattened image: hidden ones count as zeros
        given = (array, weights)

        def run(values: jax.Array, w: jax.Array) -> jax.Array:
            return product.bind(values, jnp.broadcast_to(w, weights.shape))

        return operation.trace.plain(operation.aval, given, run)
    return operation.fail(
        "a product sums over positions with weights of the network (token mixing), so what hidden "
        "positions count for is not defined; only weights that are known while tracing and not "
        "negative can be (means, nearest and bilinear resizing)"
    )


def _weighted_mean(product: Product) -> Node:
    """Weights that are known: the mean over what is visible, times the sum of the weights."""
    x, weights, operation = product.x, product.weights, product.operation
    if not all(x.of_positions(i) and not x.channel_dims(i) for i, _ in product.contracted):
        operation.fail("it sums over positions and channels at once")
    gone = {d for i, _ in product.contracted for d in x.grid_dims(i)}
    if 0 in gone:
        operation.fail("it sums over the batch, so images are mixed")
    grid, place, of = [], {}, []
    for d in range(len(x.grid)):
        if d not in gone:
            place[d] = len(grid)
            grid.append(x.grid[d])
            of.append(x.symbol.of[d])
    new = [n for n, mine in zip(operation.aval.shape, product.free) if mine is None]
    numbers = iter(range(len(grid), len(grid) + len(new)))
    grid += new
    of += [x.symbol.sources(gone)] * len(new)
    shift = len(grid) - len(x.grid)
    axes = tuple(
        (next(numbers),)
        if mine is None
        else tuple(place[d] if d < len(x.grid) else d + shift for d in x.axes[mine])
        for mine in product.free
    )
    weight = weight_over(x, gone)
    inputs = (x, weights) if weight is None else (x, weights, weight.counts)
    result = Node(
        operation.aval,
        inputs,
        mask=x.symbol.other(("weighted", operation), grid, of),
        axes=axes,
        channels=x.channels,
    )
    narrow = _mask_layout(result)

    def run(value: Any, given: jax.Array, *counts: Any) -> Any:
        value, given = layers.full_size(value), jnp.broadcast_to(given, weights.shape)
        count = _counted(value, *counts)
        wide = value._replace(x=value.x * count[..., None] if counts else value.x)
        y = product.bind(x.array(wide), given)
        seen = product.multiply(x.mask_array(count), given.astype(count.dtype))
        everywhere = jnp.ones(x.mask_array(value.mask).shape, count.dtype)
        total = product.multiply(everywhere, given.astype(count.dtype))
        mask = narrow.store(seen > 0)[..., 0]
        y = (y * ratio(total, seen)).astype(operation.aval.dtype)
        return layers.Masked(layers.select(mask, result.store(y)), mask)

    def count(value: Any, given: jax.Array, *counts: Any) -> Any:
        value, given = layers.full_size(value), jnp.broadcast_to(given, weights.shape)
        seen = _counted(value, *counts)
        seen = product.multiply(x.mask_array(seen), given.astype(seen.dtype))
        stored = narrow.store(seen)
        return layers.Masked(stored, stored[..., 0] > 0)

    result.run = run
    own = tuple(result.grid_dims(axis) for axis in range(len(result.shape)))
    counts = Node(operation.aval, inputs, count, mask=result.mask, axes=own, channels=(1,))
    pooled = x.symbol.sources(gone) | (frozenset() if weight is None else weight.pooled)
    result.weight = Weight(counts, pooled)
    return operation.trace.settled(result)


def _counted(value: layers.Masked, counts: Any = None) -> jax.Array:
    """How many visible positions each position stands for, `[*grid]`."""
    wide = layers.wide_type(value.x)
    if counts is None:
        return jnp.asarray(value.mask, wide)
    return layers.full_size(counts).x[..., 0].astype(wide)


def _mask_layout(node: Node) -> Node:
    """A node's layout with one channel: for masks in the traced layout."""
    shape = [
        math.prod(node.grid[d] for d in node.grid_dims(axis)) for axis in range(len(node.shape))
    ]
    axes = tuple(node.grid_dims(axis) for axis in range(len(node.shape)))
    aval = jax.ShapeDtypeStruct(shape, jnp.bool_)
    return Node(aval, mask=node.symbol, axes=axes, channels=(1,))


# Attention: both operands have positions.


def _between(operation: Operation, a: Node, b: Node) -> Node:
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
    narrow = _mask_layout(result)
    total = math.prod(a.shape[i] for i, j in zip(ca, cb) if a.of_positions(i) or b.of_positions(j))
    counted = any(a.of_positions(i) or b.of_positions(j) for i, j in zip(ca, cb))
    pairs = [*zip(ca, cb), *zip(ba, bb)]

    def run(first: Any, second: Any) -> Any:
        first, second = layers.full_size(first), layers.full_size(second)
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


def _joint(operation: Operation, a: Node, b: Node, sources: Sequence[tuple]):
    """Axes, grid and channels of the result, from the axes of both operands."""
    found, batch = [], 0
    for (i, j), size in zip(sources, operation.aval.shape):
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
