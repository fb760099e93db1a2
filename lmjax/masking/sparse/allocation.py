"""Rows of a batch: which position of which variant has which row, from the masks.

In NumPy, outside the compiled program: so a program holds only gathers and products, compiles
quickly, and serves variants that share rows as well as those that do not. A batch that needs more
rows than there is room for is an error here, before anything is computed.
"""

from collections.abc import Sequence

import numpy as np

from lmjax._utils.summary import brief
from lmjax.masking.sparse import sharing
from lmjax.masking.sparse.positions import Layout, Positions
from lmjax.masking.windows import NEIGHBOURS, Window, touched


class NoRoomError(RuntimeError):
    """Raised where variants need more rows than a set of positions has."""


class Allocation:
    """Rows of some variants.

    Attributes:
      masks: `[N, H, W]` bool, 1 = visible.
      layout: recorded from the network that will run.
      image_of: `[N]` ints, the image of each variant, where they are of several; else None.
      outer: `[N, h, w]` ints, the row of each position in the rows that the network goes on from,
        where it starts at a seam; else None.
    """

    def __init__(
        self,
        masks: np.ndarray,
        layout: Layout,
        capacities: Sequence[int] | None = None,
        *,
        image_of: np.ndarray | None = None,
        outer: np.ndarray | None = None,
        outer_rows: int = 0,
    ):
        self.masks, self.layout, self.image_of = masks, layout, image_of
        self.outer, self._outer_rows, self._capacities = outer, outer_rows, capacities
        self._made: dict = {}

    def _once(self, kind: str, positions: Positions, make):
        key = kind, positions
        if key not in self._made:
            self._made[key] = make(positions)
        return self._made[key]

    # Which positions there are.

    def mask(self, positions: Positions) -> np.ndarray:
        """Returns which positions these are, bool `[N, H, W]`."""
        return self._once("mask", positions, self._mask)

    def _mask(self, positions: Positions) -> np.ndarray:
        parents, window = positions.parents, positions.window
        match positions.kind:
            case "input":
                return self.masks
            case "first" | "window":
                return touched(self.mask(parents[0]), window)
            case "ring":
                inner = self.mask(parents[0])
                return touched(inner, NEIGHBOURS) & ~inner
            case "ringed":
                return self.mask(parents[0]) | self.mask(parents[1])
            case "both":
                return self.mask(parents[0]) & self.mask(parents[1])
            case "kept":
                _, before, keep = parents
                return touched(self.mask(before), window) if keep is None else self.mask(keep)
            case "alone":
                return self.mask(parents[0])
        raise ValueError(f"positions must be of a known kind, got {brief(positions.kind)}")

    def owner(self, positions: Positions) -> np.ndarray:
        """Returns the first variant with the same value at each position, `[N, H, W]`; or -1."""
        return self._once("owner", positions, self._owner)

    def _owner(self, positions: Positions) -> np.ndarray:
        mask, parents, window = self.mask(positions), positions.parents, positions.window
        match positions.kind:
            case "first":
                alike = [sharing.hashed_pixels(self.mask(parents[0]), parents[1])]
                if self.image_of is not None:
                    alike.append(self.image_of.astype(np.uint64)[:, None, None])
            case "window" | "ring":
                alike = [sharing.hashed_windows(self.owner(parents[0]), window)]
            case "ringed":
                inner, ring = parents
                return np.where(self.mask(ring), self.owner(ring), self.owner(inner))
            case "both":
                alike = [sharing.hashed_windows(self.owner(each)) for each in parents]
            case "kept":
                source, _, keep = parents
                alike = [sharing.hashed_windows(self.owner(source), window)]
                if keep is not None:
                    alike.append(sharing.hashed_windows(self.owner(keep)))
            case _:
                raise ValueError(f"positions {positions.kind!r} share no rows")
        return sharing.first_alike(mask, alike)

    # Which rows they have.

    def counts(self) -> np.ndarray:
        """Returns how many rows each variant needs in each set, `[N, P]`.

        Where variants share rows, a row counts for the first variant that needs it.
        """
        counted = [self._owned(each).sum(axis=(1, 2)) for each in self.layout.sets]
        return np.stack(counted, axis=1) if counted else np.zeros((len(self.masks), 0), int)

    def _owned(self, positions: Positions) -> np.ndarray:
        """Which positions have a row of their own, bool `[N, H, W]`."""
        if not self._shared(positions):
            return self.mask(positions)
        numbers = np.arange(len(self.masks))[:, None, None]
        return self.owner(positions) == numbers

    def _shared(self, positions: Positions) -> bool:
        return self.layout.sharing and positions.kind != "alone"

    def capacity(self, positions: Positions) -> int:
        """Returns how many rows there is room for."""
        if positions.kind == "ringed":
            return sum(map(self.capacity, positions.parents))
        assert self._capacities is not None  # counting needs none
        return self._capacities[positions.number]

    def used(self, positions: Positions) -> np.ndarray:
        """Returns the positions that have a row, row by row, counted through `[N, H, W]`."""
        return self._once("used", positions, self._used)

    def _used(self, positions: Positions) -> np.ndarray:
        used, room = np.flatnonzero(self._owned(positions)), self.capacity(positions)
        if len(used) > room:
            raise NoRoomError(
                f"set {positions.number} has room for {room} rows and {len(used)} are needed"
            )
        return used

    def index(self, positions: Positions) -> np.ndarray:
        """Returns the row of each position, int32 `[N, H, W]`; the row behind the last for none."""
        return self._once("index", positions, self._index)

    def _index(self, positions: Positions) -> np.ndarray:
        mask, missing = self.mask(positions), np.int32(self.capacity(positions))
        if positions.kind == "ringed":
            inner, ring = positions.parents
            behind = self.index(ring) + np.int32(self.capacity(inner))
            return np.where(
                self.mask(ring), behind, np.where(self.mask(inner), self.index(inner), missing)
            )
        used = self.used(positions)
        index = np.full(mask.size, missing, np.int32)
        index[used] = np.arange(len(used), dtype=np.int32)
        if self._shared(positions):
            owner = np.maximum(self.owner(positions), 0)
            index = np.take_along_axis(index.reshape(mask.shape), owner, axis=0)
        return np.where(mask, index.reshape(mask.shape), missing)

    # What layers read: methods by the names of `Request.kind`.

    def arrays(self) -> list[np.ndarray]:
        """Returns all index arrays that the network reads, in the order in which it does."""
        return [getattr(self, kind)(*arguments) for kind, arguments in self.layout.requests]

    def read(self, source: Positions, target: Positions, window: Window) -> np.ndarray:
        """See `Positions.read_by`."""
        index, missing = self.index(source), self.capacity(source)
        padded = np.pad(index, ((0, 0), *window.pads), constant_values=missing)
        down, right = (np.arange(slide.size) * slide.dilation for slide in window)
        offsets = (down[:, None] * padded.shape[2] + right[None]).reshape(-1, 1)
        used = self.used(target)
        read = np.full((window.size, self.capacity(target)), missing, np.int32)
        corners = self._corners(used, target, padded.shape, window)
        np.take(padded.reshape(-1), corners[None] + offsets, out=read[:, : len(used)], mode="clip")
        return read

    @staticmethod
    def _corners(used, target: Positions, padded: tuple[int, ...], window: Window) -> np.ndarray:
        height, width = target.shape
        variant, rest = np.divmod(used, height * width)
        row, column = np.divmod(rest, width)
        down, right = window.strides
        return (variant * padded[1] + row * down) * padded[2] + column * right

    def corners(self, target: Positions, source: Positions, window: Window) -> np.ndarray:
        """See `Positions.corners`."""
        padded = [length + sum(pads) for length, pads in zip(source.shape, window.pads)]
        used = self.used(target)
        corners = np.zeros(self.capacity(target), np.int32)
        corners[: len(used)] = self._corners(used, target, (0, *padded), window)
        return corners

    def flat(self, positions: Positions) -> np.ndarray:
        """See `Positions.flat`."""
        used, height_width = self.used(positions), positions.shape[0] * positions.shape[1]
        flat = np.full(self.capacity(positions), len(self.masks) * height_width, np.int32)
        flat[: len(used)] = used
        return flat

    def variants(self, positions: Positions) -> np.ndarray:
        """See `Positions.variants`."""
        return self.flat(positions) // np.int32(positions.shape[0] * positions.shape[1])

    def in_use(self, positions: Positions) -> np.ndarray:
        """See `Positions.in_use`."""
        if positions.kind == "ringed":
            return np.concatenate([self.in_use(each) for each in positions.parents])
        return np.arange(self.capacity(positions)) < len(self.used(positions))

    def sizes(self, positions: Positions) -> np.ndarray:
        """See `Positions.sizes`."""
        return self.mask(positions).sum(axis=(1, 2), dtype=np.float32)

    def beyond(self, target: Positions, source: Positions, window: Window) -> np.ndarray:
        """See `Positions.beyond`."""
        around = np.pad(np.zeros(source.shape, bool), window.pads, constant_values=True)
        used = self.used(target)
        beyond = np.zeros(self.capacity(target), bool)
        size = target.shape[0] * target.shape[1]
        beyond[: len(used)] = touched(around[None], window.unpadded()).reshape(-1)[used % size]
        return beyond

    def resume(self, positions: Positions) -> np.ndarray:
        """Returns the outer row that each row goes on from, int32 `[R]`."""
        used = self.used(positions)
        rows = np.full(self.capacity(positions), self._outer_rows, np.int32)
        rows[: len(used)] = self.resume_full().reshape(-1)[used]
        return rows

    def resume_full(self) -> np.ndarray:
        """Returns the outer row that each position goes on from, int32 `[N, h, w]`."""
        assert self.outer is not None  # the layout starts at a seam
        return self.outer
