"""Products with weights: dense layers at every position, means and resizing by known weights."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.masking import layers
from lmjax.masking.transform.attention import between
from lmjax.masking.transform.convolutions import Convolution
from lmjax.masking.transform.nodes import Node, full_size, mask_layout
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Axes, Weight
from lmjax.masking.transform.pointwise import channel_of, normal, pointwise
from lmjax.masking.transform.shares import warn_of_maps
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
        one = [i for i, _ in self.contracted], [j for _, j in self.contracted]
        two = [i for i, _ in self.batch], [j for _, j in self.batch]
        if self.masked_first:
            return lax.dot_general(x, weights, (one, two), precision=lax.Precision.HIGHEST)
        numbers = ((one[1], one[0]), (two[1], two[0]))
        return lax.dot_general(weights, x, numbers, precision=lax.Precision.HIGHEST)


@rule("dot_general")
def _dot(operation: Operation, a: Node, b: Node) -> Node:
    trace = operation.trace
    a, b = (realised(trace, x) if x.masked else x for x in (a, b))
    if any(x.masked and x.merged for x in (a, b)):
        return _over_merged(operation, a, b)
    a, b = (normal(trace, x) if x.masked else x for x in (a, b))
    if a.masked and b.masked:
        return between(operation, a, b)
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


def _result(product: Product) -> Node:
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
    result, full = _result(product), product.weights.shape
    precision = _in_order(operation.params["precision"], product.masked_first)

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
    result, slots = _result(product), _slots(product, contracted)

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
    known = {"mask": x.mask, "axes": result.axes, "channels": result.channels}
    return pointwise(trace, operation.aval, [x, flat], function, **known)


def _slots(product: Product, contracted: Sequence[int]) -> list[int]:
    """Where channels of the result are behind lax's product: first x's, then the weights'."""
    x = product.x
    kept = [d for d in range(-len(x.channels), 0) if d not in contracted]
    new, slots = iter(range(len(kept), len(kept) + len(product.free))), []
    for mine in product.free:
        if mine is None:
            slots.append(next(new))
        elif x.channel_dims(mine):
            slots.append(kept.index(channel_of(x, mine)))
    return slots


def _in_order(precision: Any, in_order: bool) -> Any:
    return precision if in_order or precision is None else tuple(reversed(precision))


def _in_layout(product: Product) -> Node:
    """A product with batch axes: computed in the traced layout."""
    x, weights = product.x, product.weights
    result = _result(product)

    def run(value: Any, given: jax.Array) -> Any:
        value = full_size(value)
        y = product.bind(x.array(value), jnp.broadcast_to(given, weights.shape))
        return layers.Masked(layers.select(value.mask, result.store(y)), value.mask)

    result.run = run
    return product.operation.trace.settled(result)


def _over_merged(operation: Operation, a: Node, b: Node) -> Node:
    """A dense layer of a flattened image, in which hidden positions hold zeros."""
    if a.masked and b.masked:
        operation.fail("it multiplies a flattened image by another value with positions")
    product = _product(operation, a, b)
    x, weights = product.x, product.weights
    contracted = [i for i, _ in product.contracted]
    if product.batch or any(x.of_positions(i) and i not in contracted for i in range(len(x.shape))):
        operation.fail("it keeps positions of a flattened image apart, and sums over others")

    def run(values: jax.Array, w: jax.Array) -> jax.Array:
        return product.bind(values, jnp.broadcast_to(w, weights.shape))

    return operation.trace.plain(operation.aval, (operation.trace.array(x), weights), run)


# Fixed weights: over positions with numbers that are known.


def _over_positions(product: Product) -> Node:
    x, weights, operation = product.x, product.weights, product.operation
    constant = weights.constant
    if constant is not None and (constant >= 0).all() and not product.batch:
        warn_of_maps(_columns(product, constant), operation.where())
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


def _columns(product: Product, weights: np.ndarray) -> np.ndarray:
    """Returns known weights `[results, positions]`, by what they are summed up to."""
    weights = np.broadcast_to(weights, product.weights.shape)
    over = [j for _, j in product.contracted]
    last = np.moveaxis(weights, over, range(-len(over), 0))
    return last.reshape(-1, math.prod(weights.shape[j] for j in over))


def _weighted_mean(product: Product) -> Node:
    """Weights that are known: the mean over what is visible, times the sum of the weights."""
    x, operation = product.x, product.operation
    if not all(x.of_positions(i) and not x.channel_dims(i) for i, _ in product.contracted):
        operation.fail("it sums over positions and channels at once")
    gone = {d for i, _ in product.contracted for d in x.grid_dims(i)}
    if 0 in gone:
        operation.fail("it sums over the batch, so images are mixed")
    weight = weight_over(x, gone)
    inputs = (x, product.weights) if weight is None else (x, product.weights, weight.counts)
    mask, axes = _layout_of_mean(product, gone)
    result = Node(operation.aval, inputs, mask=mask, axes=axes, channels=x.channels)
    result.run = functools.partial(_run_mean, product, result)
    own = tuple(result.grid_dims(axis) for axis in range(len(result.shape)))
    counts = Node(operation.aval, inputs, mask=result.mask, axes=own, channels=(1,))
    counts.run = functools.partial(_run_counts, product, result)
    pooled = x.symbol.sources(gone) | (frozenset() if weight is None else weight.pooled)
    result.weight = Weight(counts, pooled)
    return operation.trace.settled(result)


def _layout_of_mean(product: Product, gone: set[int]) -> tuple[Symbol, Axes]:
    """Mask and axes of the result: the positions that are left, then those the weights give."""
    x, operation = product.x, product.operation
    kept = [d for d in range(len(x.grid)) if d not in gone]
    new = [n for n, mine in zip(operation.aval.shape, product.free) if mine is None]
    grid = [*(x.grid[d] for d in kept), *new]
    of = [*(x.symbol.of[d] for d in kept), *(x.symbol.sources(gone) for _ in new)]
    place = {d: i for i, d in enumerate(kept)}
    numbers, shift = iter(range(len(kept), len(grid))), len(grid) - len(x.grid)
    axes = tuple(
        (next(numbers),)
        if mine is None
        else tuple(place[d] if d < len(x.grid) else d + shift for d in x.axes[mine])
        for mine in product.free
    )
    return x.symbol.other(("weighted", operation), grid, of), axes


def _seen(product: Product, value: layers.Masked, given: jax.Array, *counts: Any) -> jax.Array:
    """The sum of the weights of what is visible, in the traced layout."""
    count = _counted(value, *counts)
    return product.multiply(product.x.mask_array(count), given.astype(count.dtype))


def _run_mean(product: Product, result: Node, value: Any, given: jax.Array, *counts: Any) -> Any:
    x, value = product.x, full_size(value)
    given = jnp.broadcast_to(given, product.weights.shape)
    wide = value
    if counts:
        wide = value._replace(x=value.x * _counted(value, *counts)[..., None])
    y = product.bind(x.array(wide), given)
    seen = _seen(product, value, given, *counts)
    everywhere = jnp.ones(x.mask_array(value.mask).shape, seen.dtype)
    total = product.multiply(everywhere, given.astype(seen.dtype))
    mask = mask_layout(result).store(seen > 0)[..., 0]
    y = (y * ratio(total, seen)).astype(product.operation.aval.dtype)
    return layers.Masked(layers.select(mask, result.store(y)), mask)


def _run_counts(product: Product, result: Node, value: Any, given: jax.Array, *counts: Any) -> Any:
    given = jnp.broadcast_to(given, product.weights.shape)
    stored = mask_layout(result).store(_seen(product, full_size(value), given, *counts))
    return layers.Masked(stored, stored[..., 0] > 0)


def _counted(value: layers.Masked, counts: Any = None) -> jax.Array:
    """How many visible positions each position stands for, `[*grid]`."""
    wide = layers.wide_type(value.x)
    if counts is None:
        return jnp.asarray(value.mask, wide)
    return full_size(counts).x[..., 0].astype(wide)
