"""Families of masks: compact descriptions, from which the device makes masks a batch at a time.

The `N x H x W` masks of a long run would fill the memory, so `lmjax.evaluate` takes a family
instead: `rows` describe each variant, `shared` what all variants have in common, and `make` is a
pure function from both to masks. `Coalitions` is one; a new family defines the same names.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.checks import check_number, check_numbers, check_pair, check_whole
from lmjax._utils.sizes import power_of_two
from lmjax.masking.checks import check_mask
from lmjax.masking.patches import whole_patches
from lmjax.masks.keys import draw_rows, threefry
from lmjax.masks.segments import check_segments

# Pixels of the masks that exist at once in sums over a family.
_PIXELS = 2**24


class MaskFamily:
    """Base class of families; subclasses are frozen dataclasses that are compared by identity.

    Attributes:
      spatial_shape: (H, W).
      rows: arrays with leading axis N, one row for each variant.
      shared: arrays that all variants share; None where there are none.
      make: pure, hashable function (shared, rows with leading axis n) -> masks `[n, H, W]`.
      soft: whether values between 0 and 1 occur. Only removals that can blend take such masks.
    """

    spatial_shape: tuple[int, int]
    rows: Any
    shared: Any = None
    make: Callable
    soft: bool = False

    def shown(self) -> np.ndarray:
        """Returns which pixels any variant may show, bool `[H, W]`; False only where none does."""
        return np.ones(self.spatial_shape, bool)

    def __len__(self) -> int:
        """Returns N, the number of variants."""
        return len(jax.tree.leaves(self.rows)[0])

    def masks(self, rows: slice = slice(None)) -> jax.Array:
        """Makes the masks `[n, H, W]` of some variants, on the device."""
        chosen = jax.tree.map(lambda x: jnp.asarray(x[rows]), self.rows)
        return _make(jax.tree.map(jnp.asarray, self.shared), chosen, make=self.make)


def _identity(shared: None, rows: jax.Array) -> jax.Array:
    """Returns masks that are their own rows."""
    return rows


def _within(ranks: jax.Array, ranges: jax.Array) -> jax.Array:
    """Returns which pixels have a rank within each range, bool `[n, H, W]`."""
    low, high = ranges.T[:, :, None, None]
    return (ranks[None] >= low) & (ranks[None] < high)


def _paint(segments: jax.Array, values: jax.Array) -> jax.Array:
    """Gives the pixels `[n, H, W]` the values `[n, S]` of their segments."""
    return values[:, segments]


@dataclasses.dataclass(frozen=True, eq=False)
class Masks(MaskFamily):
    """Masks given as one array.

    Attributes:
      array: `[N, H, W]`, 1 = visible, 0 = hidden.

    Raises:
      ValueError: another number of axes, or values other than 0 and 1.
    """

    array: np.ndarray
    make = staticmethod(_identity)

    def __post_init__(self):
        checked = check_mask(self.array, np.shape(self.array)[1:], soft=self.soft)
        object.__setattr__(self, "array", np.asarray(checked))

    @property
    def spatial_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.array.shape[1:]

    @property
    def rows(self) -> np.ndarray:
        """The masks themselves."""
        return self.array

    def shown(self) -> np.ndarray:
        """Returns which pixels any variant shows, bool `[H, W]`."""
        return np.any(self.array > 0, axis=0)


class SoftMasks(Masks):
    """Masks with values from 0 (hidden) to 1 (visible), given as one array `[N, H, W]`."""

    soft = True


def masks_of(array: ArrayLike, shape: tuple[int, ...], *, soft: bool) -> Masks:
    """Returns masks given as an array as a family: `SoftMasks` where a value is between 0 and 1.

    Args:
      array: `[N, H, W]`.
      shape: what the last axes must be.
      soft: whether values between are allowed.

    Raises:
      ValueError: another shape, or values that are not allowed.
    """
    checked = np.asarray(check_mask(array, shape, soft=soft))
    binary = checked.dtype == bool or ((checked == 0) | (checked == 1)).all()
    return Masks(checked) if binary else SoftMasks(checked)


def as_family(masks: MaskFamily | ArrayLike, *, soft: bool) -> MaskFamily:
    """Returns a family as it is, and an array `[N, H, W]` as `masks_of` does."""
    if isinstance(masks, MaskFamily):
        return masks
    return masks_of(masks, np.shape(masks)[1:], soft=soft)


@dataclasses.dataclass(frozen=True, eq=False)
class Windows(MaskFamily):
    """Masks that hide one rectangle of the image each, or show it alone.

    Attributes:
      spatial_shape: (H, W).
      corners: `[N, 2]` ints, (row, column) of the rectangles' upper left pixels. Rectangles may
        reach over the border; far outside, they hide nothing.
      size: (height, width) of the rectangles, in pixels; a number stands for both.
      keep_inside: show the rectangle alone and hide the rest.
    """

    spatial_shape: tuple[int, int]
    corners: np.ndarray
    size: tuple[int, int]
    _: dataclasses.KW_ONLY
    keep_inside: bool = False

    def __post_init__(self):
        corners = np.asarray(self.corners)
        if corners.ndim != 2 or corners.shape[1] != 2 or corners.dtype.kind not in "iu":
            raise ValueError(
                f"corners must be ints [N, 2], (row, column); got {corners.dtype} "
                f"of shape {corners.shape}"
            )
        object.__setattr__(self, "size", check_pair("size", self.size, note="height and width"))
        object.__setattr__(self, "corners", corners.astype(np.int32))

    @property
    def rows(self) -> np.ndarray:
        """The corners `[N, 2]`."""
        return self.corners

    @property
    def make(self) -> Callable:
        """The function from corners to masks."""
        return _WindowMaker(_pair(self.spatial_shape), _pair(self.size), self.keep_inside)


@dataclasses.dataclass(frozen=True, eq=False)
class RankRanges(MaskFamily):
    """Masks that show the pixels whose rank lies in a range, as deletion and insertion need.

    Attributes:
      ranks: `[H, W]` ints. Several pixels may share one, such as those of a segment.
      ranges: `[N, 2]` ints (start, stop): a pixel is visible where start <= rank < stop.
    """

    ranks: np.ndarray
    ranges: np.ndarray
    make = staticmethod(_within)

    def __post_init__(self):
        ranks, ranges = np.asarray(self.ranks), np.asarray(self.ranges)
        if ranks.ndim != 2 or ranks.dtype.kind not in "iu":
            raise ValueError(f"ranks must be ints [H, W], got {ranks.dtype} {ranks.shape}")
        if ranges.ndim != 2 or ranges.shape[1] != 2 or ranges.dtype.kind not in "iu":
            raise ValueError(f"ranges must be ints [N, 2], got {ranges.dtype} {ranges.shape}")
        object.__setattr__(self, "ranks", ranks.astype(np.int32))
        object.__setattr__(self, "ranges", ranges.astype(np.int32))

    @property
    def spatial_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.ranks.shape

    @property
    def rows(self) -> np.ndarray:
        """The ranges `[N, 2]`."""
        return self.ranges

    @property
    def shared(self) -> np.ndarray:
        """The ranks `[H, W]`."""
        return self.ranks

    def shown(self) -> np.ndarray:
        """Returns which pixels any variant shows, bool `[H, W]`."""
        low, high = np.unique(self.ranges, axis=0).T
        shown = np.zeros(self.ranks.shape, bool)
        for a, b in zip(low, high):
            shown |= (self.ranks >= a) & (self.ranks < b)
            if shown.all():
                break
        return shown


@dataclasses.dataclass(frozen=True, eq=False)
class SoftCoalitions(MaskFamily):
    """Masks in which each segment is visible to its own degree, for removals that blend.

    Attributes:
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      degrees: `[N, S]` floats from 0 (hidden) to 1 (visible).
    """

    segments: np.ndarray
    degrees: np.ndarray
    soft = True
    make = staticmethod(_paint)

    def __post_init__(self):
        segments = check_segments(self.segments)
        degrees = check_numbers("degrees", self.degrees).astype(np.float32)
        num_segments = int(segments.max()) + 1
        if degrees.ndim != 2 or degrees.shape[1] != num_segments:
            raise ValueError(
                f"degrees must be [N, {num_segments}], a column for each segment; "
                f"got shape {degrees.shape}"
            )
        if not ((degrees >= 0) & (degrees <= 1)).all():
            raise ValueError("degrees must hold values from 0 (hidden) to 1 (visible)")
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "degrees", degrees)

    @property
    def spatial_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.segments.shape

    @property
    def rows(self) -> np.ndarray:
        """The degrees `[N, S]`."""
        return self.degrees

    @property
    def shared(self) -> np.ndarray:
        """The label map `[H, W]`."""
        return self.segments


@dataclasses.dataclass(frozen=True, eq=False)
class Grids(MaskFamily):
    """Masks made of coarse grids, enlarged and shifted: those of RISE.

    A grid of h x w cells is enlarged to h + 1 times ceil(H / h) by w + 1 times ceil(W / w) pixels,
    and the variant's shift says where in it the image lies (Petsiuk et al. 2018, arXiv 1806.07421,
    section 3.2).

    Attributes:
      spatial_shape: (H, W).
      cells: `[N, h, w]` bool, True = visible.
      shifts: `[N, 2]` ints (down, right), from 0 up to, not including, ceil(H / h) and ceil(W / w).
      soft: interpolate between the cells' centres, bilinearly; the outer half of a border cell has
        its value. Otherwise every pixel takes the cell it lies in.
    """

    spatial_shape: tuple[int, int]
    cells: np.ndarray
    shifts: np.ndarray
    _: dataclasses.KW_ONLY
    soft: bool = False

    def __post_init__(self):
        cells, shifts = np.asarray(self.cells), np.asarray(self.shifts)
        if cells.ndim != 3 or cells.dtype != bool or 0 in cells.shape[1:]:
            raise ValueError(f"cells must be bool [N, h, w], got {cells.dtype} {cells.shape}")
        if (np.array(cells.shape[1:]) > self.spatial_shape).any():
            height, width = self.spatial_shape
            raise ValueError(
                f"cells must be at most {height} x {width}, one for each pixel; got "
                f"{cells.shape[1]} x {cells.shape[2]}"
            )
        if shifts.shape != (len(cells), 2) or shifts.dtype.kind not in "iu":
            raise ValueError(
                f"shifts must be ints [{len(cells)}, 2], (down, right); got {shifts.dtype} "
                f"of shape {shifts.shape}"
            )
        limit = _cell_size(cells.shape[1:], self.spatial_shape)
        if ((shifts < 0) | (shifts >= limit)).any():
            raise ValueError(f"shifts must be 0 or more and below {limit}, the size of a cell")
        object.__setattr__(self, "cells", cells)
        object.__setattr__(self, "shifts", shifts.astype(np.int32))

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The cells `[N, h, w]` and the shifts `[N, 2]`."""
        return self.cells, self.shifts

    @property
    def make(self) -> Callable:
        """The function from cells and shifts to masks."""
        return _GridMaker(_pair(self.spatial_shape), self.soft)


def random_grids(
    spatial_shape: tuple[int, int],
    num_samples: int,
    *,
    key: jax.Array,
    grid: int | tuple[int, int] = 7,
    keep_probability: float = 0.5,
    soft: bool = False,
    first: int = 0,
) -> Grids:
    """Draws `Grids` with the defaults of RISE (Petsiuk et al. 2018, arXiv 1806.07421, section 4).

    Grids are numbered: each depends on the key and on its number alone.

    Args:
      spatial_shape: (H, W).
      num_samples: N.
      key: random key; the same key gives the same masks.
      grid: cells along each side, or (h, w).
      keep_probability: probability that a cell is visible, above 0 and below 1.
      soft: as in `Grids`.
      first: number of the first grid.

    Raises:
      ValueError: options out of range.
    """
    num_samples = check_whole("num_samples", num_samples, least=1)
    first = check_whole("first", first, least=0)
    check_number("keep_probability", keep_probability, above=0, below=1)
    grid = check_pair("grid", grid, most=spatial_shape, note="the image's height and width")
    limit = np.asarray(_cell_size(grid, spatial_shape), np.int32)

    def draw(count: int) -> tuple[jax.Array, jax.Array]:
        cell_key, shift_key = jax.random.split(threefry(key))
        cells = jax.random.bernoulli(cell_key, np.float32(keep_probability), (count, *grid))
        return cells, jax.random.randint(shift_key, (count, 2), 0, limit[None], np.int32)

    cells, shifts = draw_rows(draw, first, first + num_samples)
    return Grids(spatial_shape, np.asarray(cells), np.asarray(shifts), soft=soft)


class WholeFirst(MaskFamily):
    """The whole image followed by the N variants of another family.

    Args:
      family: of the variants.
      first: whether the whole image is there; without it masks are made by the same function.
    """

    def __init__(self, family: MaskFamily, *, first: bool = True):
        self.spatial_shape, self.shared, self.soft = (
            family.spatial_shape,
            family.shared,
            family.soft,
        )
        numbers = np.arange(-int(first), len(family))
        rows = jax.tree.map(operator.itemgetter(np.maximum(numbers, 0)), family.rows)
        self.rows = rows, numbers < 0
        self.make = _WholeFirstMaker(family.make)


class SomeFirst(MaskFamily):
    """Some variants of a family, by their numbers `[n]`, followed by all of another one like it."""

    def __init__(self, some: MaskFamily, numbers: np.ndarray, family: MaskFamily | None = None):
        self.spatial_shape, self.shared, self.soft, self.make = (
            some.spatial_shape,
            some.shared,
            some.soft,
            some.make,
        )
        self.rows = jax.tree.map(operator.itemgetter(numbers), some.rows)
        if family is not None:
            joined = functools.partial(jax.tree.map, lambda *x: np.concatenate(x))
            self.rows = joined(self.rows, family.rows)


def weighted_sum(family: MaskFamily, weights: ArrayLike) -> np.ndarray:
    """Sums a family's masks, each times its weight, without making all of them at once.

    Args:
      family: of N masks `[H, W]`.
      weights: `[N]`, or `[N, T]` for T sums.

    Returns:
      float32 `[H, W]` or `[T, H, W]`.

    Raises:
      ValueError: another number of weights.
    """
    weights = check_numbers("weights", weights).astype(np.float32)
    if weights.ndim == 1:
        return weighted_sum(family, weights[:, None])[0]
    if len(weights) != len(family):
        raise ValueError(f"weights must be [{len(family)}, T], got shape {weights.shape}")
    shared, total = jax.tree.map(jnp.asarray, family.shared), 0
    for chosen, real in _batches(family):
        rows = jax.tree.map(operator.itemgetter(chosen), family.rows)
        counted = np.where(real[:, None], weights[chosen], 0)
        total = total + np.asarray(_weighted_sum(shared, rows, counted, make=family.make))
    return np.asarray(total)


def hidden_sum(family: MaskFamily, heatmap: ArrayLike) -> np.ndarray:
    """Sums a heatmap over the pixels that each mask hides, without making all masks at once.

    Args:
      family: of N masks `[H, W]`.
      heatmap: `[H, W]`.

    Returns:
      float32 `[N]`.
    """
    heatmap = jnp.asarray(heatmap, jnp.float32)
    shared, sums = jax.tree.map(jnp.asarray, family.shared), []
    for chosen, real in _batches(family):
        rows = jax.tree.map(operator.itemgetter(chosen), family.rows)
        sums.append(np.asarray(_hidden_sum(shared, rows, heatmap, make=family.make))[real])
    return np.concatenate(sums)


def shares(family: MaskFamily, *, patch_size: int | None = None) -> np.ndarray:
    """Computes the share of the image that each mask shows, without making all masks at once.

    Args:
      family: of N masks `[H, W]`.
      patch_size: side of square patches, in pixels, that count only where they are wholly visible;
        None counts every pixel by its value.

    Returns:
      float32 `[N]`.
    """
    shared, found = jax.tree.map(jnp.asarray, family.shared), []
    for chosen, real in _batches(family):
        rows = jax.tree.map(operator.itemgetter(chosen), family.rows)
        options = {"make": family.make, "patch_size": patch_size}
        found.append(np.asarray(_shares(shared, rows, **options))[real])
    return np.concatenate(found)


def _batches(family: MaskFamily) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of one size: numbers of masks, and which of them are not padding."""
    height, width = family.spatial_shape
    size = min(max(_PIXELS // (height * width), 1), power_of_two(len(family)))
    for start in range(0, len(family), size):
        chosen = np.arange(start, start + size)
        yield np.minimum(chosen, len(family) - 1), chosen < len(family)


@bounded_jit(static_argnames="make")
def _make(shared, rows, *, make):
    """Makes the masks `[n, H, W]` of rows in one program."""
    return make(shared, rows)


@bounded_jit(static_argnames="make")
def _weighted_sum(shared, rows, weights, *, make):
    """Sums the masks of one batch, `[T, H, W]`."""
    masks = make(shared, rows).astype(jnp.float32)
    return jnp.einsum("nhw,nt->thw", masks, weights, precision=jax.lax.Precision.HIGHEST)


@bounded_jit(static_argnames="make")
def _hidden_sum(shared, rows, heatmap, *, make):
    """Sums a heatmap over the hidden pixels of each mask of one batch, `[n]`."""
    hidden = 1 - make(shared, rows).astype(jnp.float32)
    return jnp.einsum("nhw,hw->n", hidden, heatmap, precision=jax.lax.Precision.HIGHEST)


@bounded_jit(static_argnames=("make", "patch_size"))
def _shares(shared, rows, *, make, patch_size):
    """Returns the share that each mask of one batch shows, `[n]`."""
    masks = make(shared, rows)
    if patch_size is not None:
        masks = whole_patches(masks != 0, patch_size)
    return masks.astype(jnp.float32).mean(axis=(1, 2))


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    """Returns (height, width) as a tuple, which can be hashed."""
    height, width = sizes
    return height, width


@dataclasses.dataclass(frozen=True)
class _WindowMaker:
    """Makes the masks of `Windows`."""

    spatial_shape: tuple[int, int]
    size: tuple[int, int]
    keep_inside: bool

    def __call__(self, shared: None, corners: jax.Array) -> jax.Array:
        inside = [
            (jnp.arange(n)[None] >= start[:, None]) & (jnp.arange(n)[None] < start[:, None] + size)
            for n, size, start in zip(self.spatial_shape, self.size, corners.T)
        ]
        inside = inside[0][:, :, None] & inside[1][:, None, :]
        return inside if self.keep_inside else ~inside


@dataclasses.dataclass(frozen=True)
class _GridMaker:
    """Makes the masks of `Grids`."""

    spatial_shape: tuple[int, int]
    soft: bool

    def __call__(self, shared: None, rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        cells, shifts = rows
        sizes = zip(cells.shape[1:], self.spatial_shape, shifts.T)
        if not self.soft:
            down, right = (_cell_of_pixel(*each) for each in sizes)
            return jax.vmap(lambda c, i, j: c[i][:, j])(cells, down, right)
        down, right = (_cell_weights(*each) for each in sizes)
        masks = jnp.einsum(
            "nij,nyi,nxj->nyx", cells.astype(jnp.float32), down, right, precision="highest"
        )
        return jnp.clip(masks, 0, 1)


def _cell_of_pixel(cells: int, pixels: int, shift: jax.Array) -> jax.Array:
    """Returns the cell of each pixel along one side, ints `[n, pixels]`, for shifts `[n]`."""
    centre = 2 * (jnp.arange(pixels)[None] + shift[:, None]) + 1  # twice the pixel's centre
    return centre * cells // (2 * _enlarged(cells, pixels))


def _cell_weights(cells: int, pixels: int, shift: jax.Array) -> jax.Array:
    """Returns interpolation weights `[n, pixels, cells]` along one side; they sum to 1."""
    centre = (jnp.arange(pixels)[None] + shift[:, None]).astype(jnp.float32) + 0.5
    position = jnp.clip(centre * cells / _enlarged(cells, pixels) - 0.5, 0, cells - 1)
    distance = jnp.abs(position[:, :, None] - jnp.arange(cells, dtype=jnp.float32)[None, None])
    return jnp.maximum(1 - distance, 0)


def _enlarged(cells: int, pixels: int) -> int:
    """Returns the side of an enlarged grid, in pixels."""
    return (cells + 1) * -(-pixels // cells)


def _cell_size(grid: tuple[int, int], spatial_shape: tuple[int, int]) -> tuple[int, ...]:
    """Returns the (height, width) of a cell, in pixels."""
    return tuple(-(-pixels // cells) for cells, pixels in zip(grid, spatial_shape))


@dataclasses.dataclass(frozen=True)
class _WholeFirstMaker:
    """Makes the masks of `WholeFirst`."""

    make: Callable

    def __call__(self, shared: Any, rows: tuple[Any, jax.Array]) -> jax.Array:
        rows, whole = rows
        masks = self.make(shared, rows)
        return jnp.where(whole[:, None, None], jnp.ones((), masks.dtype), masks)
