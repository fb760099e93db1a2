"""Activation functions."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.models.pytorch.ops.arrays import per_channel
from lmjax.models.pytorch.ops.elementwise import where
from lmjax.models.pytorch.ops.reductions import total
from lmjax.models.pytorch.ops.table import add_rules, rule


@rule("aten.gelu.default")
def gelu(x: jax.Array, approximate: str = "none") -> jax.Array:
    """Returns x times the normal distribution's function of x, or its approximation by tanh."""
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * lax.integer_pow(x, 3))
        return 0.5 * x * (1.0 + lax.tanh(inner))
    return 0.5 * x * (1.0 + lax.erf(x * math.sqrt(0.5)))


@rule("aten.hardtanh.default")
def hard_tanh(x: jax.Array, minimum: float = -1.0, maximum: float = 1.0) -> jax.Array:
    """Returns x within bounds; the gradient outside and at a bound is 0, as in torch."""
    return lax.clamp(jnp.asarray(minimum, x.dtype), x, jnp.asarray(maximum, x.dtype))


@rule("aten.hardsigmoid.default")
def hard_sigmoid(x: jax.Array) -> jax.Array:
    """Returns a sigmoid in three straight pieces."""
    return hard_tanh(x + 3.0, 0.0, 6.0) * (1 / 6)


@rule("aten.softplus.default")
def softplus(x: jax.Array, beta: float = 1.0, threshold: float = 20.0) -> jax.Array:
    """Returns log(1 + exp(beta * x)) / beta, without overflow; so it needs no threshold."""
    scaled = x * beta
    size = scaled * lax.sign(scaled)  # not `abs`, whose gradient at 0 is 1 in JAX
    return (jnp.maximum(scaled, 0.0) + lax.log1p(lax.exp(-size))) / beta


@rule("aten.elu.default")
def elu(
    x: jax.Array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> jax.Array:
    """Returns scale * x above 0, and an exponential below; so SELU and CELU too."""
    below = (alpha * scale) * lax.expm1(where(x > 0, 0.0, x) * input_scale)
    return where(x > 0, x * scale, below)


@rule("aten.leaky_relu.default")
def leaky_relu(x: jax.Array, slope: float = 0.01) -> jax.Array:
    """Returns x above 0, slope * x below."""
    return where(x > 0, x, x * slope)


@rule("aten._prelu_kernel.default", "aten.prelu.default")
def prelu(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns x above 0, and below it x times a learned slope, one or one per channel."""
    if weight.ndim == 1 and x.ndim > 1:
        weight = per_channel(weight, x.ndim)
    return where(x > 0, x, x * weight)


@rule("aten._softmax.default", "aten.softmax.int", "aten._safe_softmax.default")
def softmax(x: jax.Array, axis: int, *_: Any) -> jax.Array:
    """Returns the softmax along an axis."""
    shifted = lax.exp(x - lax.stop_gradient(jnp.max(x, axis, keepdims=True)))
    return shifted / total(shifted, [axis], True)


@rule("aten._log_softmax.default", "aten.log_softmax.int")
def log_softmax(x: jax.Array, axis: int, *_: Any) -> jax.Array:
    """Returns the softmax's logarithm along an axis."""
    shifted = x - lax.stop_gradient(jnp.max(x, axis, keepdims=True))
    return shifted - lax.log(total(lax.exp(shifted), [axis], True))


@rule("aten.threshold.default")
def threshold(x: jax.Array, bound: float, value: float) -> jax.Array:
    """Returns x above the bound, else the value."""
    return where(x > bound, x, value)


@rule("aten.glu.default")
def glu(x: jax.Array, axis: int = -1) -> jax.Array:
    """Returns the first half along an axis, gated by the second."""
    value, gate = jnp.split(x, 2, axis)
    return value * lax.logistic(gate)


add_rules(
    {
        "relu.default": jax.nn.relu,  # whose gradient at 0 is 0, as in torch
        "relu6.default": lambda x: hard_tanh(x, 0.0, 6.0),
        "sigmoid.default": lax.logistic,
        "log_sigmoid.default": lambda x: -softplus(-x),
        "silu.default": lambda x: x * lax.logistic(x),
        "mish.default": lambda x: x * lax.tanh(softplus(x)),
        "tanh.default": lax.tanh,
        "hardswish.default": lambda x: x * hard_sigmoid(x),
    }
)
