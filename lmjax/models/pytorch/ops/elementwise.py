"""Elementwise arithmetic, comparisons and functions of one value."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.models.pytorch.ops.arrays import Value, aligned, broadcast, cast, is_array, wider
from lmjax.models.pytorch.ops.table import add_rules, rule


def _aligning(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of two values that first brings them to one rank and dtype."""
    return lambda x, y: function(*aligned(x, y))


def _alike(name: str, function: Callable[..., Any], *overloads: str) -> dict[str, Any]:
    return {f"{name}.{overload}": _aligning(function) for overload in overloads}


def same(x: Value, **_: Any) -> Value:
    """Returns the value: what copies, detaches or changes memory alone computes nothing here."""
    return x


@rule("aten.add.Tensor", "aten.add.Scalar")
def add(x: Value, y: Value, alpha: float = 1) -> jax.Array:
    """Returns x + alpha * y."""
    x, y = aligned(x, y)
    return x + (y if alpha == 1 else alpha * y)


@rule("aten.sub.Tensor", "aten.sub.Scalar")
def subtract(x: Value, y: Value, alpha: float = 1) -> jax.Array:
    """Returns x - alpha * y."""
    x, y = aligned(x, y)
    return x - (y if alpha == 1 else alpha * y)


@rule("aten.rsub.Scalar", "aten.rsub.Tensor")
def subtract_from(x: Value, y: Value, alpha: float = 1) -> jax.Array:
    """Returns y - alpha * x."""
    return subtract(y, x, alpha)


@rule("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def divide_rounding(x: Value, y: Value, rounding_mode: str | None = None) -> jax.Array:
    """Returns x / y, rounded down, towards zero, or not at all."""
    x, y = aligned(x, y)
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    quotient = jnp.true_divide(x, y)
    return quotient if rounding_mode is None else cast(jnp.trunc(quotient), x.dtype)


@rule("aten.pow.Tensor_Scalar")
def power(x: jax.Array, exponent: float) -> jax.Array:
    """Returns x to a constant power, as one simple primitive where there is one."""
    if exponent == 0.5:
        return lax.sqrt(x)
    if exponent == -0.5:
        return lax.rsqrt(x)
    if float(exponent).is_integer():
        return lax.integer_pow(x, int(exponent))
    return lax.pow(x, np.asarray(exponent, x.dtype))


@rule("aten.clamp.default", "aten.clamp.Tensor")
def clamp(x: Value, minimum: Value = None, maximum: Value = None, **named: Value) -> jax.Array:
    """Returns values within bounds, of which either may be missing."""
    minimum, maximum = named.get("min", minimum), named.get("max", maximum)
    x = x if minimum is None else jnp.maximum(*aligned(x, minimum))
    return x if maximum is None else jnp.minimum(*aligned(x, maximum))


@rule("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def where(condition: Value, x: Value, y: Value) -> jax.Array:
    """Returns x where the condition holds, else y."""
    x, y = (v if is_array(v) else _scalar(v) for v in (x, y))
    x, y = (cast(v, wider([x, y])) for v in (x, y))
    shape = np.broadcast_shapes(*(np.shape(v) for v in (condition, x, y)))
    return lax.select(*(broadcast(v, shape) for v in (condition, x, y)))


def _scalar(value: float) -> np.ndarray:
    """Returns Python's number as an array that gives way to others' dtypes."""
    return np.asarray(value, np.float32 if isinstance(value, float) else None)


@rule("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(x: jax.Array, mask: Value, value: Value) -> jax.Array:
    """Returns x with one value where the mask holds."""
    return where(mask, cast(value, x.dtype) if is_array(value) else value, x)


@rule("aten._to_copy.default", "aten.to.dtype")
def to_dtype(x: Value, dtype: Any = None, *_: Any, **__: Any) -> Value:
    """Returns the value in a dtype."""
    return cast(x, dtype)


@rule("aten.lerp.Scalar", "aten.lerp.Tensor")
def interpolate(start: Value, end: Value, weight: Value) -> jax.Array:
    """Returns start + weight * (end - start)."""
    return add(start, multiply(weight, subtract(end, start)))


@rule("aten.addcmul.default")
def add_product(x: Value, one: Value, other: Value, value: float = 1) -> jax.Array:
    """Returns x + value * one * other."""
    return add(x, multiply(one, other), value)


multiply = _aligning(operator.mul)

add_rules(
    {
        **_alike("mul", operator.mul, "Tensor", "Scalar"),
        **_alike("div", jnp.true_divide, "Tensor", "Scalar"),
        **_alike("pow", jnp.power, "Tensor_Tensor", "Scalar"),
        **_alike("floor_divide", jnp.floor_divide, "default", "Scalar"),
        **_alike("remainder", jnp.remainder, "Tensor", "Scalar"),
        **_alike("fmod", jnp.fmod, "Tensor", "Scalar"),
        **_alike("minimum", jnp.minimum, "default"),
        **_alike("maximum", jnp.maximum, "default"),
        **_alike("atan2", jnp.arctan2, "default"),
        **_alike("eq", operator.eq, "Tensor", "Scalar"),
        **_alike("ne", operator.ne, "Tensor", "Scalar"),
        **_alike("lt", operator.lt, "Tensor", "Scalar"),
        **_alike("le", operator.le, "Tensor", "Scalar"),
        **_alike("gt", operator.gt, "Tensor", "Scalar"),
        **_alike("ge", operator.ge, "Tensor", "Scalar"),
        **_alike("logical_and", jnp.logical_and, "default"),
        **_alike("logical_or", jnp.logical_or, "default"),
        **_alike("logical_xor", jnp.logical_xor, "default"),
        **_alike("bitwise_and", operator.and_, "Tensor", "Scalar"),
        **_alike("bitwise_or", operator.or_, "Tensor", "Scalar"),
        **_alike("bitwise_xor", operator.xor, "Tensor", "Scalar"),
        "logical_not.default": jnp.logical_not,
        "bitwise_not.default": operator.invert,
        "abs.default": lax.abs,
        "neg.default": lax.neg,
        "sign.default": lax.sign,
        "exp.default": lax.exp,
        "exp2.default": jnp.exp2,
        "expm1.default": lax.expm1,
        "log.default": lax.log,
        "log2.default": jnp.log2,
        "log10.default": jnp.log10,
        "log1p.default": lax.log1p,
        "sqrt.default": lax.sqrt,
        "rsqrt.default": lax.rsqrt,
        "square.default": lax.square,
        "reciprocal.default": lambda x: 1.0 / x,
        "sin.default": lax.sin,
        "cos.default": lax.cos,
        "tan.default": lax.tan,
        "asin.default": lax.asin,
        "acos.default": lax.acos,
        "atan.default": lax.atan,
        "sinh.default": lax.sinh,
        "cosh.default": lax.cosh,
        "erf.default": lax.erf,
        "floor.default": lax.floor,
        "ceil.default": lax.ceil,
        "trunc.default": jnp.trunc,
        "round.default": jnp.round,  # both round halves to even
        "isnan.default": jnp.isnan,
        "isinf.default": jnp.isinf,
        "clone.default": same,
        "alias.default": same,
        "detach.default": lax.stop_gradient,
        "contiguous.default": same,
        "dropout.default": lambda x, *_: x,
        "lift_fresh_copy.default": same,
        "_conj.default": jnp.conj,
    }
)
