"""Entries taken by indices, and axes reversed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.grids import one_dimension
from lmjax.masking.transform.nodes import Node, full_size
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
        values, mask = full_size(value)
        return layers.Masked(jnp.flip(flip(values), dims), jnp.flip(mask, dims))

    mask = x.symbol.other(("reversed", dims), x.grid)
    return trace.masked(operation.aval, (x,), run, mask=mask, axes=x.axes, channels=x.channels)


@rule("gather")
def _gather(operation: Operation, x: Node, indices: Node) -> Node:
    """Slices with steps, and whole slices along one axis by indices that are known."""
    if not x.masked or indices.constant is None:
        operation.fail("its indices are not known while tracing")
    assert indices.constant is not None
    index = np.broadcast_to(indices.constant, indices.shape)
    strided = _strided(operation.params, index, x.shape)
    if strided is None:
        return _taken_along_one_axis(operation, x, index)
    numbers = operation.params["dimension_numbers"]
    return operation.instead(lambda array: _sliced(array, strided, numbers), x)[0]


class _Strided(NamedTuple):
    """The strided slice that a gather spells.

    Attributes:
      starts, stops, steps: of each axis of the array.
      along: by axis of the indices, the axis of the array whose steps it counts.
      batch: number of axes of the indices.
    """

    starts: list[int]
    stops: list[int]
    steps: list[int]
    along: dict[int, int]
    batch: int


def _strided(params: dict[str, Any], index: np.ndarray, shape: Sequence[int]) -> _Strided | None:
    """Returns the strided slice that a gather spells, as NumPy's `x[:, ::2]`, or None.

    JAX 0.7.0 traces such slices to gathers; newer versions do not.

    Args:
      params: of the gather.
      index: the first entries that are taken, `[..., K]`.
      shape: of the array it takes from.
    """
    numbers, batch = params["dimension_numbers"], index.shape[:-1]
    if getattr(numbers, "operand_batching_dims", ()):
        return None
    starts, steps = [0] * len(shape), [1] * len(shape)
    counts, along = list(params["slice_sizes"]), {}
    for axis, first in zip(numbers.start_index_map, np.moveaxis(index, -1, 0)):
        varies = [d for d in range(len(batch)) if (np.diff(first, axis=d) != 0).any()]
        if len(varies) > (axis in numbers.collapsed_slice_dims) or along.keys() & varies:
            return None
        starts[axis] = int(first.flat[0])
        for dim in varies:
            line = np.moveaxis(first, dim, 0).reshape(batch[dim], -1)[:, 0]
            along[dim], counts[axis], steps[axis] = axis, len(line), int(line[1] - line[0])
            if steps[axis] < 1 or (np.diff(line) != steps[axis]).any():
                return None
    stops = [start + (n - 1) * step + 1 for start, step, n in zip(starts, steps, counts)]
    repeats = any(n > 1 and d not in along for d, n in enumerate(batch))
    inside = min(starts) >= 0 and all(stop <= n for stop, n in zip(stops, shape))
    return _Strided(starts, stops, steps, along, len(batch)) if inside and not repeats else None


def _sliced(x: jax.Array, strided: _Strided, numbers: Any) -> jax.Array:
    """Slices an array, with the axes of the result in a gather's order."""
    collapsed = numbers.collapsed_slice_dims
    offsets = iter(a for a in range(x.ndim) if a not in collapsed)
    batch = iter(range(strided.batch))
    order = [
        next(offsets) if d in numbers.offset_dims else strided.along.get(next(batch))
        for d in range(strided.batch + len(numbers.offset_dims))
    ]
    dropped = [a for a in collapsed if a not in strided.along.values()]
    kept = [a for a in range(x.ndim) if a not in dropped]
    x = jax.lax.slice(x, strided.starts, strided.stops, strided.steps)
    x = jnp.transpose(jax.lax.squeeze(x, dropped), [kept.index(a) for a in order if a is not None])
    return jnp.expand_dims(x, [d for d, a in enumerate(order) if a is None])


def _taken_along_one_axis(operation: Operation, x: Node, index: np.ndarray) -> Node:
    params, numbers = operation.params, operation.params["dimension_numbers"]
    sizes = params["slice_sizes"]
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
    index = index[..., 0]
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
        values, mask = full_size(value)
        return layers.Masked(jnp.take(values, index, axis=dim), jnp.take(mask, index, axis=dim))

    mask = x.symbol.other(("taken", dim, tuple(index.tolist())), shape)
    return trace.masked(aval, (x,), run, mask=mask, axes=x.axes, channels=x.channels)
