"""Normalisations: batch, layer, group, instance and root mean square."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.models.pytorch.ops.arrays import per_channel, with_rank
from lmjax.models.pytorch.ops.reductions import mean
from lmjax.models.pytorch.ops.table import refused, rule

Vector = jax.Array | None


def _scaled(x: jax.Array, scale: Vector, bias: Vector) -> jax.Array:
    """Returns x times a scale plus a bias, each where there is one."""
    x = x if scale is None else x * scale
    return x if bias is None else x + bias


def _standardised(x: jax.Array, axes: Sequence[int], eps: float) -> jax.Array:
    """Returns x with mean 0 and variance 1 over axes."""
    centered = x - mean(x, axes, True)
    return centered * lax.rsqrt(mean(lax.square(centered), axes, True) + eps)


def _by_channel(x: jax.Array, scale: Vector, bias: Vector) -> jax.Array:
    vectors = (v if v is None else per_channel(v, x.ndim) for v in (scale, bias))
    return _scaled(x, *vectors)


def _by_statistics(
    x: jax.Array, scale: Vector, bias: Vector, center: jax.Array, variance: jax.Array, eps: float
) -> jax.Array:
    """Returns x normalised by statistics of each channel that are known."""
    deviation = lax.rsqrt(variance + eps)
    scale = deviation if scale is None else deviation * scale
    return _by_channel(x - per_channel(center, x.ndim), scale, bias)


def _with_statistics(x: jax.Array, name: str) -> tuple[Any, ...]:
    """Returns what a native operation returns: the value, and statistics nobody uses here."""
    return x, *[refused(name, "returns statistics that only training uses")] * 2


@rule("aten._native_batch_norm_legit_no_training.default")
def batch_norm(
    x: jax.Array,
    weight: Vector,
    bias: Vector,
    center: jax.Array,
    variance: jax.Array,
    momentum: float,
    eps: float,
) -> tuple[Any, ...]:
    """Returns batch normalisation by running statistics, the first of three results."""
    value = _by_statistics(x, weight, bias, center, variance, eps)
    return _with_statistics(value, "aten._native_batch_norm_legit_no_training.default")


@rule("aten._native_batch_norm_legit.no_stats")
def batch_norm_of_weights(
    x: jax.Array, weight: Vector, bias: Vector, training: bool, momentum: float, eps: float
) -> tuple[Any, ...]:
    """Returns batch normalisation by the value's own statistics, as weights are standardised."""
    standardised = _standardised(x, (0, *range(2, x.ndim)), eps)
    value = _by_channel(standardised, weight, bias)
    return _with_statistics(value, "aten._native_batch_norm_legit.no_stats")


@rule("aten.instance_norm.default")
def instance_norm(
    x: jax.Array,
    weight: Vector,
    bias: Vector,
    center: Any,
    variance: Any,
    from_input: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> jax.Array:
    """Returns instance normalisation, each image's channels by themselves."""
    if not from_input:
        return _by_statistics(x, weight, bias, center, variance, eps)
    return _by_channel(_standardised(x, range(2, x.ndim), eps), weight, bias)


@rule("aten.group_norm.default")
def group_norm(
    x: jax.Array,
    groups: int,
    weight: Vector = None,
    bias: Vector = None,
    eps: float = 1e-5,
    *_: Any,
) -> jax.Array:
    """Returns group normalisation, each image's groups of channels by themselves."""
    grouped = lax.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    standardised = _standardised(grouped, range(2, grouped.ndim), eps)
    return _by_channel(lax.reshape(standardised, x.shape), weight, bias)


@rule("aten.layer_norm.default")
def layer_norm(
    x: jax.Array,
    shape: Sequence[int],
    weight: Vector = None,
    bias: Vector = None,
    eps: float = 1e-5,
    *_: Any,
) -> jax.Array:
    """Returns layer normalisation over the last axes."""
    standardised = _standardised(x, range(x.ndim - len(shape), x.ndim), eps)
    vectors = (v if v is None else with_rank(v, x.ndim) for v in (weight, bias))
    return _scaled(standardised, *vectors)


@rule("aten.rms_norm.default")
def rms_norm(
    x: jax.Array, shape: Sequence[int], weight: Vector = None, eps: float | None = None
) -> jax.Array:
    """Returns x over the root of its mean square over the last axes."""
    eps = float(jnp.finfo(x.dtype).eps) if eps is None else eps
    squares = mean(lax.square(x), range(x.ndim - len(shape), x.ndim), True)
    normalised = x * lax.rsqrt(squares + eps)
    return _scaled(normalised, None if weight is None else with_rank(weight, x.ndim), None)
