"""Packs variants into batches with room for a fixed number of rows, from counted rows.

A network on visible positions (`lmjax.masking.sparse.rows`) has a few sets of positions, each
with a static capacity. Compiling costs seconds, so capacities that fit are used again. Work is
measured in wholly visible variants: 1 is what the convolutions multiply for one of them.
"""

import itertools
from typing import NamedTuple

import numpy as np

# Spare room over the average batch: batches differ in how their rows spread over the sets.
_SPARE = 1.05
# Every variant also brings its pixels, which are filled before the first convolution: for their
# memory's sake, variants count for no less than this.
_LEAST_WORK = 0.1


class Counts(NamedTuple):
    """How many rows each variant needs.

    Attributes:
      rows: `[N, P]`, of each variant in each set of positions.
      full: `[P]`, of a wholly visible variant.
      products: `[seams + 1, P]`, multiplications for a row of each set, between any two seams.
    """

    rows: np.ndarray
    full: np.ndarray
    products: np.ndarray

    def work(self, rows: np.ndarray, *, behind: int = 0) -> np.ndarray:
        """Work `[...]` of `[..., P]` rows, behind a seam or in all."""
        return rows @ self.products[behind:].sum(axis=0) / (self.full @ self.products.sum(axis=0))


class Room(NamedTuple):
    """The static shape of a batch.

    Attributes:
      variants: how many, at most.
      rows: capacity of each set of positions.
    """

    variants: int
    rows: tuple[int, ...]


class Packing(NamedTuple):
    """Variants in batches: batch i holds those from `starts[i]` up to `starts[i + 1]`.

    Attributes:
      room: of each batch.
      starts: `[batches + 1]`.
      work: of all batches, empty rows included.
    """

    room: Room
    starts: np.ndarray
    work: float

    def batches(self) -> list[np.ndarray]:
        """The variants' numbers in each batch."""
        return [np.arange(a, b) for a, b in itertools.pairwise(self.starts)]


class Rooms:
    """The rooms that have been compiled for one program, and what they have cost too much.

    Attributes:
      compiled: the rooms.
      wasted: work that a room of their own would have saved the runs since the last compilation.
    """

    def __init__(self):
        self.compiled: list[Room] = []
        self.wasted = 0.0


def pack(counts: Counts, *, work_per_batch: float, compiling: float, known: Rooms) -> Packing:
    """Variants in batches, in a room that is compiled or in one that is worth to be.

    A new room is compiled when the runs without it have wasted as much work as compiling costs.

    Args:
      counts: of all variants, in order.
      work_per_batch: what a newly compiled batch holds.
      compiling: what another room costs, in the same units.
      known: what has been compiled; a new room is added to it.
    """
    packings = [fill(room, counts) for room in known.compiled]
    fresh = [fill(room, counts) for room in rooms_for(counts, work_per_batch)]
    new = min(fresh, key=lambda p: p.work)
    best = min((p for p in packings if p is not None), key=lambda p: p.work, default=None)
    if best is not None:
        known.wasted += max(best.work - new.work, 0)
        if known.wasted < compiling:
            return best
    known.compiled.append(new.room)
    known.wasted = 0.0
    return new


def rooms_for(counts: Counts, work_per_batch: float) -> list[Room]:
    """Rooms for batches of about equal work: for the largest of them, and for the average.

    Every single variant has room in them.
    """
    work = np.maximum(counts.work(counts.rows), _LEAST_WORK)
    done = work.cumsum()
    batches = min(int(np.ceil(done[-1] / work_per_batch)), len(work))
    starts = np.searchsorted(done - work / 2, np.arange(batches) * done[-1] / batches)
    starts = np.unique(np.minimum(starts, len(work) - 1))
    variants = int(np.diff(starts, append=len(work)).max())
    rows = np.add.reduceat(counts.rows, starts)
    largest, average = rows.max(axis=0), _SPARE * rows.mean(axis=0)
    single = counts.rows.max(axis=0)
    return [_room(variants, np.maximum(each, single)) for each in (largest, average)]


def _room(variants: int, rows: np.ndarray) -> Room:
    """In multiples of 8 rows."""
    return Room(variants, tuple((8 * np.ceil(np.maximum(rows, 1) / 8).astype(int)).tolist()))


def fill(room: Room, counts: Counts) -> Packing | None:
    """Consecutive variants, batch after batch as they fit; None where one alone does not fit."""
    total = np.concatenate([np.zeros_like(counts.rows[:1]), counts.rows.cumsum(axis=0)])
    starts = [0]
    while starts[-1] < len(counts.rows):
        start = starts[-1]
        limits = total[start] + room.rows
        ends = [
            np.searchsorted(column, limit, side="right") - 1
            for column, limit in zip(total[start : start + room.variants + 1].T, limits)
        ]
        if min(ends) == 0:
            return None
        starts.append(start + min(ends))
    return Packing(room, np.array(starts), (len(starts) - 1) * counts.work(np.array(room.rows)))
