"""Masked layers on full-size activations.

Every function takes and gives `Masked` values: `x` `[N, H, W, C]` (channels last) with a mask
`[N, H, W]`, or None for the plain layer. One rule holds throughout: what lies under the mask is
never read. So hidden values are dropped by selection (`jnp.where`), never by multiplication, which
would let NaN through, and `x` is exactly 0 wherever its mask is 0.

The functions that networks call are generic: `lmjax.masking.sparse.rows` registers them for values
that hold visible positions only, so a network written in them runs on either.

Source: Balasubramanian & Feizi, "Towards Improved Input Masking for Convolutional Neural Networks",
arXiv 2211.14646. Where a rule departs from the authors' published code, the function says so.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.masking.masked import Masked
from lmjax.masking.neighbor_padding import neighbor_padding
from lmjax.masking.windows import Padding, Pair, Slide, Window

_CONV_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Depthwise windows of more positions are kept out of the fusions that read them, on CPU.
_MOST_FUSED = 25
# Channels of the convolutions into which grouped ones are divided, on CPU: 2.3 times as fast as
# XLA's (geometric mean of 20 layers; 2.9 times without YNNPACK). 16, 24 and 48 channels: 2.8, 2.5
# and 1.8 times (3.1, 3.0 and 2.4). Fewer compile longer.
_GROUPED_CHANNELS = 32

exact_gelu = functools.partial(jax.nn.gelu, approximate=False)
"""GELU by the error function, as torch has it."""
KEEPING_ZERO = (
    *(jax.nn.relu, jax.nn.relu6, jax.nn.silu, jax.nn.hard_swish),
    *(jax.nn.gelu, exact_gelu),
)
"""Activations that take 0 to 0, with a finite slope there."""


def select(mask: jax.Array | None, x: jax.Array) -> jax.Array:
    """Returns `x` `[..., H, W, C]` where `mask` `[..., H, W]` is True, and 0 elsewhere."""
    if mask is None:
        return x
    return jnp.where(lax.expand_dims(mask, (mask.ndim,)), x, jnp.zeros((), x.dtype))


def wide_type(x: jax.Array) -> jnp.dtype:
    """Returns the type that means are taken in: float32, or that of `x` where it is wider."""
    return jnp.promote_types(x.dtype, jnp.float32)


@functools.singledispatch
def mask_input(inputs: Masked) -> Masked:
    """Starts masking: the normalised image with its hidden pixels dropped."""
    return Masked(select(inputs.mask, inputs.x), inputs.mask)


@functools.singledispatch
def full_size(inputs: Masked) -> Masked:
    """Returns activations `[N, H, W, C]` with their mask, from any of the forms that hold them."""
    return inputs


@functools.singledispatch
def unmask(inputs: Masked) -> Masked:
    """Ends masking: the activations, zeros included, as they stand."""
    return Masked(inputs.x, None)


def _size(x: jax.Array) -> tuple[int, int]:
    """H and W of `[N, H, W, ...]`."""
    return x.shape[1], x.shape[2]


def _pool_mask(mask: jax.Array, window: Window) -> jax.Array:
    if window == Window.of(1):
        return mask  # itself: `_select_common` knows it again
    return lax.reduce_window(
        mask,
        False,
        lax.bitwise_or,
        window_dimensions=(1, *window.shape),
        window_strides=(1, *window.strides),
        padding=((0, 0), *window.pads),
        window_dilation=(1, *window.dilations),
    )


def pool_mask(
    mask: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> jax.Array:
    """Slides a window over a mask `[N, H, W]`: visible where it touches a visible position.

    This is max pooling, and takes its arguments. The authors' code ignores `dilation` here.
    """
    sliding = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    return _pool_mask(mask, Window.over(_size(mask), window=window, **sliding))


def _window_sum(x: jax.Array, window: Window) -> jax.Array:
    """Sums of `x` `[N, H, W, C]` over sliding windows; zeros outside."""
    return lax.reduce_window(
        x,
        np.zeros((), x.dtype),
        lax.add,
        window_dimensions=(1, *window.shape, 1),
        window_strides=(1, *window.strides, 1),
        padding=((0, 0), *window.pads, (0, 0)),
        window_dilation=(1, *window.dilations, 1),
    )


def _plain_conv(
    x: jax.Array, kernel: jax.Array, window: Window, *, groups: int, precision
) -> jax.Array:
    if window == Window.of(1, window.strides) and groups == 1:
        down, right = window.strides
        if (down, right) != (1, 1):
            x = x[:, ::down, ::right]
        return jnp.einsum("nhwi,io->nhwo", x, kernel[0, 0], precision=precision)
    if x.shape[-1] == 3 and groups == 1 and 16 < kernel.shape[-1] <= 32:
        # XLA on CPU is 2 to 7 times as fast with a fourth channel, of zeros, for 17 to 32 outputs.
        x, kernel = _zeros_behind(x, axis=3), _zeros_behind(kernel, axis=2)
    convolve = functools.partial(
        lax.conv_general_dilated,
        window_strides=window.strides,
        padding=window.pads,
        rhs_dilation=window.dilations,
        dimension_numbers=_CONV_DIMENSIONS,
        feature_group_count=groups,
        precision=precision,
    )
    if groups > 1 and groups == x.shape[-1] == kernel.shape[-1]:
        shifted = functools.partial(_depthwise_conv, window=window)
        if window.size > _MOST_FUSED:
            shifted = functools.partial(_by_itself, shifted, convolve)
        return lax.platform_dependent(x, kernel, cpu=shifted, default=convolve)
    if groups > 1:
        jax.eval_shape(convolve, x, kernel)  # raises ValueError where channels do not fit
        alone = functools.partial(_plain_conv, window=window, groups=1, precision=precision)
        divided = functools.partial(_grouped_conv, alone, groups=groups)
        return lax.platform_dependent(x, kernel, cpu=divided, default=convolve)
    return convolve(x, kernel)


def _by_itself(
    function: Callable[..., jax.Array],
    same: Callable[..., jax.Array],
    x: jax.Array,
    kernel: jax.Array,
) -> jax.Array:
    """Computes `function(x, kernel)` in a branch, which XLA does not fuse with what reads it.

    It would compute all products again for each reduction of a layer norm: 56 x 56 x 96 with a 7x7
    window take 6 times as long. What both branches compute is the same.
    """
    return lax.cond(jnp.isnan(kernel[0, 0, 0, 0]), same, function, x, kernel)


def _depthwise_conv(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Convolves channel by channel, as a sum of shifted images times their weights.

    XLA's convolution takes 4 to 33 times as long on CPU (3x3 and 5x5, 7 to 112 pixels). The barrier
    keeps XLA from padding the image again for every shift.
    """
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *window.pads, (0, 0))))
    height, width = window.unpadded().outputs(_size(x))
    (down, right), (rows, columns) = window.strides, window.dilations
    kernel, total = kernel.astype(wide_type(x)), None
    for i, j in np.ndindex(window.shape):  # in lax: half the time to trace it, at 25 shifts a layer
        start = (0, i * rows, j * columns, 0)
        stop = start[1] + (height - 1) * down + 1, start[2] + (width - 1) * right + 1
        part = lax.slice(x, start, (len(x), *stop, x.shape[3]), (1, down, right, 1))
        weights = lax.slice(kernel, (i, j, 0, 0), (i + 1, j + 1, *kernel.shape[2:]))
        weights = lax.broadcast_in_dim(weights, part.shape, (0, 1, 2, 3))
        product = lax.mul(lax.convert_element_type(part, kernel.dtype), weights)
        total = product if total is None else lax.add(total, product)
    assert total is not None
    return total.astype(x.dtype)


def _grouped_conv(
    convolve: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, *, groups: int
) -> jax.Array:
    """Convolves groups of channels, as ordinary convolutions of a few groups each.

    XLA's grouped convolution takes 2 to 10 times as long on CPU (3x3, 4 to 64 channels a group, 7
    to 112 pixels). Narrow groups share one: weights between them are 0, which costs less than a
    convolution of few channels. A NaN or an infinity of one group reaches those that share with it.
    """
    inputs, outputs = kernel.shape[2], kernel.shape[3] // groups
    shared = _groups_together(inputs, outputs)
    parts = []
    for first in range(0, groups, shared):
        stop = min(first + shared, groups)
        own = lax.slice_in_dim(kernel, first * outputs, stop * outputs, axis=3)
        part = lax.slice_in_dim(x, first * inputs, stop * inputs, axis=3)
        parts.append(convolve(part, _side_by_side(own, stop - first)))
    return lax.concatenate(parts, 3)


def _groups_together(inputs: int, outputs: int) -> int:
    """Returns how many groups, of some inputs and outputs each, are one convolution on CPU."""
    return max(_GROUPED_CHANNELS // max(inputs, outputs), 1)


def _side_by_side(kernel: jax.Array, groups: int) -> jax.Array:
    """Returns the kernel `[kh, kw, groups * C, C_out]` of a grouped `[kh, kw, C, C_out]`."""
    height, width, inputs, outputs = kernel.shape
    apart = kernel.reshape(height, width, 1, inputs, groups, -1)
    own = jnp.eye(groups, dtype=kernel.dtype).reshape(1, 1, groups, 1, groups, 1)
    return (apart * own).reshape(height, width, groups * inputs, outputs)


def _zeros_behind(x: jax.Array, *, axis: int) -> jax.Array:
    return jnp.pad(x, [(0, int(i == axis)) for i in range(x.ndim)])


@functools.singledispatch
def conv(
    inputs: Masked,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    fill: str = "neighbor",
    rings: int | None = None,
    keep: jax.Array | None = None,
    precision: lax.Precision | None = None,
) -> Masked:
    """Convolves the visible part.

    Args:
      inputs: `[N, H, W, C]` with its mask.
      kernel: `[kh, kw, C // groups, C_out]`.
      bias: `[C_out]` or None.
      stride, dilation, groups: as in torch: a number, or (rows, columns).
      padding: how many zeros are around the image: a number, (rows, columns), or
        ((top, bottom), (left, right)).
      fill: what stands in hidden positions next to the visible region: `"neighbor"` (neighbor
        padding), `"none"` (zeros), or `"partial"` (zeros, and the sum over each window scaled by
        window size over visible count: Liu et al. 2018, equation 1).
      rings: number of rings of neighbor padding. None takes as many as an output can read whose
        window touches the visible region, `dilation * (k - 1)` of the axis that has more; the
        authors run `k`, which gives the same numbers. Fewer are exact when later layers discard
        outputs at the border (see `keep`).
      keep: `[N, H', W']` bool, the outputs that later layers read, where this is known to be less
        than all that the window touches. None keeps all of them.
      precision: of the products, where the device offers a choice; None is JAX's default.

    Returns:
      `[N, H', W', C_out]`, visible where the window touches a visible position, or on `keep`.
    """
    x, mask = inputs
    window = Window.of((kernel.shape[0], kernel.shape[1]), stride, padding, dilation)
    if mask is not None and fill == "neighbor":
        x = neighbor_padding(x, mask, window.rings if rings is None else rings)
    y = _plain_conv(x, kernel, window, groups=groups, precision=precision)
    if mask is not None and fill == "partial" and window.size > 1:
        visible = _window_sum(mask[..., None].astype(y.dtype), window)
        y = y * (window.size / jnp.maximum(visible, 1))
    if bias is not None:
        y = y + bias[None, None, None, :]
    if mask is None:
        return Masked(y)
    mask = _pool_mask(mask, window) if keep is None else keep
    return Masked(select(mask, y), mask)


@functools.singledispatch
def pointwise(
    inputs: Masked | jax.Array, function: Callable[..., jax.Array], *others: Masked | jax.Array
) -> Masked:
    """Applies a map `[..., C] -> [..., C']` that treats positions alone: norm, activation, ...

    With others, it is a map of several: visible where all masked ones are. These are on one grid,
    and arrays beside them, which nothing hides, broadcast to it: `[N|1, H|1, W|1, C|1]`. The
    function must broadcast too: it is shown rows `[R, C]` and `[1, C]` where only visible positions
    are computed.

    Hidden positions, which hold 0, are shown to the function as 1: its slope at 0 may be infinite,
    and would make gradients NaN. Activations that are known to keep 0 are applied as they are: on
    CPU a network of depthwise convolutions and swish takes half of the time then, since XLA
    computes again, for each function that reads it, what a selection selects from. A gradient with
    respect to `inputs` is theirs at 0 there; no layer before lets it through.
    """
    keeps_zero = any(function is each for each in KEEPING_ZERO)
    if keeps_zero and not others and isinstance(inputs, Masked):
        return Masked(function(inputs.x), inputs.mask)
    operands = inputs, *others
    held = next((i for i, operand in enumerate(operands) if _holds_rows(operand)), None)
    if held is not None:
        first, *rest = _swapped(operands, held)
        return pointwise(first, lambda *x: function(*_swapped(x, held)), *rest)
    mask = _known_to_all(*operands)
    rank = max(operand.x.ndim for operand in operands if isinstance(operand, Masked))
    shown = (_shown(operand, mask, rank) for operand in operands)
    return Masked(select(mask, function(*shown)), mask)


def _holds_rows(operand: Any) -> bool:
    """Whether it is masked in another way than here."""
    return isinstance(operand, tuple) and not isinstance(operand, Masked)


def _swapped(values: tuple, i: int) -> tuple:
    """The first value in the place of the i-th, and that one in its place."""
    return values[i], *values[1:i], values[0], *values[i + 1 :]


def _known_to_all(*operands: Masked | jax.Array) -> jax.Array | None:
    """Where all are visible; None if nothing is masked."""
    masks = [each.mask for each in operands if isinstance(each, Masked) and each.mask is not None]
    return functools.reduce(jnp.logical_and, masks) if masks else None


def _shown(operand: Masked | jax.Array, mask: jax.Array | None, rank: int) -> jax.Array:
    """What a map sees of an operand: 1 where `mask` hides something of a masked one."""
    if not isinstance(operand, Masked):
        x = jnp.asarray(operand)
        return x.reshape((1,) * (rank - x.ndim) + x.shape)
    x = operand.x
    if operand.mask is None or mask is None:
        return x
    return jnp.where(lax.expand_dims(mask, (mask.ndim,)), x, jnp.ones((), x.dtype))


def _window_max(x: jax.Array, *, axis: int, slide: Slide, outside) -> jax.Array:
    """Maxima over sliding windows along one axis; `outside` stands around the image."""
    pad = [(0, 0)] * x.ndim
    pad[axis] = slide.low, slide.high
    x = jnp.pad(x, pad, constant_values=outside)
    last = x.shape[axis] - slide.reach
    shifted = (
        lax.slice_in_dim(x, i, i + last + 1, stride=slide.stride, axis=axis)
        for i in range(0, slide.reach, slide.dilation)
    )
    return functools.reduce(jnp.maximum, shifted)


@functools.singledispatch
def max_pool(
    inputs: Masked,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    outside: float = -np.inf,
) -> Masked:
    """Takes the maximum over the visible positions of each window.

    As maxima of shifted slices, rows then columns: on CPU twice as fast as XLA's reduce_window, and
    four times with its gradient (8 x 112 x 112 x 64). Where values tie, the gradient is shared.

    Args:
      inputs: `[N, H, W, C]` with its mask.
      window, stride, padding, dilation: as in `conv`.
      ceil_mode: as torch's pools have it: one more window where the last one does not reach the
        end, unless it would begin outside.
      outside: counts in windows that reach beyond the image: 0 where a network pads by zeros
        itself.
    """
    x, mask = inputs
    sliding = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    made = Window.over(_size(x), window=window, **sliding)
    y = x if mask is None else jnp.where(mask[..., None], x, -jnp.inf)
    y = _window_max(y, axis=1, slide=made.rows, outside=outside)
    y = _window_max(y, axis=2, slide=made.columns, outside=outside)
    if mask is None:
        return Masked(y)
    mask = _pool_mask(mask, made)
    return Masked(select(mask, y), mask)


@functools.singledispatch
def average_pool(
    inputs: Masked,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = 0,
    ceil_mode: bool = False,
) -> Masked:
    """Takes the mean over the visible positions of each window; options as in `max_pool`.

    Positions outside the image never count. The authors' code divides by the window's size.
    """
    x, mask = inputs
    sliding = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    made = Window.over(_size(x), window=window, **sliding)
    wide = wide_type(x)
    total = _window_sum(x.astype(wide), made)
    known = jnp.ones((1, *x.shape[1:3]), bool) if mask is None else mask
    count = jnp.maximum(_window_sum(known[..., None].astype(wide), made), 1)
    mean = total / count
    mean = mean.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else mean
    return Masked(mean, None if mask is None else _pool_mask(mask, made))


@functools.singledispatch
def window_sum(
    inputs: Masked,
    *,
    window: Pair,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Masked:
    """Takes sums over windows as if every position had the mean of the visible ones there.

    Options as in `max_pool`. Positions outside the image never count: divided by how many are
    inside, this is `average_pool`; divided by the window's size, an average pool over zeros around
    the image, torch's default.
    """
    x, mask = inputs
    sliding = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    made = Window.over(_size(x), window=window, **sliding)
    total = _window_sum(x, made)
    if mask is None:
        return Masked(total)
    visible = _window_sum(mask[..., None].astype(wide_type(x)), made)
    inside = made.inside(_size(x))[None, ..., None].astype(visible.dtype)
    scale = inside / jnp.maximum(visible, 1)
    mask = _pool_mask(mask, made)
    return Masked(select(mask, total * scale.astype(x.dtype)), mask)


@functools.singledispatch
def residual(branch: Masked, shortcut: Masked) -> Masked:
    """Adds two branches, visible where both are: a sum with an unknown part is unknown."""
    if branch.mask is None or shortcut.mask is None:
        return Masked(branch.x + shortcut.x)
    return _select_common([branch.mask, shortcut.mask], branch.x + shortcut.x)


@functools.singledispatch
def concatenate(first: Masked, *others: Masked) -> Masked:
    """Concatenates channels, visible where all branches are.

    A position that is unknown in one branch is not known. The authors' code takes a majority vote
    in DenseNet and a union in SqueezeNet, both of which let zeros pass for observed values.
    """
    x = jnp.concatenate([first.x, *(other.x for other in others)], axis=-1)
    if first.mask is None:
        return Masked(x)
    masks = [other.mask for other in others if other.mask is not None]
    return _select_common([first.mask, *masks], x)


def _select_common(masks: Sequence[jax.Array], x: jax.Array) -> Masked:
    """Keeps what is visible under every mask, of `x` that is 0 where all of them hide it.

    Under one mask that is `x`. A selection would cost more than it seems: XLA on CPU computes it,
    and the sum it selects from, again for each reader (a tenth of the time of a transformer).
    """
    if all(mask is masks[0] for mask in masks):
        return Masked(x, masks[0])
    mask = functools.reduce(jnp.logical_and, masks)
    return Masked(select(mask, x), mask)


def attention(inputs: Masked, heads: int, *, precision: lax.Precision | None = None) -> Masked:
    """Applies multi-head attention among visible positions (Vaswani et al. 2017, arXiv 1706.03762).

    Hidden positions are not attended to: the answer is that of the visible ones alone.

    Args:
      inputs: `[N, H, W, 3 * C]`: queries, keys and values side by side, each head by head.
      heads: their number; divides C.
      precision: as in `conv`.

    Returns:
      `[N, H, W, C]`, head by head.
    """
    x, mask = inputs
    x = x.reshape(len(x), -1, 3, heads, x.shape[-1] // (3 * heads))
    queries, keys, values = x[:, :, 0], x[:, :, 1], x[:, :, 2]
    queries = queries * queries.shape[-1] ** -0.5
    scores = jnp.einsum("nqhc,nkhc->nhqk", queries, keys, precision=precision)
    scores = scores.astype(jnp.float32)
    if mask is not None:
        # The least number, not -inf: without any key, that would give NaN.
        least = jnp.finfo(scores.dtype).min
        scores = jnp.where(mask.reshape(len(mask), 1, 1, -1), scores, least)
    weights = jax.nn.softmax(scores).astype(values.dtype)
    y = jnp.einsum("nhqk,nkhc->nqhc", weights, values, precision=precision)
    return Masked(select(mask, y.reshape(*inputs.x.shape[:3], -1)), mask)


@functools.singledispatch
def group_norm(inputs: Masked, groups: int, *, epsilon: float) -> Masked:
    """Normalises each group of channels by mean and deviation (Wu & He 2018, arXiv 1803.08494).

    Both are taken over the visible positions of each image.
    """
    x, mask = inputs
    y = x.astype(wide_type(x)).reshape(*x.shape[:3], groups, -1)
    known = jnp.ones((1, *x.shape[1:3]), bool) if mask is None else mask
    count = jnp.maximum(known.sum(axis=(1, 2), dtype=y.dtype) * y.shape[-1], 1)

    def mean(values: jax.Array) -> jax.Array:
        return values.sum(axis=(1, 2, 4), keepdims=True) / count.reshape(-1, 1, 1, 1, 1)

    def visible(values: jax.Array) -> jax.Array:
        return jnp.where(known[..., None, None], values, 0)

    y = visible(y - mean(visible(y)))
    y = y * lax.rsqrt(mean(y**2) + epsilon)
    return Masked(y.reshape(x.shape).astype(x.dtype), mask)


@functools.singledispatch
def scale_channels(inputs: Masked, factors: jax.Array) -> Masked:
    """Multiplies every image's channels by its factors `[N, C]`."""
    return inputs._replace(x=inputs.x * factors[:, None, None, :].astype(inputs.x.dtype))


@functools.singledispatch
def seam(inputs: Masked) -> Masked:
    """Marks where a network can be cut in two: what lies behind reads nothing else from before.

    Changes nothing here; `lmjax.masking.sparse.sharing` cuts.
    """
    return inputs


@functools.singledispatch
def global_average_pool(inputs: Masked) -> jax.Array:
    """Takes the mean over the visible positions, float32 `[N, C]`; zeros where none is visible."""
    x, mask = inputs
    x = x.astype(wide_type(x))
    if mask is None:
        return x.mean(axis=(1, 2))
    visible = mask.sum(axis=(1, 2), dtype=x.dtype)[:, None]
    return x.sum(axis=(1, 2)) / jnp.maximum(visible, 1)


@functools.singledispatch
def global_max_pool(inputs: Masked) -> jax.Array:
    """Takes the maximum over the visible positions, float32 `[N, C]`; zeros where none is."""
    x, mask = inputs
    x = x.astype(wide_type(x))
    if mask is None:
        return x.max(axis=(1, 2))
    largest = jnp.where(mask[..., None], x, -jnp.inf).max(axis=(1, 2))
    return select(mask.any(axis=(1, 2)), largest)


@functools.singledispatch
def adaptive_average_pool(inputs: Masked, size: int) -> jax.Array:
    """Takes the mean over the visible positions of each cell of a grid, float32 `[N, n, n, C]`.

    Cells are torch's: cell i of n takes rows `floor(i * H / n)` to `ceil((i + 1) * H / n)`, so they
    may overlap. Cells where no position is visible hold zeros.
    """
    x, mask = inputs
    if mask is None:
        mask = jnp.ones(x.shape[:3], bool)
    rows, columns = (_cells(length, size) for length in mask.shape[1:])
    # Cells are few and small: sums over whole cells, not products with zeros and ones, which would
    # spread an infinity to all cells.
    x, visible = x.astype(wide_type(x)), mask.astype(wide_type(x))[..., None]

    def grid(values: jax.Array) -> jax.Array:
        lines = jnp.stack([values[:, row].sum(axis=1) for row in rows], axis=1)
        return jnp.stack([lines[:, :, column].sum(axis=2) for column in columns], axis=2)

    return grid(x) / jnp.maximum(grid(visible), 1)


def _cells(length: int, size: int) -> list[slice]:
    return [slice(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
