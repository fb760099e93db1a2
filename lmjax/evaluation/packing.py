"""Packs variants into batches with room for a fixed number of rows, from counted rows.

A network on rows of visible positions (`lmjax.masking.sparse`) has a few sets of positions, each
with a static capacity. Capacities come from a fixed ladder, so that calls whose masks are alike
find the same compiled program. Work is measured in wholly visible variants: 1 is what the rows of
one of them cost.
"""

import itertools
from typing import NamedTuple

import numpy as np

# Spare room over the average batch: batches differ in how their rows spread over the sets.
_SPARE = 1.04
# Steps of the ladder: of sets with much of the work, of others with many rows, of the rest, whose
# spare rows cost next to nothing, and of the number of variants in a batch.
_STEP, _STEP_OF_ROWS, _STEP_OF_REST, _STEP_OF_VARIANTS = 2 ** (1 / 4), 2 ** (1 / 2), 4, 2 ** (1 / 2)
_MUCH = 0.02  # of all work, or of all rows
# Every variant also brings its pixels, which are filled before the first convolution: for their
# memory's sake, variants count for no less than this.
_LEAST_WORK = 0.1


class Counts(NamedTuple):
    """Rows that variants need, and what they cost.

    Attributes:
      rows: `[N, P]`, of each variant in each set of positions.
      full: `[P]`, of a wholly visible variant.
      costs: `[seams + 1, P]`, of a row of each set, between any two seams.
    """

    rows: np.ndarray
    full: np.ndarray
    costs: np.ndarray

    def work(self, rows: np.ndarray) -> np.ndarray:
        """Returns the work `[...]` of `[..., P]` rows."""
        costs = self.costs.sum(axis=0)
        return rows @ costs / max(self.full @ costs, 1)


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
        """Returns the variants' numbers in each batch."""
        return [np.arange(a, b) for a, b in itertools.pairwise(self.starts)]


def pack(counts: Counts, *, work_per_batch: float) -> Packing:
    """Packs variants into batches, in the room that takes them with the least work.

    Args:
      counts: of all variants, in order.
      work_per_batch: what a batch holds.
    """
    packings = [fill(room, counts) for room in rooms_for(counts, work_per_batch)]
    return min((p for p in packings if p is not None), key=lambda packing: packing.work)


def rooms_for(counts: Counts, work_per_batch: float) -> list[Room]:
    """Returns rooms for batches of about equal work: for the average of them, and for the largest.

    Every single variant has room in them.
    """
    work = np.maximum(counts.work(counts.rows), _LEAST_WORK)
    done = work.cumsum()
    batches = min(int(np.ceil(done[-1] / work_per_batch)), len(work))
    starts = np.searchsorted(done - work / 2, np.arange(batches) * done[-1] / batches)
    starts = np.unique(np.minimum(starts, len(work) - 1))
    rows = np.add.reduceat(counts.rows, starts)
    variants = np.diff(starts, append=len(work))
    single = counts.rows.max(axis=0)
    return [
        _room(counts, np.maximum(needed, single), number)
        for needed, number in (
            (_SPARE * rows.mean(axis=0), _SPARE * variants.mean()),
            (rows.max(axis=0), variants.max()),
        )
    ]


def _room(counts: Counts, rows: np.ndarray, variants: float) -> Room:
    """Returns the room on the ladder that holds some rows and variants.

    Every set has a step of its own, relative to its full size: they differ much in how full they
    are. The coarser the steps, the more calls that are alike find the same room.
    """
    share, work = rows / counts.full, rows * counts.costs.sum(axis=0)
    many = np.where(rows > _MUCH * rows.sum(), _STEP_OF_ROWS, _STEP_OF_REST)
    computed = np.where(work > _MUCH * work.sum(), _STEP, _STEP_OF_ROWS)
    steps = _up(share, np.where(work > 0, computed, many))
    number = int(np.ceil(_up(np.asarray(variants, float), _STEP_OF_VARIANTS) - 1e-9))
    capacity = np.minimum(steps, number) * counts.full
    return Room(number, tuple((8 * np.ceil(np.maximum(capacity, 1) / 8).astype(int)).tolist()))


def _up(x: np.ndarray, step: np.ndarray | float) -> np.ndarray:
    """The next power of a step; 0 for 0."""
    exponent = np.ceil(np.log(np.maximum(x, 1e-9)) / np.log(step) - 1e-9)
    return np.where(x > 0, step**exponent, 0)


def fill(room: Room, counts: Counts) -> Packing | None:
    """Packs consecutive variants, batch after batch as they fit; None where one alone does not."""
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
    work = (len(starts) - 1) * float(counts.work(np.array(room.rows)))
    return Packing(room, np.array(starts), work)
