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

from lmjax.masking.checks import check_mask

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
