"""Families of masks: described by little, made on the device a batch at a time.

`N x H x W` masks of a long run would fill the memory, so `lmjax.evaluate` takes a family instead:
`rows` say what differs between variants, `shared` what they have in common, and `make` is a pure
function from both to masks. `Coalitions` is one; a new one needs nothing more than these names.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils.sizes import power_of_two
from lmjax.masking.checks import check_mask
from lmjax.masks.keys import threefry
from lmjax.masks.segments import check_segments

# Pixels of the masks that exist at once in `weighted_sum`.
_PIXELS = 2**24


class MaskFamily:
    """What every family has; subclasses are frozen dataclasses that are compared by identity.

    Attributes:
      spatial_shape: (H, W).
      rows: arrays with leading axis N: what differs between variants.
      shared: arrays that all variants share; None where there are none.
      make: pure, hashable function (shared, rows with leading axis n) -> masks `[n, H, W]`.
      soft: whether values between 0 and 1 occur. Only removals that can blend take such masks.
    """

    spatial_shape: tuple[int, int]
    rows: Any
    shared: Any = None
    make: Callable
    soft: ClassVar[bool] = False

    def shown(self) -> np.ndarray:
        """`[H, W]` bool: which pixels any variant shows (True too for those that may be)."""
        return np.ones(self.spatial_shape, bool)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.rows)[0])

    def masks(self, rows: slice = slice(None)) -> jax.Array:
        """Masks `[n, H, W]` of some variants, on the device."""
        shared = jax.tree.map(jnp.asarray, self.shared)
        return self.make(shared, jax.tree.map(lambda x: jnp.asarray(x[rows]), self.rows))


@dataclasses.dataclass(frozen=True, eq=False)
class Masks(MaskFamily):
    """Masks as they are.

    Attributes:
      array: `[N, H, W]`, 1 = visible, 0 = hidden.

    Raises:
      ValueError: another number of axes, or values other than 0 and 1.
    """

    array: np.ndarray

    def __post_init__(self):
        checked = check_mask(self.array, np.shape(self.array)[1:], soft=self.soft)
        object.__setattr__(self, "array", np.asarray(checked))

    @property
    def spatial_shape(self) -> tuple[int, int]:
        return self.array.shape[1:]

    @property
    def rows(self) -> np.ndarray:
        return self.array

    @property
    def make(self) -> Callable:
        return _as_they_are

    def shown(self) -> np.ndarray:
        return (self.array > 0).any(axis=0)


class SoftMasks(Masks):
    """Masks that blend: `array` `[N, H, W]` with values from 0 (hidden) to 1 (visible)."""

    soft = True


@dataclasses.dataclass(frozen=True, eq=False)
class Windows(MaskFamily):
    """A rectangle of each variant is hidden, or the rest of it.

    Attributes:
      spatial_shape: (H, W).
      corners: `[N, 2]` ints, (row, column) of the rectangles' upper left pixels. Rectangles may
        reach over the border; far outside, they hide nothing.
      size: (height, width) of the rectangles, in pixels.
      keep_inside: show the rectangle only, hide the rest.
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
        if min(self.size) < 1:
            raise ValueError(f"size must be (height, width), 1 or more each; got {self.size!r}")
        object.__setattr__(self, "corners", corners.astype(np.int32))

    @property
    def rows(self) -> np.ndarray:
        return self.corners

    @property
    def make(self) -> Callable:
        return _WindowMaker(tuple(self.spatial_shape), tuple(self.size), self.keep_inside)


@dataclasses.dataclass(frozen=True, eq=False)
class RankRanges(MaskFamily):
    """Pixels have ranks; each variant shows those within a range: for deletion and insertion.

    Attributes:
      ranks: `[H, W]` ints. Several pixels may share one, such as those of a segment.
      ranges: `[N, 2]` ints: a pixel is visible where first <= rank < second.
    """

    ranks: np.ndarray
    ranges: np.ndarray

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
        return self.ranks.shape

    @property
    def rows(self) -> np.ndarray:
        return self.ranges

    @property
    def shared(self) -> np.ndarray:
        return self.ranks

    @property
    def make(self) -> Callable:
        return _within

    def shown(self) -> np.ndarray:
        low, high = np.unique(self.ranges, axis=0).T
        # Ranges of one end in common (all of deletion, all of insertion) are nested.
        shown = np.zeros(self.ranks.shape, bool)
        for a, b in zip(low, high):
            shown |= (self.ranks >= a) & (self.ranks < b)
            if shown.all():
                break
        return shown


@dataclasses.dataclass(frozen=True, eq=False)
class SoftCoalitions(MaskFamily):
    """Each segment is visible to a degree of its own. Only for removals that blend.

    Attributes:
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      degrees: `[N, S]` floats from 0 (hidden) to 1 (visible).
    """

    segments: np.ndarray
    degrees: np.ndarray
    soft = True

    def __post_init__(self):
        segments = check_segments(self.segments)
        degrees, num_segments = np.asarray(self.degrees, np.float32), int(segments.max()) + 1
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
        return self.segments.shape

    @property
    def rows(self) -> np.ndarray:
        return self.degrees

    @property
    def shared(self) -> np.ndarray:
        return self.segments

    @property
    def make(self) -> Callable:
        return _painted


@dataclasses.dataclass(frozen=True, eq=False)
class Grids(MaskFamily):
    """Coarse grids, enlarged and shifted: the masks of RISE.

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
        _check_grid(cells.shape[1:], self.spatial_shape, "cells")
        if shifts.shape != (len(cells), 2) or shifts.dtype.kind not in "iu":
            raise ValueError(
                f"shifts must be ints [{len(cells)}, 2], (down, right); got {shifts.dtype} "
                f"of shape {shifts.shape}"
            )
        limit = _cell_size(cells.shape[1:], self.spatial_shape)
        if ((shifts < 0) | (shifts >= limit)).any():
            raise ValueError(f"shifts must be from (0, 0) up to below {limit}")
        object.__setattr__(self, "cells", cells)
        object.__setattr__(self, "shifts", shifts.astype(np.int32))

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        return self.cells, self.shifts

    @property
    def make(self) -> Callable:
        return _GridMaker(tuple(self.spatial_shape), self.soft)


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
    """Random `Grids`, with the defaults of RISE (Petsiuk et al. 2018, arXiv 1806.07421, section 4).

    They are numbered: a grid depends on the key and on its number alone.

    Args:
      spatial_shape: (H, W).
      num_samples: N.
      key: random key; the same key gives the same masks.
      grid: cells along each side, or (h, w).
      keep_probability: how likely a cell is visible, above 0 and below 1.
      soft: as in `Grids`.
      first: number of the first grid.

    Raises:
      ValueError: options out of range.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be 1 or more, got {num_samples!r}")
    if first < 0:
        raise ValueError(f"first must be 0 or more, got {first!r}")
    if not 0 < keep_probability < 1:
        raise ValueError(f"keep_probability must be above 0 and below 1, got {keep_probability!r}")
    grid = (grid, grid) if np.ndim(grid) == 0 else tuple(grid)
    _check_grid(grid, spatial_shape, "grid")
    cell_key, shift_key = jax.random.split(threefry(key))
    limit = jnp.asarray(_cell_size(grid, spatial_shape))
    drawn, these = power_of_two(first + num_samples), slice(first, first + num_samples)
    with jax.threefry_partitionable(True):  # bits depend on their place only, not on the shape
        cells = jax.random.bernoulli(cell_key, keep_probability, (drawn, *grid))
        shifts = jax.random.randint(shift_key, (drawn, 2), 0, limit[None])
    return Grids(spatial_shape, np.asarray(cells)[these], np.asarray(shifts)[these], soft=soft)


class WholeFirst(MaskFamily):
    """The whole image, and then the variants of another family: N + 1 in all."""

    def __init__(self, family: MaskFamily):
        self.spatial_shape, self.shared, self.soft = (
            family.spatial_shape,
            family.shared,
            family.soft,
        )
        variants = np.maximum(np.arange(-1, len(family)), 0)
        rows = jax.tree.map(operator.itemgetter(variants), family.rows)
        self.rows = rows, np.arange(-1, len(family)) < 0
        self.make = _WholeFirstMaker(family.make)


def weighted_sum(family: MaskFamily, weights) -> np.ndarray:
    """Sum of a family's masks, each times its weight, without having all of them at once.

    Args:
      family: of N masks `[H, W]`.
      weights: `[N]`, or `[N, T]` for T sums.

    Returns:
      float32 `[H, W]` or `[T, H, W]`.
    """
    weights = np.asarray(weights, np.float32)
    if weights.ndim == 1:
        return weighted_sum(family, weights[:, None])[0]
    if len(weights) != len(family):
        raise ValueError(f"weights must be [{len(family)}, T], got shape {weights.shape}")
    height, width = family.spatial_shape
    size = min(max(_PIXELS // (height * width), 1), 2 ** (len(family) - 1).bit_length())
    shared, total = jax.tree.map(jnp.asarray, family.shared), 0
    weights = np.pad(weights, ((0, -len(family) % size), (0, 0)))
    for start in range(0, len(family), size):
        chosen = np.minimum(np.arange(start, start + size), len(family) - 1)
        rows = jax.tree.map(operator.itemgetter(chosen), family.rows)
        total += _sum(shared, rows, weights[start : start + size], make=family.make)
    return np.asarray(total)


@functools.partial(jax.jit, static_argnames="make")
def _sum(shared, rows, weights, *, make):
    masks = make(shared, rows).astype(jnp.float32)
    return jnp.einsum("nhw,nt->thw", masks, weights, precision=jax.lax.Precision.HIGHEST)


def _as_they_are(shared, rows):
    return rows


@dataclasses.dataclass(frozen=True)
class _WindowMaker:
    spatial_shape: tuple[int, int]
    size: tuple[int, int]
    keep_inside: bool

    def __call__(self, shared, corners):
        inside = [
            (jnp.arange(n)[None] >= start[:, None]) & (jnp.arange(n)[None] < start[:, None] + size)
            for n, size, start in zip(self.spatial_shape, self.size, corners.T)
        ]
        inside = inside[0][:, :, None] & inside[1][:, None, :]
        return inside if self.keep_inside else ~inside


def _painted(segments, degrees):
    return degrees[:, segments]


@dataclasses.dataclass(frozen=True)
class _GridMaker:
    spatial_shape: tuple[int, int]
    soft: bool

    def __call__(self, shared, rows):
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


def _cell_of_pixel(cells: int, pixels: int, shift):
    """`[n, pixels]`: which cell each pixel lies in, along one side, for shifts `[n]`."""
    centre = 2 * (jnp.arange(pixels)[None] + shift[:, None]) + 1  # twice the pixel's centre
    return centre * cells // (2 * _enlarged(cells, pixels))


def _cell_weights(cells: int, pixels: int, shift):
    """`[n, pixels, cells]`: how much of each cell a pixel takes, summing to 1 over cells."""
    centre = jnp.arange(pixels)[None] + shift[:, None] + 0.5
    position = jnp.clip(centre * cells / _enlarged(cells, pixels) - 0.5, 0, cells - 1)
    distance = jnp.abs(position[:, :, None] - jnp.arange(cells)[None, None])
    return jnp.maximum(1 - distance, 0)


def _enlarged(cells: int, pixels: int) -> int:
    return (cells + 1) * -(-pixels // cells)


def _cell_size(grid: tuple[int, int], spatial_shape: tuple[int, int]) -> tuple[int, ...]:
    return tuple(-(-pixels // cells) for cells, pixels in zip(grid, spatial_shape))


def _check_grid(grid: tuple[int, int], spatial_shape: tuple[int, int], name: str) -> None:
    if len(grid) != 2 or any(not 1 <= a <= b for a, b in zip(grid, spatial_shape)):
        raise ValueError(
            f"{name} must have from 1 x 1 to {spatial_shape[0]} x {spatial_shape[1]} cells, one "
            f"for each pixel; got {' x '.join(map(str, grid))}"
        )


@dataclasses.dataclass(frozen=True)
class _WholeFirstMaker:
    make: Callable

    def __call__(self, shared, rows):
        rows, whole = rows
        masks = self.make(shared, rows)
        return jnp.where(whole[:, None, None], jnp.ones((), masks.dtype), masks)


def _within(ranks, ranges):
    low, high = ranges.T[:, :, None, None]
    return (ranks[None] >= low) & (ranks[None] < high)
