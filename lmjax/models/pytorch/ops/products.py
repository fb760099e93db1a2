"""Convolutions, matrix products and attention, in full float32 precision."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.models.pytorch.ops.activations import softmax
from lmjax.models.pytorch.ops.arrays import each, per_channel, with_rank
from lmjax.models.pytorch.ops.elementwise import add, where
from lmjax.models.pytorch.ops.table import rule

_FULL = lax.Precision.HIGHEST


@rule("aten.convolution.default")
def convolution(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> jax.Array:
    """Returns a convolution over one to three dimensions, channels second."""
    count = x.ndim - 2
    stride, padding, dilation, more = (
        each(v, count) for v in (stride, padding, dilation, output_padding)
    )
    options: dict[str, Any]
    if transposed:
        weight = _transposed_kernel(weight, groups)
        edges = _transposed_edges(weight.shape[2:], padding, dilation, more)
        options = {"window_strides": (1,) * count, "padding": edges, "lhs_dilation": stride}
    else:
        options = {"window_strides": stride, "padding": [(p, p) for p in padding]}
    y = lax.conv_general_dilated(
        *(x, weight),
        **options,
        rhs_dilation=dilation,
        feature_group_count=groups,
        precision=_FULL,
    )
    return y if bias is None else y + per_channel(bias, y.ndim)


def _transposed_kernel(weight: jax.Array, groups: int) -> jax.Array:
    """Returns the kernel `[C in, C out / groups, ...]` as a plain convolution takes it."""
    inputs, outputs, *window = weight.shape
    weight = lax.rev(weight, tuple(range(2, weight.ndim)))
    weight = lax.reshape(weight, (groups, inputs // groups, outputs, *window))
    weight = lax.transpose(weight, (0, 2, 1, *range(3, weight.ndim)))
    return lax.reshape(weight, (groups * outputs, inputs // groups, *window))


def _transposed_edges(window, padding, dilation, more) -> list[tuple[int, int]]:
    """Returns the padding of the plain convolution that a transposed one is."""
    reach = (d * (k - 1) - p for k, p, d in zip(window, padding, dilation))
    return [(r, r + m) for r, m in zip(reach, more)]


@rule("aten.linear.default")
def linear(x: jax.Array, weight: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Returns the last axis times a matrix `[out, in]`, plus a bias; no axes are merged."""
    y = lax.dot_general(x, weight, (((x.ndim - 1,), (1,)), ((), ())), precision=_FULL)
    return y if bias is None else y + with_rank(bias, y.ndim)


@rule("aten.matmul.default", "aten.mm.default", "aten.bmm.default", "aten.mv.default")
def matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the product of matrices, or of stacks of them."""
    stack = tuple(range(x.ndim - 2))
    if x.ndim == y.ndim > 2 and x.shape[:-2] == y.shape[:-2]:
        # jnp.matmul would drop axes of size 1, such as that of a single image.
        dimensions = ((x.ndim - 1,), (x.ndim - 2,)), (stack, stack)
        return lax.dot_general(x, y, dimensions, precision=_FULL)
    return jnp.matmul(x, y, precision=_FULL)


@rule("aten.addmm.default", "aten.baddbmm.default")
def add_matmul(
    bias: jax.Array, x: jax.Array, y: jax.Array, beta: float = 1, alpha: float = 1
) -> jax.Array:
    """Returns beta * bias + alpha * x @ y."""
    bias = bias if beta == 1 else beta * bias
    return add(bias, matmul(x, y), alpha)


@rule("aten.einsum.default")
def einsum(equation: str, operands: Sequence[jax.Array], **_: Any) -> jax.Array:
    """Returns the operands' product in Einstein's notation."""
    return jnp.einsum(equation, *operands, precision=_FULL)


@rule("aten.scaled_dot_product_attention.default")
def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | np.ndarray | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> jax.Array:
    """Returns attention `[..., L, E]`: values weighted by the softmax of products with keys."""
    if enable_gqa:
        key, value = (jnp.repeat(v, query.shape[-3] // v.shape[-3], -3) for v in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = jnp.einsum("...le,...se->...ls", query * scale, key, precision=_FULL)
    if is_causal:
        mask = np.tri(*scores.shape[-2:], dtype=bool)
    if mask is not None:
        scores = _masked(scores, mask)
    return jnp.einsum("...ls,...se->...le", softmax(scores, -1), value, precision=_FULL)


def _masked(scores: jax.Array, mask: jax.Array | np.ndarray) -> jax.Array:
    """Returns the scores plus a mask of numbers, or -inf where a mask of truth values is False."""
    if mask.dtype == np.bool_:
        return where(with_rank(mask, scores.ndim), scores, -math.inf)
    return add(scores, mask)
