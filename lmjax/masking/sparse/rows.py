"""Masked layers on visible positions only: the cost follows what is visible.

The functions of `dense` on another kind of value. Rows of the visible positions of all variants of
a batch stand in one matrix: a 1x1 convolution is a matrix product, a k x k convolution k * k
gathers with their products, a ring of neighbor padding the mean of gathered neighbours. Hidden
positions have no row, so they cannot be read. The numbers are those of `dense`, to rounding.

Which positions have a row is found on the device, inside the compiled program. Only the *capacity*
of each set of positions is static: how many rows it has room for. A network makes its sets of
positions in one fixed order, so a run goes in two steps:

    ledger = Counting()                      # first: how many rows does each variant need?
    network(Pixels(images, masks, ledger))   # under jit, all but the counts is dead code
    ledger.counts                            # of each set, [N]

    network(Pixels(images, masks, Capacities(sizes)))  # then, with room for all of them

Rows without a capacity are lost, silently: whoever packs variants into a batch sees to it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.masking.neighbor_padding import neighbor_padding

_NOWHERE = np.int32(2**31 - 1)  # the row of a position that has none
# A window of pixels gathered and multiplied takes so many times as long as one in a convolution
# (7x7 of 3 channels, on CPU).
GATHERING_WINDOWS = 5


class Window(NamedTuple):
    """A sliding window, as in torch; `padding` is the number of zero rows on each side."""

    size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    ceil_mode: bool = False

    def pads(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """As `layers.window_pads`."""
        return layers.window_pads(
            shape, window=self.size, ceil_mode=self.ceil_mode, **_keywords(self)
        )


_NEIGHBOURS = Window(3, padding=1)


class Counting:
    """Gives every set of positions room for one row, and notes how many each variant needs.

    Attributes:
      counts: for each set of positions, `[N]` int.
      full: for each set, how many rows a wholly visible variant has.
      noted: (seams passed, set, multiplications for a row of it), of each convolution.
      sets_at_seam: how many sets there were at each seam that was passed.
      mixed: whether positions have been mixed over whole images (squeeze-and-excitation). Behind
        that there are no more seams: rows differ in all variants, and sharing ends.
    """

    def __init__(self):
        self.mixed = False
        self.counts: list[jax.Array] = []
        self.full: list[int] = []
        self.noted: list[tuple[int, int, int]] = []
        self.sets_at_seam: list[int] = []

    @property
    def seams(self) -> int:
        """How many seams have been passed."""
        return len(self.sets_at_seam)

    def open(self, needed: jax.Array) -> tuple[int, int]:
        """Number and capacity of a set with `needed` `[N, H, W]` bool rows."""
        self.counts.append(needed.sum(axis=(1, 2), dtype=jnp.int32))
        self.full.append(needed.shape[1] * needed.shape[2])
        return len(self.counts) - 1, 1

    def note_products(self, number: int, per_row: int) -> None:
        """A convolution will multiply so many numbers for each row of a set."""
        self.noted.append((self.seams, number, per_row))

    def first(self, mask: jax.Array, touched: jax.Array, reach: "Window") -> "Positions":
        """Positions `touched` by the first convolution; its outputs depend on `reach` of `mask`."""
        return Positions.of(touched, self)

    def seam(self, rows: "Rows"):
        """What goes on behind a seam of the network (`layers.seam`)."""
        self.sets_at_seam.append(len(self.counts))
        return rows

    def mix(self) -> None:
        """Positions of whole images are mixed now."""
        self.mixed = True

    def products(self) -> np.ndarray:
        """`[seams + 1, P]`: multiplications for a row of each set, between any two seams."""
        products = np.zeros((self.seams + 1, len(self.counts)))
        for seam, number, per_row in self.noted:
            products[seam, number] += per_row
        return products


class Capacities(Counting):
    """Gives sets of positions room for the given numbers of rows, in the order they are made."""

    def __init__(self, sizes: tuple[int, ...]):
        super().__init__()
        self._sets = enumerate(sizes)

    def open(self, needed: jax.Array) -> tuple[int, int]:
        return next(self._sets)


class Positions:
    """Which positions of the variants have rows, and where.

    What follows from it (its rings, where windows on it touch, which rows a window reads) is made
    once and kept, so that all blocks of a stage share it.

    Attributes:
      mask: `[N, H, W]` bool.
      index: `[N, H, W]` int, the row of each position, or `_NOWHERE`.
      flat: `[R]` int, the position of each row, counted through `[N, H, W]`; N * H * W and above
        for rows that are not in use.
      ledger: `Counting` or `Capacities`.
      number: which of the ledger's sets these are.
    """

    def __init__(self, mask, index, flat, ledger, number):
        self.mask, self.index, self.flat = mask, index, flat
        self.ledger, self.number = ledger, number
        self._made = {}

    @classmethod
    def of(cls, mask: jax.Array, ledger) -> "Positions":
        """The visible positions of `mask` `[N, H, W]`, row by row."""
        number, capacity = ledger.open(mask)
        visible = mask.reshape(-1)
        index = jnp.where(visible, jnp.cumsum(visible, dtype=jnp.int32) - 1, _NOWHERE)
        flat = jnp.full(capacity, mask.size, jnp.int32)
        flat = flat.at[index].set(jnp.arange(mask.size, dtype=jnp.int32), mode="drop")
        return cls(mask, index.reshape(mask.shape), flat, ledger, number)

    def _once(self, key, make):
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def variants(self) -> jax.Array:
        """`[R]` int: which variant each row belongs to; N and above for rows not in use."""
        return self.flat // (self.mask.shape[1] * self.mask.shape[2])

    def in_use(self) -> jax.Array:
        """`[R]` bool: which rows stand for a position."""
        return self.flat < self.mask.size

    def after(self, window: Window) -> "Positions":
        """Where a window touches these positions."""
        if window == Window(1):
            return self
        key = ("after", window)
        return self._once(key, lambda: Positions.of(_touched(self.mask, window), self.ledger))

    def outputs(self, before: "Positions", window: Window, keep: "Positions | None") -> "Positions":
        """Of a convolution that reads these: `before`, and rings. `keep` as in `layers.conv`."""
        return before.after(window) if keep is None else keep

    def ring(self) -> "Positions":
        """The positions beside these."""
        return self._once("ring", self._ring)

    def _ring(self):
        return Positions.of(_touched(self.mask, _NEIGHBOURS) & ~self.mask, self.ledger)

    def with_ring(self) -> "Positions":
        """These positions and, in rows behind theirs, the ring."""
        return self._once("with ring", self._with_ring)

    def _with_ring(self):
        ring = self.ring()
        index = jnp.where(ring.mask, ring.index + len(self.flat), self.index)
        flat = jnp.concatenate([self.flat, ring.flat])
        return Positions(self.mask | ring.mask, index, flat, self.ledger, self.number)

    def both(self, other: "Positions") -> "Positions":
        """The intersection."""
        if other is self:
            return self
        return self._once(
            ("both", other), lambda: Positions.of(self.mask & other.mask, self.ledger)
        )

    def read_by(self, target: "Positions", window: Window) -> jax.Array:
        """`[k * k, R]`: the rows that the windows of the target's rows read, or `_NOWHERE`."""
        key = ("read", target, window)
        return self._once(key, lambda: _rows_read(self.index, target, window))


def _rows_read(index: jax.Array, target: Positions, window: Window) -> jax.Array:
    """`[k * k, R]`: entries of `index` `[N, H, W]` that the windows of the target's rows read."""
    pad = ((0, 0), *window.pads(index.shape[1:]))
    index = jnp.pad(index, pad, constant_values=_NOWHERE)
    steps = np.arange(window.size, dtype=np.int32) * window.dilation
    offsets = (steps[:, None] * index.shape[2] + steps[None]).reshape(-1, 1)
    corner = _corners(target, index.shape[1:], window.stride)
    return _take(index.reshape(-1), corner[None] + offsets, _NOWHERE)


def _corners(target: Positions, padded: tuple[int, int], stride: int) -> jax.Array:
    """`[R]`: where each row's window starts, counted through padded images `[N, H, W]`."""
    height, width = target.mask.shape[1:]
    variant, rest = target.flat // (height * width), target.flat % (height * width)
    row, column = rest // width * stride, rest % width * stride
    return (variant * padded[0] + row) * padded[1] + column


def _touched(mask: jax.Array, window: Window) -> jax.Array:
    return layers.pool_mask(
        mask, window=window.size, ceil_mode=window.ceil_mode, **_keywords(window)
    )


def _take(x: jax.Array, rows: jax.Array, missing=0) -> jax.Array:
    """Rows of `x`, none of them negative; `missing` for those behind its end.

    XLA clips to the last row at no cost, so one more row holds what is missing. To compare and
    choose at every gather instead makes programs twice as long, and slower to compile.
    """
    last = jnp.full((1, *x.shape[1:]), missing, x.dtype)
    return jnp.take(jnp.concatenate([x, last]), rows, axis=0, mode="clip")


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
      ledger: `Counting` or `Capacities`.
    """

    x: jax.Array
    mask: jax.Array
    ledger: Counting | Capacities


@layers.mask_input.register
def _mask_input(inputs: Pixels) -> Pixels:
    return inputs._replace(x=layers.select(inputs.mask, inputs.x))


@layers.conv.register
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
    """Images are filled in place; then whole windows are gathered, or outputs where those are many.

    The choice follows the capacity, which is static.
    """
    x, mask, ledger = inputs
    size = kernel.shape[0]
    window = Window(size, stride, padding, dilation)
    rings = (dilation * (size - 1) if rings is None else rings) if fill == "neighbor" else 0
    if keep is None:
        keep = ledger.first(mask, _touched(mask, window), _widened(window, rings))
    target = keep
    target.ledger.note_products(target.number, kernel.size)
    x = neighbor_padding(x, mask, rings)
    if groups > 1 or len(target.flat) * GATHERING_WINDOWS > target.mask.size:
        options = {"groups": groups, "precision": precision, **_keywords(window)}
        y = _on_rows(layers._plain_conv(x, kernel, **options), target)
    else:
        y = jnp.matmul(
            _windows(x, target, window), kernel.reshape(-1, kernel.shape[-1]), precision=precision
        )
    if fill == "partial" and size > 1:
        visible = layers._window_sum(
            mask[..., None].astype(y.dtype), window=size, **_keywords(window)
        )
        y = _scale_up(y, _on_rows(visible, target), size)
    return Rows(y if bias is None else y + bias[None], target)


def _widened(window: Window, rings: int) -> Window:
    """The window of all that an output depends on, where rings are filled first."""
    size = (window.size - 1) * window.dilation + 1 + 2 * rings
    return Window(size, window.stride, window.padding + rings)


def _keywords(window: Window) -> dict[str, int]:
    return {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}


def _on_rows(x: jax.Array, target: Positions) -> jax.Array:
    """Full-size `[N, H, W, C]` on the target's rows."""
    return _take(x.reshape(-1, x.shape[-1]), target.flat)


def _windows(x: jax.Array, target: Positions, window: Window) -> jax.Array:
    """Windows of images `[N, H, W, C]` on the target's rows, `[R, k * k * C]`.

    As slices, one for each row of a window.
    """
    size, stride, padding, dilation, _ = window
    pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x, channels = jnp.pad(x, pad), x.shape[-1]
    corner = _corners(target, x.shape[1:3], stride)
    starts = corner[:, None] + (np.arange(size, dtype=np.int32) * dilation * x.shape[2])[None]
    width = ((size - 1) * dilation + 1) * channels
    pixels = x.reshape(-1)

    def window_row(start):
        return lax.dynamic_slice(pixels, (start * channels,), (width,))

    rows = jax.vmap(jax.vmap(window_row))(starts)
    rows = rows.reshape(*starts.shape, -1, channels)[:, :, ::dilation]
    return rows.reshape(len(starts), -1)


@layers.conv.register
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
    target.ledger.note_products(target.number, kernel.size)
    y = _products(inputs, target, kernel, window, groups, precision)
    if fill == "partial" and size > 1:
        visible = (inputs.mask.read_by(target, window) != _NOWHERE).sum(axis=0)
        y = _scale_up(y, visible[:, None], size)
    return Rows(y if bias is None else y + bias[None], target)


def _fill_rings(inputs: Rows, rings: int) -> Rows:
    """Adds rows for rings of neighbor padding; constants with respect to gradients."""
    for _ in range(rings):
        x, mask = inputs
        total, count = _read_sum(lax.stop_gradient(x), mask.read_by(mask.ring(), _NEIGHBOURS))
        inputs = Rows(jnp.concatenate([x, total / count]), mask.with_ring())
    return inputs


def _read_sum(x: jax.Array, read: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums `[R, C]` of the rows that windows read, and how many these are `[R, 1]`, at least 1."""
    count = jnp.maximum((read != _NOWHERE).sum(axis=0), 1).astype(x.dtype)
    return sum(_take(x, rows) for rows in read), count[:, None]


def _products(inputs: Rows, target, kernel, window, groups, precision) -> jax.Array:
    """The convolution's sums, `[R, C_out]`.

    A gather and a product for each position of the window: a single gather of `[R, k * k * C]` is
    faster alone, but takes twice as long inside the loop of a run (resnet50, 2 CPU cores).
    """
    x, mask = inputs
    product = functools.partial(_product, groups=groups, precision=precision)
    if target is mask and window == Window(1):
        return product(x, kernel[0, 0])
    kernels = kernel.reshape(-1, *kernel.shape[2:])
    read = mask.read_by(target, window)
    return sum(product(_take(x, rows), kernels[i]) for i, rows in enumerate(read))


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


@layers.pointwise.register
def _pointwise(inputs: Rows, function) -> Rows:
    x, mask = inputs
    return Rows(function(jnp.where(mask.in_use()[:, None], x, jnp.ones((), x.dtype))), mask)


@layers.max_pool.register
def _max_pool(
    inputs: Rows,
    *,
    window: int,
    stride: int,
    padding: int = 0,
    ceil_mode: bool = False,
    outside: float = -np.inf,
) -> Rows:
    """Rows of windows, then columns, as in `dense`: so ties share the gradient in the same way."""
    x, mask = inputs
    sliding = Window(window, stride, padding, ceil_mode=ceil_mode)
    target = mask.after(sliding)
    read = mask.read_by(target, sliding)
    largest = functools.partial(functools.reduce, jnp.maximum)
    columns = [read[i::window] for i in range(window)]
    y = largest([largest([_take(x, rows, -jnp.inf) for rows in column]) for column in columns])
    if outside > -np.inf:
        y = jnp.where(_on_border(target, mask, sliding)[:, None], jnp.maximum(y, outside), y)
    return Rows(layers.select(target.in_use(), y), target)


def _on_border(target: Positions, read: Positions, window: Window) -> jax.Array:
    """`[R]` bool: whether the window of each of the target's rows reaches beyond the image."""
    shape = read.mask.shape[1:]
    around = jnp.pad(jnp.zeros(shape, bool), window.pads(shape), constant_values=True)
    beyond = _touched(around[None], window._replace(padding=0, ceil_mode=False))
    return _take(beyond.reshape(-1), target.flat % beyond.size)


@layers.average_pool.register
def _average_pool(inputs: Rows, *, window: int, stride: int, ceil_mode: bool = False) -> Rows:
    x, mask = inputs
    sliding = Window(window, stride, ceil_mode=ceil_mode)
    target = mask.after(sliding)
    total, count = _read_sum(x, mask.read_by(target, sliding))
    return Rows(total / count, target)


@layers.residual.register
def _residual(branch: Rows, shortcut: Rows) -> Rows:
    mask = branch.mask.both(shortcut.mask)
    return Rows(_on(branch, mask) + _on(shortcut, mask), mask)


def _on(rows: Rows, mask: Positions) -> jax.Array:
    if rows.mask is mask:
        return rows.x
    return _take(rows.x, rows.mask.read_by(mask, Window(1))[0])


@layers.concatenate.register
def _concatenate(first: Rows, *others: Rows) -> Rows:
    branches = (first, *others)
    mask = functools.reduce(lambda one, other: one.both(other), (rows.mask for rows in branches))
    return Rows(jnp.concatenate([_on(rows, mask) for rows in branches], axis=-1), mask)


@layers.group_norm.register
def _group_norm(inputs: Rows, groups: int, *, epsilon: float) -> Rows:
    x, mask = inputs
    mask.ledger.mix()
    variants = mask.variants()
    y = x.astype(jnp.float32).reshape(len(x), groups, -1)
    count = jnp.maximum(mask.mask.sum(axis=(1, 2), dtype=jnp.float32) * y.shape[-1], 1)

    def mean(values: jax.Array) -> jax.Array:
        total = _sum_of_variants(values.sum(axis=-1), mask)
        return _take(total / count[:, None], variants)[..., None]

    y = y - mean(y)
    y = y * lax.rsqrt(mean(y**2) + epsilon)
    return Rows(y.reshape(x.shape).astype(x.dtype), mask)


def _sum_of_variants(x: jax.Array, mask: Positions) -> jax.Array:
    """Sums `[N, ...]` of the rows of each variant."""
    return jax.ops.segment_sum(x, mask.variants(), len(mask.mask), indices_are_sorted=True)


@layers.scale_channels.register
def _scale_channels(inputs: Rows, factors: jax.Array) -> Rows:
    x, mask = inputs
    return Rows(x * _take(factors.astype(x.dtype), mask.variants()), mask)


@layers.seam.register
def _seam(inputs: Rows):
    ledger = inputs.mask.ledger
    return inputs if ledger.mixed else ledger.seam(inputs)


@layers.unmask.register
def _unmask(inputs: Rows) -> Masked:
    return Masked(_take(inputs.x, inputs.mask.index), None)


@layers.global_average_pool.register
def _global_average_pool(inputs: Rows) -> jax.Array:
    x, mask = inputs
    mask.ledger.mix()
    total = _sum_of_variants(x.astype(jnp.float32), mask)
    visible = mask.mask.sum(axis=(1, 2), dtype=jnp.float32)[:, None]
    return total / jnp.maximum(visible, 1)


@layers.adaptive_average_pool.register
def _adaptive_average_pool(inputs: Rows, size: int) -> jax.Array:
    x, mask = inputs
    return layers.adaptive_average_pool(Masked(_take(x, mask.index), mask.mask), size)
