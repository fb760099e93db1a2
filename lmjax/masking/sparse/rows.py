"""Masked layers on rows of visible positions: the cost follows what is visible.

The functions of `lmjax.masking.layers` on another type of value. Rows of the visible positions of
all variants of a batch stand in one matrix: a 1x1 convolution is a matrix product, a k x k
convolution k * k gathers with their products, a ring of neighbor padding the mean of gathered
neighbours. Hidden positions have no row, so they cannot be read. The numbers are those of the
full-size layers, to rounding.

Which row a layer reads is decided outside (`lmjax.masking.sparse.positions`).
"""

# singledispatch knows one type of result; here values of another type come in and go out.
# pyright: reportArgumentType=false

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.masking.neighbor_padding import neighbor_padding
from lmjax.masking.sparse.allocation import Allocation
from lmjax.masking.sparse.positions import Cut, Layout, Positions
from lmjax.masking.sparse.windows import NEIGHBOURS, POINT, Window

# A window of pixels that is gathered and multiplied takes about 5 times as long as one in a
# convolution (7 x 7 of 3 channels, on CPU).
_GATHERING_WINDOWS = 5
# Images that neighbor padding takes together.
_PADDED_TOGETHER = 4


class Rows(NamedTuple):
    """Activations of visible positions; the counterpart of `Masked`.

    Attributes:
      x: `[R, C]`. Rows that are not in use hold any finite numbers, and nothing reads them.
      mask: the positions of the rows.
    """

    x: jax.Array
    mask: Positions


class Pixels(NamedTuple):
    """Images before their first convolution, which turns them into `Rows`.

    Attributes:
      x: `[N, H, W, C]`.
      mask: `[N, H, W]` bool, True = visible.
      layout: gives positions their rows.
    """

    x: jax.Array
    mask: jax.Array
    layout: Layout


def record(network: Callable[[Pixels], Any], images, masks, **options) -> Layout:
    """Returns the layout of a network: its sets of positions and the index arrays it reads.

    Args:
      network: function of `Pixels`.
      images: `[N, H, W, C]`, or their shape and dtype.
      masks: `[N, H, W]`, likewise.
      **options: of `Layout`.
    """
    layout = Layout(num_variants=masks.shape[0], **options)

    def trace(images, masks):
        with contextlib.suppress(Cut):
            network(Pixels(images, masks, layout))

    jax.eval_shape(trace, images, masks)
    return layout


def run(
    network: Callable[[Pixels], Any],
    images,
    masks,
    *,
    spare: int = 0,
    jit: Callable = jax.jit,
) -> Any:
    """Runs a network on rows of the visible positions of some images.

    Args:
      network: function of `Pixels`, whose result is returned.
      images: `[N, H, W, C]`.
      masks: `[N, H, W]`, 1 = visible.
      spare: rows of each set besides those that are needed.
      jit: compiles.
    """
    masks = np.asarray(masks, bool)
    layout = record(network, images, masks)
    needed = Allocation(masks, layout).counts().sum(axis=0) + spare
    capacities = tuple(np.maximum(needed, 1).tolist())
    arrays = Allocation(masks, layout, capacities).arrays()

    @jit
    def compute(images, masks, arrays):
        layout = Layout(capacities, arrays, num_variants=len(masks))
        return network(Pixels(images, masks, layout))

    return compute(images, masks, arrays)


def resume_rows(x: jax.Array | None = None) -> Callable[[Rows], Rows]:
    """Returns what goes on behind a seam on rows of visible positions, for `Layout(resume=...)`.

    Args:
      x: `[R, C]`, the rows that were computed up to there; None while a layout is recorded.
    """

    def resume(at: Rows) -> Rows:
        positions = at.mask.alone()
        rows = positions.layout.array("resume", positions, shape=(positions.capacity,))
        return Rows(_take(at.x if x is None else x, rows), positions)

    return resume


def resume_full(x: jax.Array | None = None) -> Callable[[Rows], Masked]:
    """Returns what goes on behind a seam on full-size activations; `x` as in `resume_rows`."""

    def resume(at: Rows) -> Masked:
        layout = at.mask.layout
        index = layout.array("resume_full", shape=(layout.num_variants, *at.mask.shape))
        return Masked(_take(at.x if x is None else x, index), at.mask.mask())

    return resume


def _take(x: jax.Array, rows: jax.Array, missing: float = 0) -> jax.Array:
    """Rows of `x`; `missing` for the one behind its end."""
    last = jnp.full((1, *x.shape[1:]), missing, x.dtype)
    return jnp.take(jnp.concatenate([x, last]), rows, axis=0, mode="clip")


@layers.mask_input.register(Pixels)
def _mask_input(inputs: Pixels) -> Pixels:
    return inputs._replace(x=layers.select(inputs.mask, inputs.x))


@layers.conv.register(Pixels)
def _conv_of_pixels(
    inputs: Pixels,
    kernel,
    bias=None,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    fill="neighbor",
    rings=None,
    keep=None,
    precision=None,
) -> Rows:
    """Fills images in place; then gathers whole windows, or outputs where those are many.

    The choice follows the capacity, which is static.
    """
    x, mask, layout = inputs
    size = kernel.shape[0]
    window = Window(size, stride, padding, dilation)
    height, width = mask.shape[1:]
    pixels = Positions.input(layout, (height, width))
    rings = (dilation * (size - 1) if rings is None else rings) if fill == "neighbor" else 0
    target = pixels.first(window, _widened(window, rings)) if keep is None else keep
    layout.note_products(target, kernel.size, depthwise=groups > 1)
    flat, corners = target.flat(), target.corners(pixels, window)  # both: what is read is static
    x = _padded(x, mask, rings)
    outputs = len(mask) * target.shape[0] * target.shape[1]
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    if groups > 1 or target.capacity * _GATHERING_WINDOWS > outputs:
        full = layers._plain_conv(x, kernel, groups=groups, precision=precision, **options)
        y = _on_rows(full, flat)
    else:
        y = jnp.matmul(
            _windows(x, corners, window),
            kernel.reshape(-1, kernel.shape[-1]),
            precision=precision,
        )
    if fill == "partial" and size > 1:
        visible = layers._window_sum(mask[..., None].astype(y.dtype), window=size, **options)
        y = _scale_up(y, _on_rows(visible, flat), size)
    return Rows(y if bias is None else y + bias[None], target)


def _padded(x: jax.Array, mask: jax.Array, rings: int) -> jax.Array:
    """Neighbor padding of images, a few at a time, which stay in the caches of a CPU.

    Measured: of 16 or 64 images of 224 x 224 together, it takes 2.8 times as long.
    """
    size = _PADDED_TOGETHER
    if rings == 0 or len(x) <= size:
        return neighbor_padding(x, mask, rings)
    if len(x) > 8 * size:

        def pad(image: tuple[jax.Array, jax.Array]) -> jax.Array:
            return neighbor_padding(image[0][None], image[1][None], rings)[0]

        return lax.map(pad, (x, mask), batch_size=size)
    # Inside the loop over batches, another loop takes longer.
    parts = [(x[i : i + size], mask[i : i + size]) for i in range(0, len(x), size)]
    return jnp.concatenate([neighbor_padding(*part, rings) for part in parts])


def _widened(window: Window, rings: int) -> Window:
    """The window of all that an output depends on, where rings are filled first."""
    size = (window.size - 1) * window.dilation + 1 + 2 * rings
    return Window(size, window.stride, window.padding + rings)


def _on_rows(x: jax.Array, flat: jax.Array) -> jax.Array:
    """Full-size `[N, H, W, C]` on rows, by their positions."""
    return _take(x.reshape(-1, x.shape[-1]), flat)


def _windows(x: jax.Array, corners: jax.Array, window: Window) -> jax.Array:
    """Windows of images `[N, H, W, C]` by their corners, `[R, k * k * C]`.

    As slices, one for each row of a window.
    """
    size, _, padding, dilation, _ = window
    pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x, channels = jnp.pad(x, pad), x.shape[-1]
    starts = corners[:, None] + (np.arange(size, dtype=np.int32) * dilation * x.shape[2])[None]
    width = ((size - 1) * dilation + 1) * channels
    flat = x.reshape(-1)

    def window_row(start):
        return lax.dynamic_slice(flat, (start * channels,), (width,))

    rows = jax.vmap(jax.vmap(window_row))(starts)
    rows = rows.reshape(*starts.shape, -1, channels)[:, :, ::dilation]
    return rows.reshape(len(starts), -1)


@layers.conv.register(Rows)
def _conv(
    inputs: Rows,
    kernel,
    bias=None,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    fill="neighbor",
    rings=None,
    keep=None,
    precision=None,
) -> Rows:
    size = kernel.shape[0]
    window = Window(size, stride, padding, dilation)
    before = inputs.mask
    if fill == "neighbor":
        inputs = _fill_rings(inputs, dilation * (size - 1) if rings is None else rings)
    target = inputs.mask.outputs(before, window, keep)
    depthwise = groups > 1 and groups == kernel.shape[-1]
    target.layout.note_products(target, kernel.size, depthwise=depthwise)
    if window == POINT and target is inputs.mask:
        y = _product(inputs.x, kernel[0, 0], groups=groups, precision=precision)
    else:
        read = inputs.mask.read_by(target, window)
        y = _products(inputs.x, read, kernel, groups=groups, precision=precision)
        if fill == "partial" and size > 1:
            visible = (read < inputs.mask.capacity).sum(axis=0)
            y = _scale_up(y, visible[:, None], size)
    return Rows(y if bias is None else y + bias[None], target)


def _fill_rings(inputs: Rows, rings: int) -> Rows:
    """Adds rows for rings of neighbor padding; constants with respect to gradients."""
    for _ in range(rings):
        x, mask = inputs
        total, count = _read_sum(lax.stop_gradient(x), mask.read_by(mask.ring(), NEIGHBOURS))
        inputs = Rows(jnp.concatenate([x, total / count]), mask.with_ring())
    return inputs


def _read_sum(x: jax.Array, read: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums `[R, C]` of the rows that windows read, and how many these are `[R, 1]`, at least 1.

    As a sum of gathers: a reduction of one gather takes XLA on CPU several times as long.
    """
    count = (read < len(x)).sum(axis=0, dtype=jnp.int32)
    total = functools.reduce(jnp.add, [_take(x, rows) for rows in read])
    return total, jnp.maximum(count, 1)[:, None].astype(x.dtype)


def _products(x: jax.Array, read: jax.Array, kernel: jax.Array, *, groups: int, precision):
    """Sums over the steps of a window of gathered rows times their part of the kernel.

    In a loop: unrolled, it takes several times as long to compile and runs no faster. Channel by
    channel it is unrolled, since XLA makes one loop over rows of it.
    """
    kernel = kernel.reshape(-1, *kernel.shape[2:])
    multiply = functools.partial(_product, groups=groups, precision=precision)
    first = multiply(_take(x, read[0]), kernel[0])
    if len(read) == 1:
        return first
    if groups == kernel.shape[-1] and groups > 1:
        steps = range(1, len(read))
        return functools.reduce(
            lambda y, i: y + multiply(_take(x, read[i]), kernel[i]), steps, first
        )
    x = jnp.concatenate([x, jnp.zeros((1, *x.shape[1:]), x.dtype)])

    def step(i, y):
        return y + multiply(jnp.take(x, read[i], axis=0, mode="clip"), kernel[i])

    return lax.fori_loop(1, len(read), step, first)


def _product(x: jax.Array, kernel: jax.Array, *, groups: int, precision) -> jax.Array:
    """`[R, C]` by `[C / groups, C_out]`, group by group."""
    if groups == 1:
        return jnp.matmul(x, kernel, precision=precision)
    if groups == kernel.shape[1]:  # depthwise
        return x * kernel
    x = x.reshape(len(x), groups, -1)
    kernel = kernel.reshape(len(kernel), groups, -1)
    return jnp.einsum("rgi,igo->rgo", x, kernel, precision=precision).reshape(len(x), -1)


def _scale_up(y: jax.Array, visible: jax.Array, size: int) -> jax.Array:
    """Partial convolution: `y` times window size over how many positions in it are visible."""
    return y * (size * size / jnp.maximum(visible, 1)).astype(y.dtype)


@layers.pointwise.register(Rows)
def _pointwise(inputs: Rows, function) -> Rows:
    x, mask = inputs
    return Rows(function(jnp.where(mask.in_use()[:, None], x, jnp.ones((), x.dtype))), mask)


@layers.max_pool.register(Rows)
def _max_pool(
    inputs: Rows,
    *,
    window: int,
    stride: int,
    padding: int = 0,
    ceil_mode: bool = False,
    outside: float = -np.inf,
) -> Rows:
    """Takes maxima of rows of windows, then of columns: ties share gradients as in `layers`."""
    x, mask = inputs
    sliding = Window(window, stride, padding, ceil_mode=ceil_mode)
    target = mask.after(sliding)
    read = mask.read_by(target, sliding)
    largest = functools.partial(functools.reduce, jnp.maximum)
    columns = [read[i::window] for i in range(window)]
    y = largest([largest([_take(x, rows, -jnp.inf) for rows in column]) for column in columns])
    if outside > -np.inf:
        beyond = target.beyond(mask, sliding)
        y = jnp.where(beyond[:, None], jnp.maximum(y, outside), y)
    return Rows(layers.select(target.in_use(), y), target)


@layers.average_pool.register(Rows)
def _average_pool(inputs: Rows, *, window: int, stride: int, ceil_mode: bool = False) -> Rows:
    x, mask = inputs
    sliding = Window(window, stride, ceil_mode=ceil_mode)
    target = mask.after(sliding)
    total, count = _read_sum(x, mask.read_by(target, sliding))
    return Rows(total / count, target)


@layers.residual.register(Rows)
def _residual(branch: Rows, shortcut: Rows) -> Rows:
    mask = branch.mask.both(shortcut.mask)
    return Rows(_on(branch, mask) + _on(shortcut, mask), mask)


def _on(rows: Rows, mask: Positions) -> jax.Array:
    if rows.mask is mask:
        return rows.x
    return _take(rows.x, rows.mask.read_by(mask, POINT)[0])


@layers.concatenate.register(Rows)
def _concatenate(first: Rows, *others: Rows) -> Rows:
    branches = (first, *others)
    mask = functools.reduce(lambda one, other: one.both(other), (rows.mask for rows in branches))
    return Rows(jnp.concatenate([_on(rows, mask) for rows in branches], axis=-1), mask)


@layers.group_norm.register(Rows)
def _group_norm(inputs: Rows, groups: int, *, epsilon: float) -> Rows:
    x, mask = inputs
    mask.layout.mix()
    variants, number = mask.variants(), mask.layout.num_variants
    y = x.astype(jnp.float32).reshape(len(x), groups, -1)
    count = jnp.maximum(mask.sizes() * y.shape[-1], 1)

    def mean(values: jax.Array) -> jax.Array:
        total = _sum_of_variants(values.sum(axis=-1), variants, number)
        return _take(total / count[:, None], variants)[..., None]

    y = y - mean(y)
    y = y * lax.rsqrt(mean(y**2) + epsilon)
    return Rows(y.reshape(x.shape).astype(x.dtype), mask)


def _sum_of_variants(x: jax.Array, variants: jax.Array, number: int) -> jax.Array:
    """Sums `[N, ...]` of the rows of each variant."""
    return jax.ops.segment_sum(x, variants, number, indices_are_sorted=True)


@layers.scale_channels.register(Rows)
def _scale_channels(inputs: Rows, factors: jax.Array) -> Rows:
    x, mask = inputs
    return Rows(x * _take(factors.astype(x.dtype), mask.variants()), mask)


@layers.seam.register(Rows)
def _seam(inputs: Rows):
    return inputs.mask.layout.seam(inputs)


@layers.unmask.register(Rows)
def _unmask(inputs: Rows) -> Masked:
    x, mask = inputs
    return Masked(_take(x, mask.index()), None)


@layers.global_average_pool.register(Rows)
def _global_average_pool(inputs: Rows) -> jax.Array:
    x, mask = inputs
    mask.layout.mix()
    number = mask.layout.num_variants
    total = _sum_of_variants(x.astype(jnp.float32), mask.variants(), number)
    return total / jnp.maximum(mask.sizes(), 1)[:, None]


@layers.adaptive_average_pool.register(Rows)
def _adaptive_average_pool(inputs: Rows, size: int) -> jax.Array:
    x, mask = inputs
    full = Masked(_take(x, mask.index()), mask.mask())
    return layers.adaptive_average_pool(full, size)
