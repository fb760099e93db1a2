"""Padding as an operation of its own: what it adds is outside the image, not hidden."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Outside
from lmjax.masking.transform.pointwise import channel_of, normal, on_channels, pointwise
from lmjax.masking.transform.slicing import sliced
from lmjax.masking.transform.tracing import realised


@rule("pad")
def _pad(operation: Operation, x: Node, value: Node) -> Node:
    if value.masked or not x.masked:
        operation.fail("it pads by a masked value")
    config = operation.params["padding_config"]
    x = normal(operation.trace, x)
    spatial = {a for a in range(len(x.shape)) if x.of_positions(a) and any(config[a])}
    channels = {a for a, c in enumerate(config) if any(c) and x.channel_dims(a)}
    if any(any(c) for a, c in enumerate(config) if a not in spatial | channels):
        operation.fail("it pads the batch, or an axis of one entry")
    if any(config[a][2] for a in spatial):
        operation.fail("it puts zeros between positions (write a transposed convolution)")
    if spatial and channels:
        operation.fail("it pads positions and channels at once")
    return _pad_positions(operation, x, value) if spatial else _pad_channels(operation, x, value)


def _pad_channels(operation: Operation, x: Node, value: Node) -> Node:
    config = [(0, 0, 0)] * len(x.channels)
    channels = list(x.channels)
    for axis, entry in enumerate(operation.params["padding_config"]):
        if any(entry):
            config[channel_of(x, axis)] = tuple(entry)
            channels[channel_of(x, axis)] = operation.aval.shape[axis]

    def function(values: jax.Array, around: jax.Array) -> jax.Array:
        lead = values.ndim - len(config)
        scalar = around.reshape(-1)[0].astype(values.dtype)
        return lax.pad(values, scalar, [(0, 0, 0)] * lead + config)

    def run(values: jax.Array, around: jax.Array) -> jax.Array:
        return on_channels(x, functools.partial(function, around=around))(values)

    shape = jax.ShapeDtypeStruct([1] * (len(x.grid) + 1), value.dtype)
    around = operation.trace.plain(shape, [value], lambda v: jnp.reshape(v, shape.shape))
    return pointwise(operation.trace, operation.aval, [x, around], run, like=x, channels=channels)


def _pad_positions(operation: Operation, x: Node, value: Node) -> Node:
    """Positions outside the image, kept apart as long as an operation can."""
    aval, trace = operation.aval, operation.trace
    added, cut = {}, {}
    for axis, (low, high, _) in enumerate(operation.params["padding_config"]):
        if x.of_positions(axis):
            (dim,) = x.grid_dims(axis) if len(x.grid_dims(axis)) == 1 else (None,)
            if dim is None and (low or high):
                operation.fail("it pads positions that are merged into one axis")
            added[dim], cut[axis] = (max(low, 0), max(high, 0)), (min(low, 0), min(high, 0))
    if any(map(any, cut.values())):
        starts = [-cut.get(a, (0, 0))[0] for a in range(len(x.shape))]
        limits = [n + cut.get(a, (0, 0))[1] for a, n in enumerate(x.shape)]
        shape = [b - a for a, b in zip(starts, limits)]
        x = sliced(operation, x, jax.ShapeDtypeStruct(shape, x.dtype), starts, limits)
        x = normal(trace, x)
    if not any(map(any, added.values())):
        return pointwise(trace, aval, [x], lambda a: a, like=x)
    stored = [1] * len(aval.shape)
    fill = trace.plain(aval, [value], lambda v: jnp.reshape(v, stored), stored=stored)
    if x.outside is not None:
        old = x.outside.fill
        same = fill.constant is not None and old.constant is not None
        if not same or (fill.constant != old.constant).any():
            x = realised(trace, x)
    pads = tuple(
        (low + added.get(d, (0, 0))[0], high + added.get(d, (0, 0))[1])
        for d, (low, high) in enumerate(x.pads)
    )
    return pointwise(trace, aval, [x], lambda a: a, like=x, outside=Outside(pads, fill))
