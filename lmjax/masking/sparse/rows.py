"""Masked layers on rows of visible positions: the cost follows what is visible.

The functions of `lmjax.masking.layers` on another type of value. Rows of the visible positions of
all variants of a batch stand in one matrix: a 1x1 convolution is a matrix product, a k x k
convolution k * k gathers with their products, a ring of neighbor padding the mean of gathered
neighbours. Hidden positions have no row, so they cannot be read. The numbers are those of the
full-size layers, to rounding.

Which row a layer reads is decided outside (`lmjax.masking.sparse.positions`).
"""

# singledispatch knows one type of result; here values of another type come in and go out.
# pyright: reportArgumentType=false, reportReturnType=false

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.masking.neighbor_padding import neighbor_padding
from lmjax.masking.sparse.positions import Layout, Positions
from lmjax.masking.windows import NEIGHBOURS, POINT, Window

# A window of pixels that is gathered and multiplied takes about 5 times as long as one in a
# convolution (7 x 7 of 3 channels, on CPU).
_GATHERING_WINDOWS = 5
# Images that neighbor padding takes together.
_PADDED_TOGETHER = 4
# Rows of a window that are gathered together: those of a ring. From 16 on, working memory grows by
# all that is gathered.
_GATHERED_TOGETHER = 9


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


def at_full_size(rows: Rows) -> jax.Array:
    """Returns activations `[N, H, W, C]` to look at; networks go on from `layers.full_size`."""
    return _take(rows.x, rows.mask.index())


def _take(x: jax.Array, rows: jax.Array, missing: float = 0) -> jax.Array:
    """Rows of `x`; `missing` for the one behind its end."""
    return _rows_of(_and_missing(x, missing), rows)


def _and_missing(x: jax.Array, missing: float = 0) -> jax.Array:
    """`x` with one more row, for those that are read behind its end."""
    return jnp.concatenate([x, lax.full((1, *x.shape[1:]), missing, x.dtype)])


def _rows_of(x: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.take(x, rows, axis=0, mode="clip")


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
    window = Window.of(kernel.shape[:2], stride, padding, dilation)
    pixels = _pixels(inputs)
    rings = (window.rings if rings is None else rings) if fill == "neighbor" else 0
    target = pixels.first(window, window.widened(rings)) if keep is None else keep
    layout.note_convolution(target, kernel.shape, channels=x.shape[-1])
    flat, corners = target.flat(), target.corners(pixels, window)  # both: what is read is static
    x = _padded(x, mask, rings)
    outputs = len(mask) * target.shape[0] * target.shape[1]
    if groups > 1 or target.capacity * _GATHERING_WINDOWS > outputs:
        full = layers._plain_conv(x, kernel, window, groups=groups, precision=precision)
        y = _on_rows(full, flat)
    else:
        y = jnp.matmul(
            _windows(x, corners, window),
            kernel.reshape(-1, kernel.shape[-1]),
            precision=precision,
        )
    if fill == "partial" and window.size > 1:
        visible = layers._window_sum(mask[..., None].astype(y.dtype), window)
        y = _scale_up(y, _on_rows(visible, flat), window.size)
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


def _pixels(inputs: Pixels) -> Positions:
    height, width = inputs.mask.shape[1:]
    return inputs.layout.pixels((height, width))


def _on_rows(x: jax.Array, flat: jax.Array) -> jax.Array:
    """Full-size `[N, H, W, C]` on rows, by their positions."""
    return _take(x.reshape(-1, x.shape[-1]), flat)


def _as_rows(inputs: Pixels | Rows) -> Rows:
    """Rows of the visible pixels, for layers that do not work on images."""
    if isinstance(inputs, Rows):
        return inputs
    positions = _pixels(inputs).first(POINT, POINT)
    return Rows(_on_rows(inputs.x, positions.flat()), positions)


def _windows(x: jax.Array, corners: jax.Array, window: Window) -> jax.Array:
    """Windows of images `[N, H, W, C]` by their corners, `[R, kh * kw * C]`.

    As slices, one for each row of a window.
    """
    x, channels = jnp.pad(x, ((0, 0), *window.pads, (0, 0))), x.shape[-1]
    lines = np.arange(0, window.rows.reach, window.rows.dilation, dtype=np.int32) * x.shape[2]
    starts = corners[:, None] + lines[None]
    width = window.columns.reach * channels
    flat = x.reshape(-1)

    def window_row(start):
        return lax.dynamic_slice(flat, (start * channels,), (width,))

    rows = jax.vmap(jax.vmap(window_row))(starts)
    rows = rows.reshape(*starts.shape, -1, channels)[:, :, :: window.columns.dilation]
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
    window = Window.of(kernel.shape[:2], stride, padding, dilation)
    before = inputs.mask
    if fill == "neighbor":
        inputs = _fill_rings(inputs, window.rings if rings is None else rings)
    target = inputs.mask.outputs(before, window, keep)
    in_place = window == POINT and target is inputs.mask
    target.layout.note_convolution(
        target,
        kernel.shape,
        channels=inputs.x.shape[-1],
        gathered=0 if in_place else window.size,
    )
    if in_place:
        y = _product(inputs.x, kernel[0, 0], groups=groups, precision=precision)
    else:
        read = inputs.mask.read_by(target, window)
        y = _products(inputs.x, read, kernel, groups=groups, precision=precision)
        if fill == "partial" and window.size > 1:
            visible = (read < inputs.mask.capacity).sum(axis=0)
            y = _scale_up(y, visible[:, None], window.size)
    return Rows(y if bias is None else y + bias[None], target)


def _fill_rings(inputs: Rows, rings: int) -> Rows:
    """Adds rows for rings of neighbor padding; constants with respect to gradients."""
    for _ in range(rings):
        x, mask = inputs
        mask.layout.note_ring(mask.ring(), NEIGHBOURS.size)
        total, count = _read_sum(lax.stop_gradient(x), mask.read_by(mask.ring(), NEIGHBOURS))
        inputs = Rows(jnp.concatenate([x, total / count]), mask.with_ring())
    return inputs


def _read_sum(x: jax.Array, read: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums `[R, C]` of the rows that windows read, and how many these are `[R, 1]`, at least 1.

    A few rows are gathered at once and their parts added: a gather for each row of a window takes
    up to two thirds longer to compile, a reduction takes XLA on CPU several times as long to run,
    and so does a gather of whole large windows. Without the barrier XLA makes a gather of each
    part.
    """
    count = (read < len(x)).sum(axis=0, dtype=jnp.int32)
    known, parts = _and_missing(x), []
    for start in range(0, len(read), _GATHERED_TOGETHER):
        some = read[start : start + _GATHERED_TOGETHER]
        gathered = lax.optimization_barrier(_rows_of(known, some))
        parts += [lax.index_in_dim(gathered, i, keepdims=False) for i in range(len(some))]
    total = functools.reduce(lax.add, parts)
    return total, jnp.maximum(count, 1)[:, None].astype(x.dtype)


def _products(x: jax.Array, read: jax.Array, kernel: jax.Array, *, groups: int, precision):
    """Sums over the steps of a window of gathered rows times their part of the kernel.

    In a loop: unrolled, it takes several times as long to compile and runs no faster. Channel by
    channel it is unrolled, since XLA makes one loop over rows of it.
    """
    kernel = kernel.reshape(-1, *kernel.shape[2:])
    multiply = functools.partial(_product, groups=groups, precision=precision)
    known = _and_missing(x)

    def step(i, y):
        return y + multiply(_rows_of(known, read[i]), kernel[i])

    first = multiply(_rows_of(known, read[0]), kernel[0])
    if len(read) == 1:
        return first
    if groups == kernel.shape[-1] and kernel.shape[1] == 1 and groups > 1:
        return functools.reduce(lambda y, i: step(i, y), range(1, len(read)), first)
    return lax.fori_loop(1, len(read), step, first)


def _product(x: jax.Array, kernel: jax.Array, *, groups: int, precision) -> jax.Array:
    """`[R, C]` by `[C / groups, C_out]`, group by group."""
    if groups == 1:
        return jnp.matmul(x, kernel, precision=precision)
    if groups == kernel.shape[1] and len(kernel) == 1:  # depthwise
        return x * kernel
    x = x.reshape(len(x), groups, -1)
    kernel = kernel.reshape(len(kernel), groups, -1)
    return jnp.einsum("rgi,igo->rgo", x, kernel, precision=precision).reshape(len(x), -1)


def _scale_up(y: jax.Array, visible: jax.Array, size: int) -> jax.Array:
    """Partial convolution: `y` times window size over how many positions in it are visible."""
    return y * (size / jnp.maximum(visible, 1)).astype(y.dtype)


@layers.pointwise.register(Rows)
def _pointwise(inputs: Rows, function, *others) -> Rows:
    if others:
        return _pointwise_of_several(function, inputs, *others)
    x, mask = inputs
    return Rows(function(_ones_behind(x, mask)), mask)


def _pointwise_of_several(function, *operands) -> Rows:
    operands = [_as_rows(each) if isinstance(each, Pixels) else each for each in operands]
    mask = _known_to_all([each for each in operands if isinstance(each, Rows)])
    shown = [
        _ones_behind(_on(each, mask), mask) if isinstance(each, Rows) else _at_rows(each, mask)
        for each in operands
    ]
    return Rows(layers.select(mask.in_use(), function(*shown)), mask)


def _ones_behind(x: jax.Array, mask: Positions) -> jax.Array:
    """Rows with 1 in those that are not in use; see `layers.pointwise`."""
    return jnp.where(mask.in_use()[:, None], x, jnp.ones((), x.dtype))


def _known_to_all(rows: Sequence[Rows]) -> Positions:
    return functools.reduce(lambda one, other: one.both(other), (each.mask for each in rows))


def _at_rows(operand: Masked | jax.Array, mask: Positions) -> jax.Array:
    """What a plain array `[N|1, H|1, W|1, C]` has at some positions, `[R, C]` or `[1, C]`."""
    x = _plain(operand, mask.layout)
    if x.shape[:3] == (1, 1, 1):
        return x[0, 0]
    # Rows that are not in use read any position: zeros might be divided by.
    take = functools.partial(jnp.take, axis=0, mode="clip")
    if x.shape[1:3] == (1, 1):
        return take(x[:, 0, 0], mask.variants())
    size = mask.shape[0] * mask.shape[1]
    flat = jnp.broadcast_to(x, (len(x), *mask.shape, x.shape[-1])).reshape(-1, x.shape[-1])
    if len(x) == 1:
        return take(flat, mask.flat() % size)
    mask.check_images_apart()
    return take(flat, mask.flat())


def _plain(operand: Masked | jax.Array, layout: Layout) -> jax.Array:
    """An operand that nothing hides, with four dimensions."""
    if isinstance(operand, Masked):
        if operand.mask is not None:
            raise TypeError(
                "pointwise got full-size activations with a mask beside rows of visible positions; "
                "give all of them at full size, by layers.full_size"
            )
        operand = operand.x
    x = jnp.asarray(operand)
    x = x.reshape((1,) * (4 - x.ndim) + x.shape)
    if x.ndim != 4 or len(x) not in (1, layout.num_variants):
        raise ValueError(
            f"an array beside rows must broadcast to [{layout.num_variants}, H, W, C], got shape "
            f"{x.shape}"
        )
    return x


@layers.pointwise.register(Pixels)
def _pointwise_of_pixels(inputs: Pixels, function, *others) -> Pixels | Rows:
    """Maps whole images, which stay pixels, unless others are rows."""
    if any(isinstance(each, Rows) for each in others):
        return _pointwise_of_several(function, inputs, *others)
    x, mask, layout = inputs
    operands = [
        Masked(each.x, mask) if isinstance(each, Pixels) else _plain(each, layout)
        for each in others
    ]
    if any(not isinstance(each, Masked) and len(each) > 1 for each in operands):
        _pixels(inputs).check_images_apart()
    return Pixels(layers.pointwise(Masked(x, mask), function, *operands).x, mask, layout)


@layers.full_size.register(Rows)
def _full_size(inputs: Rows) -> Masked:
    inputs.mask.layout.mix()
    return Masked(at_full_size(inputs), inputs.mask.mask())


@layers.full_size.register(Pixels)
def _full_size_of_pixels(inputs: Pixels) -> Masked:
    return Masked(layers.select(inputs.mask, inputs.x), inputs.mask)


@layers.max_pool.register(Rows)
def _max_pool(
    inputs: Rows,
    *,
    window,
    stride,
    padding=0,
    dilation=1,
    ceil_mode: bool = False,
    outside: float = -np.inf,
) -> Rows:
    """Takes maxima of rows of windows, then of columns: ties share gradients as in `layers`."""
    x, mask = inputs
    sliding = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    made = Window.over(mask.shape, window=window, **sliding)
    target = mask.after(made)
    read = mask.read_by(target, made)
    largest = functools.partial(functools.reduce, jnp.maximum)
    width = made.columns.size
    columns = [read[i::width] for i in range(width)]
    y = largest([largest([_take(x, rows, -jnp.inf) for rows in column]) for column in columns])
    if outside > -np.inf:
        beyond = target.beyond(mask, made)
        y = jnp.where(beyond[:, None], jnp.maximum(y, outside), y)
    return Rows(layers.select(target.in_use(), y), target)


@layers.average_pool.register(Rows)
def _average_pool(inputs: Rows, *, window, stride, padding=0, ceil_mode: bool = False) -> Rows:
    x, mask = inputs
    sliding = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    made = Window.over(mask.shape, window=window, **sliding)
    target = mask.after(made)
    total, count = _read_sum(x, mask.read_by(target, made))
    return Rows(total / count, target)


@layers.window_sum.register(Rows)
def _window_sum(
    inputs: Rows, *, window, stride=1, padding=0, dilation=1, ceil_mode: bool = False
) -> Rows:
    x, mask = inputs
    sliding = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    made = Window.over(mask.shape, window=window, **sliding)
    target = mask.after(made)
    total, count = _read_sum(x, mask.read_by(target, made))
    inside = jnp.asarray(made.inside(mask.shape), layers.wide_type(x))[None, ..., None]
    scale = _at_rows(inside, target) / count.astype(inside.dtype)
    return Rows(total * scale.astype(x.dtype), target)


@layers.residual.register(Rows)
def _residual(branch: Rows, shortcut: Rows | Pixels) -> Rows:
    shortcut = _as_rows(shortcut)
    mask = branch.mask.both(shortcut.mask)
    return Rows(_on(branch, mask) + _on(shortcut, mask), mask)


def _on(rows: Rows, mask: Positions) -> jax.Array:
    if rows.mask is mask:
        return rows.x
    return _take(rows.x, rows.mask.read_by(mask, POINT)[0])


@layers.concatenate.register(Rows)
def _concatenate(*branches: Rows | Pixels) -> Rows:
    known = [_as_rows(each) for each in branches]
    mask = _known_to_all(known)
    return Rows(jnp.concatenate([_on(rows, mask) for rows in known], axis=-1), mask)


@layers.concatenate.register(Pixels)
def _concatenate_pixels(first: Pixels, *others: Pixels | Rows) -> Pixels | Rows:
    """Joins the channels of images, which stay pixels, unless others are rows."""
    if not all(isinstance(each, Pixels) for each in others):
        return _concatenate(first, *others)
    x = jnp.concatenate([first.x, *(each.x for each in others)], axis=-1)
    return first._replace(x=layers.select(first.mask, x))


@layers.group_norm.register(Rows)
def _group_norm(inputs: Rows, groups: int, *, epsilon: float) -> Rows:
    x, mask = inputs
    mask.layout.mix()
    variants, number = mask.variants(), mask.layout.num_variants
    y = x.astype(layers.wide_type(x)).reshape(len(x), groups, -1)
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
    inputs.mask.layout.mix()
    return Masked(at_full_size(inputs), None)


@layers.global_average_pool.register(Rows)
def _global_average_pool(inputs: Rows) -> jax.Array:
    x, mask = inputs
    mask.layout.mix()
    number = mask.layout.num_variants
    total = _sum_of_variants(x.astype(layers.wide_type(x)), mask.variants(), number)
    return total / jnp.maximum(mask.sizes(), 1)[:, None]


@layers.global_max_pool.register(Rows)
def _global_max_pool(inputs: Rows) -> jax.Array:
    x, mask = inputs
    mask.layout.mix()
    number = mask.layout.num_variants
    largest = jax.ops.segment_max(
        x.astype(layers.wide_type(x)), mask.variants(), number, indices_are_sorted=True
    )
    return layers.select(mask.sizes() > 0, largest)


@layers.adaptive_average_pool.register(Rows)
def _adaptive_average_pool(inputs: Rows, size: int) -> jax.Array:
    return layers.adaptive_average_pool(_full_size(inputs), size)


@layers.unmask.register(Pixels)
def _unmask_pixels(inputs: Pixels) -> Masked:
    return Masked(layers.select(inputs.mask, inputs.x), None)


def _on_rows_first(function: Callable) -> Callable:
    """A layer of pixels as one of their rows."""

    def run(inputs: Pixels, *arguments, **options):
        return function(_as_rows(inputs), *arguments, **options)

    return run


for _function in (
    layers.max_pool,
    layers.average_pool,
    layers.window_sum,
    layers.residual,
    layers.group_norm,
    layers.scale_channels,
    layers.global_average_pool,
    layers.global_max_pool,
    layers.adaptive_average_pool,
):
    _function.register(Pixels)(_on_rows_first(_function))
