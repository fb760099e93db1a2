"""Gathering by indices, most often constants such as tables of relative positions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.models.pytorch.ops.arrays import Value, axis_of
from lmjax.models.pytorch.ops.table import rule


def take(x: jax.Array, indices: np.ndarray, axis: int) -> jax.Array:
    """Returns constant indices along an axis, as one gather; none where all are in their order."""
    size = x.shape[axis]
    if np.array_equal(indices, np.arange(size)):
        return x
    others = tuple(a for a in range(x.ndim) if a != axis)
    dimensions = lax.GatherDimensionNumbers(others, (axis,), (axis,))
    shape = tuple(1 if a == axis else n for a, n in enumerate(x.shape))
    indices = np.where(indices < 0, indices + size, indices).astype(np.int32)[:, None]
    return lax.gather(x, indices, dimensions, shape, mode="promise_in_bounds")


def _is_list(indices: Value) -> bool:
    """Whether they are constant integers in one dimension."""
    constant = isinstance(indices, np.ndarray) and indices.ndim == 1
    return constant and np.issubdtype(indices.dtype, np.integer)


@rule("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(x: Value, indices: Sequence[Value | None]) -> jax.Array:
    """Returns the value at arrays of indices; None takes a whole axis."""
    axes = [axis for axis, each in enumerate(indices) if each is not None]
    only = indices[axes[0]]
    if len(axes) == 1 and _is_list(only):
        return take(x, np.asarray(only), axes[0])
    where = tuple(slice(None) if each is None else each for each in indices)
    return jnp.asarray(x)[where]


@rule("aten.index_put.default")
def index_put(
    x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False
) -> jax.Array:
    """Returns the value with others in the place of what indices say, or added there."""
    where = tuple(slice(None) if each is None else each for each in indices)
    place = jnp.asarray(x).at[where]
    return place.add(values) if accumulate else place.set(values)


@rule("aten.index_select.default")
def index_select(x: Value, axis: int, indices: Value) -> jax.Array:
    """Returns the value at indices along an axis."""
    return index(x, [None] * axis_of(axis, x.ndim) + [indices.reshape(-1)])


@rule("aten.gather.default")
def gather(x: Value, axis: int, indices: Value, sparse_grad: bool = False) -> jax.Array:
    """Returns along an axis what an array of indices says everywhere."""
    crop = tuple(
        slice(None) if a == axis_of(axis, x.ndim) else slice(size)
        for a, size in enumerate(indices.shape)
    )
    return jnp.take_along_axis(jnp.asarray(x)[crop], indices, axis)


@rule("aten.embedding.default")
def embedding(weight: jax.Array, indices: Value, *_: object) -> jax.Array:
    """Returns rows of a table."""
    return jnp.asarray(weight)[indices]
