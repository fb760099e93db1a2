"""Gathering by indices, most often constants such as tables of relative positions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.models.pytorch.ops.arrays import Value, axis_of
from lmjax.models.pytorch.ops.table import rule


def take(x: jax.Array, indices: np.ndarray, axis: int) -> jax.Array:
    """Returns constant indices along an axis; unchanged where they are all in their order."""
    if np.array_equal(indices, np.arange(x.shape[axis])):
        return x
    where = (slice(None),) * axis + (indices,)
    return x.at[where].get(mode="promise_in_bounds")


@rule("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(x: Value, indices: Sequence[Value | None]) -> jax.Array:
    """Returns the value at arrays of indices; None takes a whole axis."""
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
    where = (slice(None),) * axis_of(axis, x.ndim) + (indices,)
    return jnp.asarray(x)[where]


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
