"""Padding: by a constant, by reflection, by the edge, and around."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import lax

from lmjax.models.pytorch.ops.table import rule


@rule("aten.pad.default")
def pad(x: jax.Array, pads: Sequence[int], mode: str = "constant", value: float | None = None):
    """Returns x padded in one of torch's four modes."""
    functions = {"reflect": reflect, "replicate": replicate, "circular": circular}
    if mode in functions:
        return functions[mode](x, pads)
    return pad_constant(x, pads, 0.0 if value is None else value)


@rule("aten.constant_pad_nd.default")
def pad_constant(x: jax.Array, pads: Sequence[int], value: float = 0.0) -> jax.Array:
    """Returns x with a constant around it; negative pads crop."""
    edges = [(0, 0, 0)] * x.ndim
    for axis, low, high in _by_axis(x, pads):
        edges[axis] = (low, high, 0)
    return lax.pad(x, np.asarray(value, x.dtype), edges)


@rule(*(f"aten.reflection_pad{n}d.default" for n in (1, 2, 3)))
def reflect(x: jax.Array, pads: Sequence[int]) -> jax.Array:
    """Returns x reflected at its edges, which are not repeated."""

    def edges(x, axis, low, high):
        last = x.shape[axis] - 1
        parts = ((1, 1 + low), (last - high, last))
        return tuple(lax.rev(lax.slice_in_dim(x, *part, axis=axis), (axis,)) for part in parts)

    return _padded(x, pads, edges)


@rule(*(f"aten.replication_pad{n}d.default" for n in (1, 2, 3)))
def replicate(x: jax.Array, pads: Sequence[int]) -> jax.Array:
    """Returns x with its edges repeated."""

    def edges(x, axis, low, high):
        first, last = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, x.shape[axis] - 1))
        return _repeated(first, low, axis), _repeated(last, high, axis)

    return _padded(x, pads, edges)


def _repeated(x: jax.Array, count: int, axis: int) -> jax.Array:
    shape = tuple(count if a == axis else size for a, size in enumerate(x.shape))
    return lax.broadcast_in_dim(x, shape, tuple(range(x.ndim)))


def circular(x: jax.Array, pads: Sequence[int]) -> jax.Array:
    """Returns x continued from its other side."""

    def edges(x, axis, low, high):
        behind = lax.slice_in_dim(x, 0, high, axis=axis)
        return lax.slice_in_dim(x, x.shape[axis] - low, None, axis=axis), behind

    return _padded(x, pads, edges)


def _padded(x: jax.Array, pads: Sequence[int], edges: Callable[..., tuple]) -> jax.Array:
    """Returns x with what `edges` gives before and behind it, axis by axis; negative pads crop."""
    for axis, low, high in _by_axis(x, pads):
        x = lax.slice_in_dim(x, max(-low, 0), x.shape[axis] - max(-high, 0), axis=axis)
        before, behind = edges(x, axis, max(low, 0), max(high, 0))
        parts = [part for part in (before, x, behind) if part.shape[axis]]
        x = lax.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def _by_axis(x: jax.Array, pads: Sequence[int]) -> list[tuple[int, int, int]]:
    """Returns (axis, low, high) of torch's pads, which begin with the last axis."""
    pairs = zip(pads[::2], pads[1::2])
    return [(x.ndim - 1 - i, low, high) for i, (low, high) in enumerate(pairs) if low or high]
