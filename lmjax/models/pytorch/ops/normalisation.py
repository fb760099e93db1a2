"""Normalisations: batch, layer, group, instance and root mean square."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.models.pytorch.ops.arrays import per_channel, with_rank
from lmjax.models.pytorch.ops.reductions import mean
from lmjax.models.pytorch.ops.table import refused, rule

Optional = jax.Array | None


def _scaled(x: jax.Array, scale: Optional, bias: Optional) -> jax.Array:
    """Returns x times a scale plus a bias, each where there is one."""
    x = x if scale is None else x * scale
    return x if bias is None else x + bias


def _standardised(x: jax.Array, axes: Sequence[int], eps: float) -> jax.Array:
    """Returns x with mean 0 and variance 1 over axes."""
    centered = x - mean(x, axes, True)
    return centered * lax.rsqrt(mean(lax.square(centered), axes, True) + eps)


def _by_channel(x: jax.Array, scale: Optional, bias: Optional) -> jax.Array:
    vectors = (v if v is None else per_channel(v, x.ndim) for v in (scale, bias))
    return _scaled(x, *vectors)


def _with_statistics(x: jax.Array, name: str) -> tuple[Any, ...]:
    """Returns what a native operation returns: the value, and statistics nobody uses here."""
    return x, *[refused(name, "returns statistics that only training uses")] * 2


@rule("aten.batch_norm.default")
def batch_norm(x, weight, bias, center, variance, training, _, eps, *__) -> jax.Array:
    """Returns batch normalisation, by running statistics or by the batch's own."""
    if training:
        return _batch_statistics(x, weight, bias, eps)
    scale = lax.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    return _by_channel(x - per_channel(center, x.ndim), scale, bias)


@rule("aten._native_batch_norm_legit_no_training.default")
def native_batch_norm(x, weight, bias, center, variance, momentum, eps) -> tuple[Any, ...]:
    """Returns batch normalisation by running statistics, the first of three results."""
    value = batch_norm(x, weight, bias, center, variance, False, momentum, eps)
    return _with_statistics(value, "aten._native_batch_norm_legit_no_training.default")


@rule("aten._native_batch_norm_legit.no_stats")
def native_batch_norm_of_batch(x, weight, bias, training, momentum, eps) -> tuple[Any, ...]:
    """Returns batch normalisation by the value's own statistics, as weights are standardised."""
    value = _batch_statistics(x, weight, bias, eps)
    return _with_statistics(value, "aten._native_batch_norm_legit.no_stats")


def _batch_statistics(x: jax.Array, weight: Optional, bias: Optional, eps: float) -> jax.Array:
    axes = (0, *range(2, x.ndim))
    return _by_channel(_standardised(x, axes, eps), weight, bias)


@rule("aten.instance_norm.default")
def instance_norm(x, weight, bias, center, variance, from_input, momentum, eps, *_) -> jax.Array:
    """Returns instance normalisation, each image's channels by themselves."""
    if not from_input:
        return batch_norm(x, weight, bias, center, variance, False, momentum, eps)
    return _by_channel(_standardised(x, range(2, x.ndim), eps), weight, bias)


@rule("aten.group_norm.default")
def group_norm(x, groups: int, weight=None, bias=None, eps=1e-5, *_) -> jax.Array:
    """Returns group normalisation, each image's groups of channels by themselves."""
    shape = (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    grouped = lax.reshape(x, shape)
    standardised = _standardised(grouped, range(2, grouped.ndim), eps)
    return _by_channel(lax.reshape(standardised, x.shape), weight, bias)


@rule("aten.native_group_norm.default")
def native_group_norm(x, weight, bias, n, channels, size, groups, eps) -> tuple[Any, ...]:
    """Returns group normalisation, the first of three results."""
    value = group_norm(x, groups, weight, bias, eps)
    return _with_statistics(value, "aten.native_group_norm.default")


@rule("aten.layer_norm.default")
def layer_norm(x, shape, weight=None, bias=None, eps=1e-5, *_) -> jax.Array:
    """Returns layer normalisation over the last axes."""
    standardised = _standardised(x, range(x.ndim - len(shape), x.ndim), eps)
    vectors = (v if v is None else with_rank(v, x.ndim) for v in (weight, bias))
    return _scaled(standardised, *vectors)


@rule("aten.native_layer_norm.default")
def native_layer_norm(x, shape, weight, bias, eps) -> tuple[Any, ...]:
    """Returns layer normalisation, the first of three results."""
    value = layer_norm(x, shape, weight, bias, eps)
    return _with_statistics(value, "aten.native_layer_norm.default")


@rule("aten.rms_norm.default")
def rms_norm(x, shape, weight=None, eps=None) -> jax.Array:
    """Returns x over the root of its mean square over the last axes."""
    eps = float(jnp.finfo(x.dtype).eps) if eps is None else eps
    squares = mean(lax.square(x), range(x.ndim - len(shape), x.ndim), True)
    normalised = x * lax.rsqrt(squares + eps)
    return _scaled(normalised, None if weight is None else with_rank(weight, x.ndim), None)
