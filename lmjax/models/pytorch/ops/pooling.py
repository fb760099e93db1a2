"""Maximum and average pooling, in windows and adaptive."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from lmjax.models.pytorch.ops.arrays import each
from lmjax.models.pytorch.ops.reductions import maximum, mean
from lmjax.models.pytorch.ops.table import refused, rule

Numbers = Sequence[int] | int


@rule("aten.max_pool2d.default", "aten.max_pool3d.default", "aten.max_pool1d.default")
def max_pool(
    x: jax.Array,
    window: Numbers,
    stride: Numbers = (),
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
) -> jax.Array:
    """Returns the maxima of windows; padding is never one."""
    window, stride, padding, dilation = _windows(x, window, stride, padding, dilation)
    sizes = x.shape[-len(window) :]
    edges = [
        _edges(*numbers, ceil_mode) for numbers in zip(sizes, window, stride, padding, dilation)
    ]
    ones = (1,) * (x.ndim - len(window))
    return lax.reduce_window(
        *(x, -np.inf, lax.max, ones + window, ones + stride),
        padding=[(0, 0)] * len(ones) + edges,
        window_dilation=ones + dilation,
    )


@rule("aten.max_pool2d_with_indices.default", "aten.max_pool3d_with_indices.default")
def max_pool_with_indices(x: jax.Array, *arguments: Any) -> tuple[Any, Any]:
    """Returns the maxima of windows; where they are is refused when it is used."""
    name = f"aten.max_pool{len(arguments[0])}d_with_indices.default"
    return max_pool(x, *arguments), refused(name, "gives indices, which are not computed here")


@rule("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
def average_pool(
    x: jax.Array,
    window: Numbers,
    stride: Numbers = (),
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """Returns the means of windows, as sums and a division by counts."""
    window, stride, padding, dilation = _windows(x, window, stride, padding, 1)
    numbers = list(zip(x.shape[-len(window) :], window, stride, padding, dilation))
    edges = [_edges(*each_axis, ceil_mode) for each_axis in numbers]
    ones = (1,) * (x.ndim - len(window))
    sums = lax.reduce_window(
        *(x, 0.0, lax.add, ones + window, ones + stride), padding=[(0, 0)] * len(ones) + edges
    )
    if divisor_override:
        return sums / divisor_override
    counts = [_counts(*n[:4], sum(edge), count_include_pad) for n, edge in zip(numbers, edges)]
    return sums / _divisor(counts, x)


def _windows(x: jax.Array, window, stride, padding, dilation) -> tuple[tuple[int, ...], ...]:
    """Returns the four numbers per dimension; the stride is the window unless it is given."""
    count = x.ndim - 2 if isinstance(window, int) or len(window) == 1 else len(window)
    stride = window if stride in ((), []) else stride
    return tuple(each(values, count) for values in (window, stride, padding, dilation))  # pyright: ignore


def _edges(size, window, stride, padding, dilation, ceil_mode: bool) -> tuple[int, int]:
    """Returns padding before and behind; rounding up adds a window that begins in the image."""
    if not ceil_mode:
        return padding, padding
    spare = size + 2 * padding - dilation * (window - 1) - 1
    last = math.ceil(spare / stride)
    if last * stride >= size + padding:  # it would begin in the padding behind the image
        last -= 1
    return padding, padding + max(last * stride - spare, 0)


def _counts(size, window, stride, padding, edges: int, include_pad: bool) -> np.ndarray:
    """Returns how many positions of each window count, along one dimension.

    What rounding up has added behind the padding never counts.
    """
    starts = np.arange(0, size + edges - window + 1, stride) - padding
    ends = np.minimum(starts + window, size + padding)
    if not include_pad:
        starts, ends = np.maximum(starts, 0), np.minimum(ends, size)
    return ends - starts


def _divisor(counts: list[np.ndarray], x: jax.Array) -> Any:
    """Returns the product of counts over dimensions: one number where all windows have the same."""
    if all((count == count[0]).all() for count in counts):
        return math.prod(int(count[0]) for count in counts)
    product = functools.reduce(np.multiply.outer, counts)
    return np.asarray(product, x.dtype).reshape((1,) * (x.ndim - len(counts)) + product.shape)


@rule(*(f"aten.adaptive_avg_pool{n}d.default" for n in (1, 2, 3)))
@rule(*(f"aten._adaptive_avg_pool{n}d.default" for n in (2, 3)))
def adaptive_average_pool(x: jax.Array, outputs: Numbers) -> jax.Array:
    """Returns the means of as many cells as asked for."""
    return _adaptive(x, outputs, average_pool, mean)


@rule(*(f"aten.adaptive_max_pool{n}d.default" for n in (1, 2, 3)))
def adaptive_max_pool(x: jax.Array, outputs: Numbers) -> tuple[Any, Any]:
    """Returns the maxima of as many cells as asked for; where they are is refused."""
    name = "aten.adaptive_max_pool2d.default"
    value = _adaptive(x, outputs, max_pool, maximum)
    return value, refused(name, "gives indices, which are not computed here")


def _adaptive(x: jax.Array, outputs: Numbers, pool: Callable, reduce: Callable) -> jax.Array:
    """Returns equal cells as one reduction or as windows, ragged ones cell by cell."""
    outputs = each(outputs, x.ndim - 2 if isinstance(outputs, int) else len(outputs))
    sizes = x.shape[-len(outputs) :]
    if set(outputs) == {1}:
        return reduce(x, list(range(-len(outputs), 0)), True)
    if sizes == outputs:
        return x
    if all(size % count == 0 for size, count in zip(sizes, outputs)):
        return pool(x, tuple(size // count for size, count in zip(sizes, outputs)))
    return _cells(x, outputs, x.ndim - len(outputs), reduce)


def _cells(x: jax.Array, outputs, first: int, reduce: Callable, axis: int = 0) -> jax.Array:
    """Returns the reduction of each cell, which are joined along one axis after the other."""
    if axis == len(outputs):
        return reduce(x, list(range(first, x.ndim)), True)
    size, count = x.shape[first + axis], outputs[axis]
    bounds = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    parts = [lax.slice_in_dim(x, *bound, axis=first + axis) for bound in bounds]
    return lax.concatenate(
        [_cells(part, outputs, first, reduce, axis + 1) for part in parts], first + axis
    )
