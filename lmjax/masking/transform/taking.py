"""Entries taken by indices, and axes reversed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.grids import one_dimension
from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.pointwise import channel_of, normal, on_channels, pointwise
from lmjax.masking.transform.tracing import realised


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
