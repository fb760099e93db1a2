"""Maxima, minima and sums over sliding windows."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.masking import layers
from lmjax.masking.transform.elementwise import combine
from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Outside, Weight
from lmjax.masking.transform.pointwise import channel_of, normal, on_channels, pointwise
from lmjax.masking.transform.sliding import (
    Sliding,
    nothing,
    options_of,
    padded_axes,
    part,
    uncut,
)
from lmjax.masking.transform.symbols import Slide, still
from lmjax.masking.transform.weights import ratio, weight_over

_NEUTRAL = {"sum": 0.0, "max": -np.inf, "min": np.inf}
_JOIN = {"sum": jnp.add, "max": jnp.maximum, "min": jnp.minimum}


@rule("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def _pool(operation: Operation, x: Node) -> Node:
    params, how = operation.params, operation.name.removeprefix("reduce_window_")
    if any(d != 1 for d in params["base_dilation"]):
        operation.fail("base_dilation is not 1")
    windows = {
        axis: Slide(size, stride, low, dilation, operation.aval.shape[axis])
        for axis, (size, stride, (low, _), dilation) in enumerate(
            zip(
                params["window_dimensions"],
                params["window_strides"],
                params["padding"],
                params["window_dilation"],
            )
        )
    }
    x = normal(operation.trace, x)
    moving = [a for a, w in windows.items() if w != still(x.shape[a])]
    if all(not x.grid_dims(a) for a in moving):
        return _channel_pool(operation, x, windows)
    if any(not x.grid_dims(a) for a in moving if x.shape[a] > 1):
        operation.fail("a window over channels and positions")
    spatial = {a: w for a, w in windows.items() if x.grid_dims(a)}
    return pool(operation, x, spatial, how)


def pool(operation: Operation, x: Node, windows: Mapping[int, Slide], how: str) -> Node:
    """Returns the node of a maximum, minimum or sum over windows of positions."""
    sliding = Sliding(operation, x, windows)
    if len(x.grid) != 3:
        operation.fail("windows over a grid other than rows and columns")
    outside = None
    if sliding.anything_outside:
        outside = Outside(sliding.pads, _pooled_fill(operation, x, windows, how))
    whole, parts = uncut(sliding.slides, x.grid)
    inner = [len(range(n)[p]) for n, p in zip(x.grid, parts)]
    options = {**options_of(whole, inner), "window": (whole[1].size, whole[2].size)}
    fills = _fills_inside(operation, x, windows, how)
    weight = weight_over(x, sliding.moves()) if how == "sum" else None
    inputs = (x,) if weight is None else (x, weight.counts)

    def run(*values: Any) -> Any:
        if whole != list(sliding.slides):
            values = tuple(part(v, parts) for v in values)
        value = values[0]
        if how == "sum":
            return _window_sum(*values, **options)
        if how == "min":
            value = layers.pointwise(value, jnp.negative)
        y = layers.max_pool(value, **options)
        return layers.pointwise(y, jnp.negative) if how == "min" else y

    node = operation.trace.masked(
        operation.aval,
        inputs,
        run,
        mask=x.symbol.window(sliding.slides),
        axes=x.axes,
        channels=x.channels,
        outside=outside,
    )
    if how == "sum" and node.masked:
        node.weight = _window_weight(operation, node, inputs, sliding, parts, options)
    return node if fills is None else _with_fill(operation, node, fills, how)


def _window_sum(value: Any, counts: Any = None, **options: Any) -> Any:
    """A sum over windows, where positions may count as often as they stand for visible ones."""
    if counts is None:
        return layers.window_sum(value, **options)
    (x, mask), count = layers.full_size(value), layers.full_size(counts).x
    count = count.astype(layers.wide_type(x))
    total, of_counts = (
        layers.window_sum(layers.Masked(v, mask), **options) for v in (x * count, count)
    )
    inside = layers.window_sum(layers.Masked(jnp.ones_like(count)), **options).x
    y = (total.x * ratio(inside, of_counts.x)).astype(x.dtype)
    return total._replace(x=y)


def _window_weight(operation: Operation, node: Node, inputs, sliding, parts, options) -> Weight:
    """How many visible positions each sum over a window is over."""
    x = inputs[0]
    axes = tuple(node.grid_dims(axis) for axis in range(len(node.shape)))

    def run(*values: Any) -> Any:
        value, *counts = (part(v, parts) for v in values)
        count = counts[0].x if counts else value.mask[..., None].astype(jnp.float32)
        y = layers.window_sum(layers.Masked(count), **options).x
        return layers.Masked(y, y[..., 0] > 0)

    counts = Node(operation.aval, inputs, run, mask=node.mask, axes=axes, channels=(1,))
    pooled = x.symbol.sources(sliding.moves())
    return Weight(counts, pooled | (x.weight.pooled if x.weight else frozenset()))


def _fills_inside(operation: Operation, x: Node, windows, how: str) -> Node | None:
    """What windows read outside: a plain array, or None where it changes nothing."""
    if x.outside is None:
        return None
    fill = x.outside.fill
    if fill.constant is not None:
        neutral = _NEUTRAL[how]
        if (fill.constant == neutral).all():
            return None
    return _pooled_fill(operation, x, windows, how)


def _pooled_fill(operation: Operation, x: Node, windows, how: str) -> Node:
    """The pool of an image that is neutral inside."""
    neutral, pads = _NEUTRAL[how], padded_axes(x)
    if x.outside is None:  # only what the pool itself puts around the image is read
        return nothing(operation, neutral)
    fill = x.outside.fill
    moving = {a: w for a, w in windows.items() if w != still(x.shape[a])}

    def run(value: jax.Array) -> jax.Array:
        shape = [x.shape[a] if a in moving else n for a, n in enumerate(fill.stored)]
        known = jnp.ones(
            [n - sum(pads[a]) if a in moving else 1 for a, n in enumerate(shape)], bool
        )
        known = jnp.pad(known, [pads[a] if a in moving else (0, 0) for a in range(len(shape))])
        image = jnp.where(known, jnp.asarray(neutral, x.dtype), value)
        return _reduced(jnp.broadcast_to(image, shape), moving, how)

    stored = [operation.aval.shape[a] if a in moving else n for a, n in enumerate(fill.stored)]
    return operation.trace.plain(operation.aval, [fill], run, stored=stored)


def _reduced(x: jax.Array, windows: Mapping[int, Slide], how: str) -> jax.Array:
    """A pool of a plain array."""
    own = [windows.get(a, still(n)) for a, n in enumerate(x.shape)]
    return lax.reduce_window(
        x,
        np.asarray(_NEUTRAL[how], x.dtype),
        {"sum": lax.add, "max": lax.max, "min": lax.min}[how],
        [s.size for s in own],
        [s.stride for s in own],
        [(s.low, s.high(n)) for s, n in zip(own, x.shape)],
        window_dilation=[s.dilation for s in own],
    )


def _with_fill(operation: Operation, node: Node, fill: Node, how: str) -> Node:
    if node.outside is None:
        return combine(operation.trace, operation.aval, [node, fill], _JOIN[how])
    return operation.fail("padding wider than the window of a pool")


def _channel_pool(operation: Operation, x: Node, windows: Mapping[int, Slide]) -> Node:
    """Windows over channels, as in local response normalisation."""
    params, rank = operation.params, len(x.channels)
    config: dict[str, list[Any]] = {
        "window_dimensions": [1] * rank,
        "window_strides": [1] * rank,
        "padding": [(0, 0)] * rank,
        "window_dilation": [1] * rank,
        "base_dilation": [1] * rank,
    }
    axes = [a for a in windows if x.channel_dims(a)]
    for axis in axes:
        for key, values in config.items():
            values[channel_of(x, axis)] = params[key][axis]

    def function(values: jax.Array) -> jax.Array:
        lead = values.ndim - rank
        before = {
            "window_dimensions": (1,) * lead,
            "window_strides": (1,) * lead,
            "padding": ((0, 0),) * lead,
            "window_dilation": (1,) * lead,
            "base_dilation": (1,) * lead,
        }
        options = {key: (*before[key], *config[key]) for key in config}
        return operation.equation.primitive.bind(values, **{**params, **options})

    channels = list(x.channels)
    for axis in axes:
        channels[channel_of(x, axis)] = operation.aval.shape[axis]
    return pointwise(
        operation.trace,
        operation.aval,
        [x],
        on_channels(x, function),
        like=x,
        channels=channels,
    )
