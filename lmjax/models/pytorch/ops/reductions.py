"""Sums, means, extrema, variances and norms over axes: over all of them, where none are given."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.models.pytorch.ops.arrays import Value, axes_of, cast
from lmjax.models.pytorch.ops.table import rule

Axes = Iterable[int] | int | None


def _size(x: jax.Array, axes: Axes) -> int:
    return math.prod(x.shape[axis] for axis in axes_of(axes, x.ndim))


@rule("aten.sum.dim_IntList", "aten.sum.default")
def total(x: Value, axes: Axes = None, keepdim: bool = False, dtype: Any = None) -> jax.Array:
    """Returns the sum over axes."""
    x = cast(x, np.dtype(np.int32) if x.dtype == np.bool_ and dtype is None else dtype)
    return jnp.sum(x, axes_of(axes, x.ndim), keepdims=keepdim)


@rule("aten.mean.dim", "aten.mean.default")
def mean(x: Value, axes: Axes = None, keepdim: bool = False, dtype: Any = None) -> jax.Array:
    """Returns the mean over axes, as a sum and a division."""
    return total(x, axes, keepdim, dtype) / _size(x, axes)


@rule("aten.var.correction")
def variance(
    x: jax.Array, axes: Axes = None, correction: float | None = None, keepdim: bool = False
) -> jax.Array:
    """Returns the variance over axes, by default with one degree of freedom less."""
    return variance_and_mean(x, axes, correction, keepdim)[0]


@rule("aten.var_mean.correction")
def variance_and_mean(
    x: jax.Array, axes: Axes = None, correction: float | None = None, keepdim: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Returns variance and mean over axes."""
    correction = 1 if correction is None else correction
    center = mean(x, axes, True)
    squares = total(lax.square(x - center), axes, keepdim)
    center = center if keepdim else lax.squeeze(center, axes_of(axes, x.ndim))
    return squares / max(_size(x, axes) - correction, 0), center


@rule("aten.std.correction")
def deviation(
    x: jax.Array, axes: Axes = None, correction: float | None = None, keepdim: bool = False
) -> jax.Array:
    """Returns the standard deviation over axes."""
    return lax.sqrt(variance(x, axes, correction, keepdim))


@rule("aten.amax.default", "aten.max.default")
def maximum(x: Value, axes: Axes = None, keepdim: bool = False) -> jax.Array:
    """Returns the maximum over axes."""
    return jnp.max(x, axes_of(axes, x.ndim), keepdims=keepdim)


@rule("aten.amin.default", "aten.min.default")
def minimum(x: Value, axes: Axes = None, keepdim: bool = False) -> jax.Array:
    """Returns the minimum over axes."""
    return jnp.min(x, axes_of(axes, x.ndim), keepdims=keepdim)


@rule("aten.max.dim")
def maximum_and_index(x: Value, axis: int, keepdim: bool = False) -> tuple[Any, Any]:
    """Returns the maximum along an axis, and a function that finds where it is."""
    return maximum(x, axis, keepdim), lambda: argmax(x, axis, keepdim)


@rule("aten.min.dim")
def minimum_and_index(x: Value, axis: int, keepdim: bool = False) -> tuple[Any, Any]:
    """Returns the minimum along an axis, and a function that finds where it is."""
    return minimum(x, axis, keepdim), lambda: argmax(-x, axis, keepdim)


@rule("aten.argmax.default")
def argmax(x: Value, axis: int | None = None, keepdim: bool = False) -> jax.Array:
    """Returns the index of the maximum, the first of equals."""
    return jnp.argmax(x, axis, keepdims=keepdim)


@rule("aten.prod.dim_int")
def product(x: Value, axis: int, keepdim: bool = False) -> jax.Array:
    """Returns the product along an axis."""
    return jnp.prod(x, axis, keepdims=keepdim)


@rule("aten.cumsum.default")
def running_total(x: Value, axis: int, dtype: Any = None) -> jax.Array:
    """Returns the running sum along an axis."""
    return jnp.cumsum(cast(x, dtype), axis)


@rule("aten.any.dim", "aten.any.dims", "aten.any.default")
def any_of(x: Value, axes: Axes = None, keepdim: bool = False) -> jax.Array:
    """Whether anything along the axes is not 0."""
    return jnp.any(x, axes_of(axes, x.ndim), keepdims=keepdim)


@rule("aten.logsumexp.default")
def log_sum_exp(x: jax.Array, axes: Axes, keepdim: bool = False) -> jax.Array:
    """Returns the logarithm of the sum of exponentials over axes."""
    return jax.nn.logsumexp(x, axes_of(axes, x.ndim), keepdims=keepdim)


@rule("aten.linalg_vector_norm.default")
def vector_norm(
    x: jax.Array, order: float = 2, axes: Axes = None, keepdim: bool = False, dtype: Any = None
) -> jax.Array:
    """Returns the norm of an order over axes."""
    if order == math.inf:
        return maximum(lax.abs(x), axes, keepdim)
    if order == 2:
        return lax.sqrt(total(lax.square(x), axes, keepdim))
    if order == 1:
        return total(lax.abs(x), axes, keepdim)
    return total(lax.abs(x) ** order, axes, keepdim) ** (1 / order)
