"""Values made of nothing but shapes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.models.pytorch.ops.arrays import Value
from lmjax.models.pytorch.ops.table import add_rules, rule

_FLOAT = np.dtype(np.float32)


@rule("aten.full.default")
def full(shape: Sequence[int], value: float, dtype: Any = None) -> jax.Array:
    """Returns one value everywhere."""
    default = {bool: np.dtype(bool), int: np.dtype(np.int32)}.get(type(value), _FLOAT)
    return jnp.full(tuple(shape), value, dtype or default)


@rule("aten.full_like.default")
def full_like(x: Value, value: float, dtype: Any = None) -> jax.Array:
    """Returns one value in the shape of another."""
    return jnp.full(x.shape, value, dtype or x.dtype)


@rule("aten.new_full.default")
def new_full(x: Value, shape: Sequence[int], value: float, dtype: Any = None) -> jax.Array:
    """Returns one value everywhere, in the dtype of another."""
    return jnp.full(tuple(shape), value, dtype or x.dtype)


@rule("aten.arange.start_step")
def arange(start: float, end: float, step: float = 1, dtype: Any = None) -> np.ndarray:
    """Returns numbers from start to before end."""
    whole = all(isinstance(number, int) for number in (start, end, step))
    return np.arange(start, end, step, dtype=dtype or (np.dtype(np.int32) if whole else _FLOAT))


@rule("aten.scalar_tensor.default")
def scalar(value: float, dtype: Any = None) -> np.ndarray:
    """Returns a number as an array of no dimension."""
    return np.asarray(value, dtype or _FLOAT)


add_rules(
    {
        "zeros.default": lambda shape, dtype=None: full(shape, 0.0, dtype),
        "ones.default": lambda shape, dtype=None: full(shape, 1.0, dtype),
        "empty.memory_format": lambda shape, dtype=None: full(shape, 0.0, dtype),
        "zeros_like.default": lambda x, dtype=None: full_like(x, 0, dtype),
        "ones_like.default": lambda x, dtype=None: full_like(x, 1, dtype),
        "empty_like.default": lambda x, dtype=None: full_like(x, 0, dtype),
        "new_zeros.default": lambda x, shape, dtype=None: new_full(x, shape, 0, dtype),
        "new_ones.default": lambda x, shape, dtype=None: new_full(x, shape, 1, dtype),
        "new_empty.default": lambda x, shape, dtype=None: new_full(x, shape, 0, dtype),
        "copy.default": lambda x, source, *_: jnp.broadcast_to(source, x.shape).astype(x.dtype),
        "arange.default": lambda end, dtype=None: arange(0, end, 1, dtype),
        "arange.start": lambda start, end, dtype=None: arange(start, end, 1, dtype),
    }
)
