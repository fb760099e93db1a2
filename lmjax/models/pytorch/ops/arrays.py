"""Helpers of the operations: broadcasting without rank promotion, axes, values per dimension."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

Value = Any  # an array, or a Python number


def is_array(value: Value) -> bool:
    """Whether the value has a dtype of its own, unlike Python's numbers."""
    return isinstance(value, jax.Array | np.ndarray | np.generic)


def aligned(*values: Value) -> list[Value]:
    """Returns the values with equal ranks and dtypes, which torch brings about in silence."""
    arrays = [value for value in values if is_array(value)]
    rank = max((array.ndim for array in arrays), default=0)
    dtype = wider(arrays)
    return [with_rank(cast(v, dtype), rank) if is_array(v) else v for v in values]


def wider(arrays: Sequence[Value]) -> Any:
    """Returns the dtype in which torch computes with all of the arrays, None of no array.

    Floats win over integers, integers over truth values. Among equals, arrays without dimensions
    count only where there are no others.
    """
    kind = max((_kind(array.dtype) for array in arrays), default=0)
    alike = [array for array in arrays if _kind(array.dtype) == kind]
    counted = [array.dtype for array in alike if array.ndim] or [array.dtype for array in alike]
    return max(counted, key=lambda dtype: dtype.itemsize, default=None)


def _kind(dtype: Any) -> int:
    """Returns 0 for truth values, 1 for integers, 2 for floats."""
    if dtype == np.bool_:
        return 0
    return 1 if np.issubdtype(dtype, np.integer) else 2


def cast(value: Value, dtype: Any) -> Value:
    """Returns the array in a dtype; unchanged where that is its own or None."""
    if dtype is None or value.dtype == dtype:
        return value
    if isinstance(value, jax.Array):
        return lax.convert_element_type(value, dtype)
    return np.asarray(value, dtype)


def with_rank(value: Value, rank: int) -> Value:
    """Returns the array with axes of size 1 put in front up to the rank."""
    axes = tuple(range(rank - value.ndim))
    if not axes:
        return value
    is_jax = isinstance(value, jax.Array)
    return lax.expand_dims(value, axes) if is_jax else np.expand_dims(value, axes)


def broadcast(value: Value, shape: Sequence[int]) -> jax.Array:
    """Returns the array broadcast to a shape, by its last axes."""
    if tuple(value.shape) == tuple(shape):
        return value
    axes = tuple(range(len(shape) - value.ndim, len(shape)))
    return lax.broadcast_in_dim(value, tuple(shape), axes)


def per_channel(vector: Value, rank: int) -> jax.Array:
    """Returns `[C]` as `[1, C, 1, ...]`, for values of that rank with channels second."""
    return lax.expand_dims(vector, (0, *range(2, rank)))


def axis_of(axis: int, rank: int) -> int:
    """Returns the axis counted from the front."""
    return axis + rank if axis < 0 else axis


def axes_of(axes: Iterable[int] | int | None, rank: int) -> tuple[int, ...]:
    """Returns the axes counted from the front; all of them for None or none."""
    if axes is None or axes == []:
        return tuple(range(rank))
    return tuple(axis_of(axis, rank) for axis in ([axes] if isinstance(axes, int) else axes))


def each(values: Sequence[int] | int, count: int) -> tuple[int, ...]:
    """Returns one number per dimension, where torch takes one for all as well."""
    values = [values] if isinstance(values, int) else list(values)
    return tuple(values * count if len(values) == 1 else values)
