"""Convolutions of a traced function, in any layout."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.masking import layers
from lmjax.masking.neighbor_padding import neighbor_padding
from lmjax.masking.transform.elementwise import with_constants
from lmjax.masking.transform.grids import as_image, one_dimension
from lmjax.masking.transform.nodes import Node, full_size, inverse
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Outside
from lmjax.masking.transform.pointwise import normal, pointwise
from lmjax.masking.transform.sliding import (
    Sliding,
    nothing,
    options_of,
    padded_axes,
    part,
    uncut,
)
from lmjax.masking.transform.symbols import Slide
from lmjax.masking.transform.tracing import realised


class Convolution(Node):
    """A convolution: the plan says which of its outputs are read, and so how many rings it needs.

    `run` takes `rings` and `keep` besides the values.

    Attributes:
      slides: its window, for each dimension of the grid.
    """

    def __init__(self, *args: Any, slides: Sequence[Slide], **known: Any):
        super().__init__(*args, **known)
        self.slides = tuple(slides)


@rule("conv_general_dilated")
def _convolution(operation: Operation, x: Node, kernel: Node) -> Node:
    params, numbers = operation.params, operation.params["dimension_numbers"]
    if not x.masked or kernel.masked:
        operation.fail("its kernel has positions")
    if params["batch_group_count"] != 1:
        operation.fail("batch_group_count is not 1")
    kernel, x = operation.trace.full(kernel), normal(operation.trace, x)
    batch, channel, *space = numbers.lhs_spec
    if x.grid_dims(batch) != (0,):
        operation.fail(f"axis {batch}, the convolution's batch, is not the batch of images alone")
    if x.grid_dims(channel):
        operation.fail(f"axis {channel}, the convolution's channels, holds positions")
    for axis in space:  # positions that are merged into one axis become one dimension
        x = normal(operation.trace, one_dimension(operation.trace, x, axis))
    if x.outside is None:
        x = as_image(operation.trace, x, space)
    if any(d != 1 for d in params["lhs_dilation"]):
        return _transposed(operation, realised(operation.trace, x), kernel)
    windows = _windows_of(operation, kernel)
    for axis in space:
        if not x.grid_dims(axis) and x.shape[axis] > 1:
            operation.fail(f"axis {axis}, along which the convolution slides, holds no positions")
    sliding = Sliding(operation, x, {a: w for a, w in windows.items() if not _trivial(x, a, w)})
    axes = _output_axes(operation, x)
    channels = [operation.aval.shape[numbers.out_spec[1]]]
    around = _constants_outside(operation, x, kernel, sliding)
    convolved = _convolved(operation, x, kernel, sliding, axes, channels)
    if around is None:
        return convolved
    return with_constants(operation, convolved, around, jnp.add)


def _windows_of(operation: Operation, kernel: Node) -> dict[int, Slide]:
    """The window along each axis of space."""
    params, numbers = operation.params, operation.params["dimension_numbers"]
    return {
        axis: Slide(
            kernel.shape[numbers.rhs_spec[2 + i]],
            params["window_strides"][i],
            params["padding"][i][0],
            params["rhs_dilation"][i],
            operation.aval.shape[numbers.out_spec[2 + i]],
        )
        for i, axis in enumerate(numbers.lhs_spec[2:])
    }


def _trivial(x: Node, axis: int, window: Slide) -> bool:
    """Whether an axis has one entry, no positions, and a window that reads it alone."""
    return not x.axes[axis] and window.outputs == 1 and window.size == 1


def _output_axes(operation: Operation, x: Node) -> tuple[tuple[int, ...], ...]:
    numbers = operation.params["dimension_numbers"]
    axes: list[tuple[int, ...]] = [()] * len(x.shape)
    for source, to in zip(numbers.lhs_spec[2:], numbers.out_spec[2:]):
        axes[to] = x.axes[source]
    axes[numbers.out_spec[0]] = (0,)
    axes[numbers.out_spec[1]] = (len(x.grid),)
    return tuple(axes)


def _kernel_for(operation: Operation, x: Node, kernel: jax.Array) -> jax.Array:
    """The kernel `[rows, columns, in, out]`, in the order of the grid."""
    numbers = operation.params["dimension_numbers"]
    where = {}
    for i, axis in enumerate(numbers.lhs_spec[2:]):
        for d in x.grid_dims(axis):
            where[d] = numbers.rhs_spec[2 + i]
    spatial = [where[d] for d in sorted(where)]
    rest = [a for a in numbers.rhs_spec[2:] if a not in spatial]
    order = (*spatial, numbers.rhs_spec[1], numbers.rhs_spec[0])
    kernel = jnp.squeeze(jnp.transpose(kernel, (*rest, *order)), tuple(range(len(rest))))
    sizes = [kernel.shape[sorted(where).index(d)] if d in where else 1 for d in (1, 2)]
    return kernel.reshape(*sizes, *kernel.shape[-2:])


def _convolved(operation: Operation, x: Node, kernel: Node, sliding, axes, channels) -> Node:
    params, trace = operation.params, operation.trace
    slides, groups = sliding.slides, params["feature_group_count"]
    mask = x.symbol.window(slides)
    if len(x.grid) != 3:
        if sliding.moves():
            operation.fail("a window that slides over a grid other than rows and columns")
        return _products_at_positions(operation, x, kernel, axes, channels)
    dtype = params["preferred_element_type"] or operation.aval.dtype
    _check_dtype(operation, dtype)
    whole, parts = uncut(slides, x.grid)
    options = options_of(whole, [len(range(n)[p]) for n, p in zip(x.grid, parts)])
    padding = trace.padding

    def run(value: Any, weights: jax.Array, *, rings: int, keep: Any) -> Any:
        value = value if whole == list(slides) else part(value, parts)
        return layers.conv(
            value if value.x.dtype == dtype else value._replace(x=value.x.astype(dtype)),
            _kernel_for(operation, x, weights).astype(dtype),
            groups=groups,
            fill=padding,
            rings=rings if padding == "neighbor" else None,
            keep=keep,
            precision=params["precision"],
            **options,
        )

    node = Convolution(
        operation.aval,
        (x, kernel),
        run,
        mask=mask,
        axes=axes,
        channels=channels,
        outside=Outside(sliding.pads, nothing(operation)) if sliding.anything_outside else None,
        slides=slides,
    )
    return trace.settled(node)


def _check_dtype(operation: Operation, dtype: Any) -> None:
    if operation.trace.padding == "neighbor" and not jnp.issubdtype(dtype, jnp.floating):
        operation.fail(
            f"it convolves {jnp.dtype(dtype).name}, and neighbor padding takes means, which whole "
            "numbers cannot hold; convolve floats, or give padding='none'"
        )


def _products_at_positions(operation: Operation, x: Node, kernel: Node, axes, channels) -> Node:
    """A convolution whose window is one position."""
    groups = operation.params["feature_group_count"]

    def multiply(values: jax.Array, weights: jax.Array) -> jax.Array:
        weights = weights.reshape(weights.shape[-2:])
        split = values.reshape(*values.shape[:-1], groups, -1)
        weights = weights.reshape(len(weights), groups, -1)
        y = jnp.einsum("...gi,igo->...go", split, weights, precision=operation.params["precision"])
        return y.reshape(*values.shape[:-1], -1)

    def arrange(weights: jax.Array) -> jax.Array:
        weights = _kernel_for(operation, x, weights)
        return weights.reshape(*(1 for _ in x.grid[1:]), *weights.shape[-2:])

    shape = jax.eval_shape(arrange, jax.ShapeDtypeStruct(kernel.shape, kernel.dtype))
    weights = operation.trace.plain(shape, [kernel], arrange)
    return pointwise(
        operation.trace,
        operation.aval,
        [x, weights],
        multiply,
        mask=x.mask,
        axes=axes,
        channels=channels,
    )


def _constants_outside(operation, x: Node, kernel: Node, sliding: Sliding) -> Node | None:
    """The result for an image that is 0 inside, where what is outside is not 0; else None."""
    if x.outside is None:
        return None
    fill = x.outside.fill
    if fill.constant is not None and not fill.constant.any():
        return None
    params = operation.params
    pads = padded_axes(x)
    batch = params["dimension_numbers"].lhs_spec[0]

    def run(value: jax.Array, weights: jax.Array) -> jax.Array:
        shape = [1 if a == batch else n for a, n in enumerate(x.shape)]
        inside = [n - p - q for n, (p, q) in zip(shape, pads)]
        known = jnp.pad(jnp.ones(inside, bool), pads)
        image = jnp.broadcast_to(jnp.where(known, 0, value), shape).astype(x.dtype)
        return operation.bind_anew(image, weights)

    stored = [
        1 if a == params["dimension_numbers"].out_spec[0] else n
        for a, n in enumerate(operation.aval.shape)
    ]
    return operation.trace.plain(operation.aval, [fill, kernel], run, stored=stored)


def _transposed(operation: Operation, x: Node, kernel: Node) -> Node:
    """A transposed convolution; a visible output is one that reads a visible position.

    As many rings as an output can reach: what one window reads spans `dilation * (k - 1)` places
    between which the inputs stand `lhs_dilation` apart.
    """
    params, numbers = operation.params, operation.params["dimension_numbers"]
    if len(x.grid) != 3 or any(len(x.grid_dims(a)) != 1 for a in numbers.lhs_spec[2:]):
        operation.fail("a transposed convolution over positions other than rows and columns")
    sizes = [kernel.shape[a] for a in numbers.rhs_spec[2:]]
    spans = zip(sizes, params["rhs_dilation"], params["lhs_dilation"])
    rings = max(math.ceil(d * (k - 1) / between) for k, d, between in spans)
    padding = operation.trace.padding
    _check_dtype(operation, x.dtype)
    if padding == "partial":
        operation.fail("partial convolution is not defined for transposed convolutions")
    aval = operation.aval
    shape = [x.grid[0], *_spatial(aval, numbers, x)]
    result = Node(
        aval,
        (x, kernel),
        mask=x.symbol.other(("transposed", operation), shape),
        axes=_output_axes(operation, x),
        channels=[aval.shape[numbers.out_spec[1]]],
    )

    def run(value: Any, weights: jax.Array) -> Any:
        value = full_size(value)
        filled = value.x
        if padding == "neighbor":
            filled = neighbor_padding(value.x, value.mask, rings)
        y = operation.bind(x.array(value._replace(x=filled)), weights)
        mask = _touched(operation, x, kernel, value.mask)
        narrow = jnp.moveaxis(mask, numbers.out_spec[1], -1)[..., 0]
        grid_mask = _to_grid(narrow, result, numbers.out_spec[1])
        return layers.Masked(layers.select(grid_mask, result.store(y)), grid_mask)

    result.run = run
    return result


def _touched(operation: Operation, x: Node, kernel: Node, mask: jax.Array) -> jax.Array:
    """Where a transposed convolution reads something visible, in the traced layout.

    Outputs that read no position at all, between windows and behind the last, are known where those
    beside them are.
    """
    params, numbers = operation.params, operation.params["dimension_numbers"]
    of_channels = numbers.rhs_spec[:2]
    ones = [1 if a in of_channels else n for a, n in enumerate(kernel.shape)]
    y = lax.conv_general_dilated(
        x.mask_array(mask).astype(jnp.float32),
        jnp.ones(ones, jnp.float32),
        window_strides=params["window_strides"],
        padding=params["padding"],
        lhs_dilation=params["lhs_dilation"],
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=numbers,
    )
    for i in range(len(numbers.lhs_spec) - 2):
        y = jnp.take(y, _nearest_reading(operation, x, kernel, i), axis=numbers.out_spec[2 + i])
    return y > 0.5


def _nearest_reading(operation: Operation, x: Node, kernel: Node, i: int) -> np.ndarray:
    """For each output along an axis of space the nearest one, not behind it, that reads a position.

    In front of the first that does, it is that one.
    """
    params, numbers = operation.params, operation.params["dimension_numbers"]
    places = np.arange(x.shape[numbers.lhs_spec[2 + i]]) * params["lhs_dilation"][i]
    first = np.arange(operation.aval.shape[numbers.out_spec[2 + i]]) * params["window_strides"][i]
    window = np.arange(kernel.shape[numbers.rhs_spec[2 + i]]) * params["rhs_dilation"][i]
    read = first[:, None] + window - params["padding"][i][0]
    (reading,) = np.nonzero(np.isin(read, places).any(axis=1))
    if len(reading) == 0:
        operation.fail("its windows read no position at all")
    before = np.searchsorted(reading, np.arange(len(first)), side="right") - 1
    return reading[np.maximum(before, 0)]


def _spatial(aval: Any, numbers: Any, x: Node) -> list[int]:
    sizes = {
        x.grid_dims(source)[0]: aval.shape[to]
        for source, to in zip(numbers.lhs_spec[2:], numbers.out_spec[2:])
    }
    return [sizes[d] for d in sorted(sizes)]


def _to_grid(mask: jax.Array, node: Node, channel: int) -> jax.Array:
    """A mask without its channel axis in the order of the grid."""
    dims = [node.grid_dims(a)[0] for a in range(len(node.shape)) if a != channel]
    return jnp.transpose(mask, inverse(dims))
