"""Slices of positions and of channels."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.grids import one_dimension
from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Outside, Slices
from lmjax.masking.transform.pointwise import channel_of, normal, on_channels, pointwise
from lmjax.masking.transform.sliding import Sliding, part, uncut
from lmjax.masking.transform.symbols import Slide


@rule("slice")
def _slice(operation: Operation, x: Node) -> Node:
    params = operation.params
    starts, limits = params["start_indices"], params["limit_indices"]
    return sliced(operation, x, operation.aval, starts, limits, params["strides"])


@rule("split")
def _split(operation: Operation, x: Node) -> list[Node]:
    axis, start, results = operation.params["axis"], 0, []
    for variable, size in zip(operation.equation.outvars, operation.params["sizes"]):
        starts = [start if a == axis else 0 for a in range(len(x.shape))]
        limits = [start + size if a == axis else n for a, n in enumerate(x.shape)]
        results.append(sliced(operation, x, variable.aval, starts, limits))
        start += size
    return results


@rule("dynamic_slice")
def _dynamic_slice(operation: Operation, x: Node, *starts: Node) -> Node:
    sizes = operation.params["slice_sizes"]
    if not x.masked or any(s.constant is None for s in starts):
        operation.fail("where the slice starts is not known while tracing")
    first = [
        int(np.clip(int(s.constant), 0, n - k))  # type: ignore[arg-type]
        for s, n, k in zip(starts, x.shape, sizes)
    ]
    limits = [a + k for a, k in zip(first, sizes)]
    return sliced(operation, x, operation.aval, first, limits)


def sliced(
    operation: Operation,
    x: Node,
    aval: Any,
    starts: Sequence[int],
    limits: Sequence[int],
    strides: Sequence[int] | None = None,
) -> Node:
    """Returns the node of a slice."""
    strides = strides or (1,) * len(starts)
    trace, x = operation.trace, normal(operation.trace, x)
    cut = {
        a: Slide(1, step, -start, 1, aval.shape[a])
        for a, (start, limit, step) in enumerate(zip(starts, limits, strides))
        if (start, limit, step) != (0, x.shape[a], 1)
    }
    for axis in cut:
        if len(x.grid_dims(axis)) > 1:
            x = normal(trace, one_dimension(trace, x, axis))
        if 0 in x.grid_dims(axis):
            operation.fail("it takes part of the batch")
    of_channels = {a: s for a, s in cut.items() if not x.grid_dims(a)}
    of_positions = {a: s for a, s in cut.items() if x.grid_dims(a)}
    if of_channels:
        x = _sliced_channels(operation, x, of_channels)
    if not of_positions:
        return x
    return _sliced_positions(operation, x, aval, of_positions)


def _sliced_channels(operation: Operation, x: Node, cut: dict[int, Slide]) -> Node:
    index, channels = [slice(None)] * len(x.channels), list(x.channels)
    for axis, s in cut.items():
        if not x.channel_dims(axis):  # it repeats one entry
            continue
        stop = s.first + (s.outputs - 1) * s.stride + 1
        index[channel_of(x, axis)] = slice(s.first, stop, s.stride)
        channels[channel_of(x, axis)] = s.outputs
    shape = [cut[a].outputs if a in cut else n for a, n in enumerate(x.shape)]
    aval = jax.ShapeDtypeStruct(shape, x.dtype)
    outside = None
    if x.outside is not None:
        fill = x.outside.fill
        plain = tuple(
            slice(
                cut[a].first, cut[a].first + (cut[a].outputs - 1) * cut[a].stride + 1, cut[a].stride
            )
            if a in cut and n > 1
            else slice(None)
            for a, n in enumerate(fill.stored)
        )
        stored = [m if n > 1 else 1 for n, m in zip(fill.stored, shape)]
        taken = operation.trace.plain(aval, [fill], lambda v: v[plain], stored=stored)
        outside = Outside(x.pads, taken)
    function = on_channels(x, lambda values: values[(..., *index)])
    return pointwise(
        operation.trace, aval, [x], function, like=x, channels=channels, outside=outside
    )


def _sliced_positions(operation: Operation, x: Node, aval: Any, cut: dict[int, Slide]) -> Node:
    sliding = Sliding(operation, x, cut)
    whole, parts = uncut(sliding.slides, x.grid)
    steps = tuple(s.stride for s in whole)
    plainly = whole == sliding.slides and len(x.grid) == 3
    plainly = plainly and jnp.issubdtype(x.dtype, jnp.floating)
    cuts_end = any(p.stop < n for p, n in zip(parts, x.grid))

    def run(value: Any) -> Any:
        if plainly and not cuts_end:
            return layers.max_pool(value, window=1, stride=steps[1:])
        step = [slice(p.start, p.stop, s) for p, s in zip(parts, steps)]
        return part(value, step)

    outside = None
    if sliding.anything_outside:
        assert x.outside is not None
        fill = x.outside.fill
        index = tuple(
            slice(
                cut[a].first, cut[a].first + (cut[a].outputs - 1) * cut[a].stride + 1, cut[a].stride
            )
            if a in cut and n > 1
            else slice(None)
            for a, n in enumerate(fill.stored)
        )
        stored = [m if n > 1 else 1 for n, m in zip(fill.stored, aval.shape)]
        taken = operation.trace.plain(aval, [fill], lambda v: v[index], stored=stored)
        outside = Outside(sliding.pads, taken)
    node = operation.trace.masked(
        aval,
        (x,),
        run,
        mask=x.symbol.window(sliding.slides),
        axes=x.axes,
        channels=x.channels,
        outside=outside,
    )
    windows = tuple(cut.get(a, Slide(1, 1, 0, 1, n)) for a, n in enumerate(x.shape))
    if node.masked:
        node.slices = Slices(x, (windows,), None, (1.0,))
    return node
