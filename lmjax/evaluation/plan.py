"""Chooses how variants are computed: from counted rows, and from what a row was measured to cost.

Times are relative: 1 is a variant on full-size activations. The constants were fitted to resnet50
at 224 x 224, float32, on 2 CPU cores (`benchmarks/RESULTS.md`); on other devices nothing has been
measured, and `"auto"` is `"dense"` there.
"""

import collections
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from lmjax.evaluation import programs
from lmjax.evaluation.packing import Counts, Room, Rooms, pack
from lmjax.evaluation.programs import Job, Sharing, Static
from lmjax.masking.sparse.rows import GATHERING_WINDOWS

ENGINES = ("auto", "dense", "visible", "shared")

# Visible positions: so much for the same work, and so much for a variant, whatever it shows.
_VISIBLE_WORK = 1.1
_VISIBLE_VARIANT = 0.05
# Sharing: so much for the same work, for a position of a set of which the owner is looked for (in
# multiplications), and for a variant, whose rows are spread.
_SHARED_WORK = 1.1
_SHARED_POSITION = 400
_SHARED_VARIANT = 0.03
# Another way is compiled when it is so much faster, and would have saved so many multiplications
# (there are 7e10 a second): compiling its programs takes several seconds.
_WORTHWHILE = 0.95
_LEAST_SAVED = 2e11
# Sharing saves at most what comes before the deepest cut: of fast runs, nothing worth counting.
_LEAST_SHARED_TIME = 0.2
# Sharing is thought of up to where so much of the work is done.
_SHARING_DEPTH = 0.7
# Spare room, since rows are counted for a few groups of variants and others may need more; and the
# largest room that is used again for less.
_SPARE = 1.1
_LARGEST_ROOM = 1.3


class Plan(NamedTuple):
    """How to compute all variants.

    Attributes:
      dense: numbers of variants that are computed on full-size activations.
      visible: batches of numbers of variants, on visible positions.
      room: of the visible batches.
      sharing: what the variants share before that; None for nothing.
    """

    dense: np.ndarray
    visible: Sequence[np.ndarray] = ()
    room: Room | None = None
    sharing: Sharing | None = None

    def calls(self, job: Job) -> programs.Calls:
        """Runs it."""
        if self.sharing is not None:
            batches = self.visible or programs.batches(job, self.dense)
            yield from programs.shared_calls(job, batches, self.sharing, self.room)
            return
        yield from programs.dense_calls(job, self.dense)
        if self.room is not None:
            yield from programs.visible_calls(job, self.visible, self.room)


class Cut(NamedTuple):
    """Sharing up to a seam, weighed.

    Attributes:
      time: a variant's, on average.
      sharing: the seam, and room for the rows that were counted.
      on_visible: whether it goes on with visible positions.
    """

    time: float
    sharing: Sharing
    on_visible: bool


class _Experience:
    """What has been compiled for a predictor and shapes, and what runs would have gained by more.

    Attributes:
      asked: multiplications of all runs so far, were they dense.
      missed: of these, what each way would have saved.
      rooms: by the seam they begin at.
      sharings: by their seam.
    """

    def __init__(self):
        self.asked = 0.0
        self.missed = {"visible": 0.0, "shared": 0.0}
        self.rooms: dict[int, Rooms] = collections.defaultdict(Rooms)
        self.sharings: dict[int, list[Sharing]] = collections.defaultdict(list)


@functools.lru_cache(maxsize=64)
def _experience(static: Static, *shapes: tuple[int, ...]) -> _Experience:
    return _Experience()


def forget() -> None:
    """Forgets what earlier runs have compiled and cost, as in a new process."""
    _experience.cache_clear()


def make_plan(job: Job, engine: str, *, able: bool) -> Plan:
    """The plan for a job.

    Programs take seconds to compile and serve later runs too. So `"auto"` turns to another way when
    it would have saved this run and those before it as much as compiling costs.

    Args:
      job: the job.
      engine: one of `ENGINES`.
      able: whether the predictor knows visible positions.

    Raises:
      ValueError: another engine, or one that the predictor does not know.
    """
    _check(engine, able)
    everything = np.arange(job.num_variants)
    if engine == "dense" or not able or (engine == "auto" and jax.default_backend() != "cpu"):
        return Plan(everything)
    shapes = map(np.shape, jax.tree.leaves(job.shared))
    experience = _experience(job.static, job.image.shape, *shapes)
    work = job.num_variants * programs.count_products(job) / job.mesh.size  # of one device
    experience.asked += work
    if engine == "auto" and experience.asked < _LEAST_SAVED:
        return Plan(everything)
    counts = programs.count_rows(job)
    times = _VISIBLE_WORK * counts.work(counts.rows) + _VISIBLE_VARIANT
    if engine == "visible":
        return _on_visible(job, counts, everything, experience)
    if engine == "shared":
        return _shared(job, _best_cut(job, counts, experience), experience)

    def pays(way: str, time: float, other: float, *, compiled: bool) -> bool:
        if time >= (1 if compiled else _WORTHWHILE) * other:
            return False
        experience.missed[way] += (other - time) * work
        return compiled or experience.missed[way] > _LEAST_SAVED

    on_visible = _faster_on_visible(times)
    fastest = np.where(on_visible, times, 1).mean()
    if job.num_variants >= programs.SHARING_VARIANTS and fastest > _LEAST_SHARED_TIME:
        cut = _best_cut(job, counts, experience)
        compiled = bool(experience.sharings[cut.sharing.seam])
        if pays("shared", cut.time, fastest, compiled=compiled):
            return _shared(job, cut, experience)
    if pays("visible", fastest, 1, compiled=bool(experience.rooms[0].compiled)):
        return _on_visible(job, counts, everything[on_visible], experience)
    return Plan(everything)


def _check(engine: str, able: bool) -> None:
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}; got {engine!r}")
    if engine in ("visible", "shared") and not able:
        raise ValueError(
            f"engine {engine!r} needs an lmjax.Predictor whose removal goes through the layers of "
            "an lmjax.models classifier, such as lmjax.LayerMasking(); take 'auto' or 'dense'"
        )


def _faster_on_visible(times: np.ndarray) -> np.ndarray:
    """Which variants go to visible positions, by the times they would take there.

    All or none, unless it is worth the half-empty batches of both ways to part them.
    """
    together, parted = min(times.mean(), 1), np.minimum(times, 1).mean()
    if parted <= _WORTHWHILE * together:
        return times < 1
    return np.full(len(times), times.mean() < 1)


def _on_visible(
    job: Job, counts: Counts, variants: np.ndarray, experience: _Experience, *, seam: int = 0
) -> Plan:
    """Some variants on visible positions, the others on full-size activations."""
    packing = pack(
        counts._replace(rows=counts.rows[variants]),
        work_per_batch=2 * job.batch_size,
        compiling=_LEAST_SAVED / programs.count_products(job),
        known=experience.rooms[seam],
    )
    rest = np.setdiff1d(np.arange(job.num_variants), variants)
    return Plan(rest, [variants[batch] for batch in packing.batches()], packing.room)


def _best_cut(job: Job, counts: Counts, experience: _Experience) -> Cut:
    """The seam with the least time, and how to go on from there."""
    work = counts.products @ counts.full
    done = work.cumsum()[:-1] / work.sum()  # at each seam
    deepest = max(int((done <= _SHARING_DEPTH).sum()), 1)
    shared = programs.count_shared_rows(job, until=deepest)
    cuts = []
    # A first convolution whose windows are too many to be gathered is done in full, for all
    # variants of a group at once: that is slow.
    first = _with_spare(shared.rows[:1])[0]
    in_full = first * GATHERING_WINDOWS > programs.SHARING_VARIANTS * shared.full[0]
    groups = -(-job.num_variants // programs.SHARING_VARIANTS)
    padded = groups * programs.SHARING_VARIANTS / job.num_variants  # a group is computed whole
    for seam in range(1, deepest + 1):
        sets = shared.sets_at_seam[seam - 1]
        products = shared.products[:seam, :sets].sum(axis=0)
        per_variant = shared.rows[:sets] / programs.SHARING_VARIANTS
        prefix = _SHARED_WORK * per_variant @ products + _SHARED_POSITION * shared.full[:sets].sum()
        time = padded * (prefix / work.sum() + in_full) + _SHARED_VARIANT
        sharing = Sharing(seam, tuple(shared.rows[:sets].tolist()))
        on_visible = _VISIBLE_WORK * counts.work(counts.rows, behind=seam).mean() + _VISIBLE_VARIANT
        cuts.append(Cut(time + 1 - done[seam - 1], sharing, on_visible=False))
        cuts.append(Cut(time + on_visible, sharing, on_visible=True))

    def weighed(cut: Cut) -> float:
        return cut.time * (_WORTHWHILE if experience.sharings[cut.sharing.seam] else 1)

    return min(cuts, key=weighed)


def _shared(job: Job, cut: Cut, experience: _Experience) -> Plan:
    seam, rows = cut.sharing
    known = experience.sharings[seam]
    sharing = next((each for each in known if _serves(each, rows)), None)
    if sharing is None:
        sharing = Sharing(seam, _with_spare(rows))
        known.append(sharing)
    everything = np.arange(job.num_variants)
    if not cut.on_visible:
        return Plan(everything, sharing=sharing)
    counts = programs.count_rows(job, behind=seam)
    plan = _on_visible(job, counts, everything, experience, seam=seam)
    return plan._replace(sharing=sharing)


def _with_spare(rows: Sequence[int]) -> tuple[int, ...]:
    """Capacities for so many rows and some more, in multiples of 8."""
    return tuple((8 * np.ceil(np.array(rows) * _SPARE / 8).astype(int)).tolist())


def _serves(sharing: Sharing, rows: tuple[int, ...]) -> bool:
    """Whether a compiled program has room, and little more than is needed."""
    room = np.array(sharing.rows) / np.maximum(rows, 1)
    return bool((room >= 1).all() and room.mean() < _LARGEST_ROOM)
