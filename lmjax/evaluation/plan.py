"""Chooses how variants are computed, from the call alone.

A plan follows from the masks, the shapes, the predictor, the device and how many variants are
expected in all; never from what the process did before. So equal calls give equal bits, in any
order and in any process.

Times are in units of a wholly visible variant on full-size activations, and compiling is counted in
multiplications. The constants here and in `lmjax.masking.sparse.positions` were fitted on CPU cores
to bottlenecks (resnet50, densenet121), basic blocks (resnet18, resnet18_digits), plain convolutions
(vgg11), grouped ones (regnet_y_400mf) and depthwise ones (mobilenet_v2, convnext_tiny), float32
(`benchmarks/RESULTS.md`). On GPU and TPU nothing has been measured, and `"auto"` is `"dense"`.
"""

import math
from collections.abc import Iterator, Sequence, Sized
from typing import NamedTuple

import jax
import numpy as np

from lmjax._utils.checks import check_choice
from lmjax.evaluation import programs
from lmjax.evaluation.calls import Call, most_threads
from lmjax.evaluation.packing import Counts, Packing, Room, fill, pack
from lmjax.evaluation.programs import Group, Job, Sharing
from lmjax.masking.sparse.positions import Layout

ENGINES = ("auto", "dense", "visible", "shared")

# On rows a variant takes some time that does not depend on what it shows.
_VISIBLE_VARIANT = 0.1
# Looking for the owner of a position whose row is shared, on the host, costs as much as this number
# of multiplications.
_SHARED_POSITION = 7500
# Variants that share rows: on each device at least, for it to be considered, and in a group a
# quarter of that; in a group at most; and there is room for a multiple of the last number. For
# memory's sake, groups that are computed at a time on a device, two on a CPU that is one device,
# have this number of pixels at most (of images larger than 448 x 448 they would be too few).
_LEAST_SHARING, _MOST_SHARING, _STEP_OF_SHARING = 64, 128, 32
_PIXELS_OF_GROUPS = 128 * 224 * 224
# Multiplications that could be done in the time by which a convolution, and all that is made for
# it, takes longer to trace and compile than on full-size activations.
_COMPILING_VISIBLE = 8e9
_COMPILING_SHARED = 14e9
# Programs of a run of many calls: batches of masks that are alike need rooms that differ a bit.
_PROGRAMS_OF_A_RUN = 4
# Another way is taken where it is expected to need less than this part of the time of dense.
_WORTHWHILE = 0.95
# Masks are looked at only where half of the time of dense would be worth this many compilations:
# looking takes some time too, and most masks save less.
_LEAST_COMPILATIONS = 1.5
# Variants that are counted to choose a way; all are where they are packed.
_SAMPLED_VARIANTS = 32
# Sharing is considered up to where this part of the work is done.
_SHARING_DEPTH = 0.7
# Spare rows of groups, since only two are counted; capacities rise by steps of a ladder.
_SPARE, _STEP = 1.1, 2 ** (1 / 4)


class Plan(NamedTuple):
    """The ways in which variants of a job are computed.

    Attributes:
      dense: numbers of variants that are computed on full-size activations.
      visible: batches of numbers of variants, on rows of visible positions.
      room: of the visible batches, and of those behind a seam.
      groups: of variants that share rows.
      prefix: the layout of the network up to the seam before which they share rows, or None.
      seam: that seam and the room for rows up to it; None where there is no prefix.
    """

    dense: np.ndarray
    visible: Sequence[np.ndarray] = ()
    room: Room | None = None
    groups: Sequence[Group] = ()
    prefix: Layout | None = None
    seam: Sharing | None = None

    def calls(self, job: Job) -> Iterator[Call]:
        """Yields calls that compute all variants."""
        if self.prefix is not None and self.seam is not None:
            yield from programs.shared_calls(job, self.groups, self.prefix, self.seam, self.room)
        if len(self.dense):
            yield from programs.dense_calls(job, self.dense)
        if self.room is not None and self.prefix is None:
            yield from programs.visible_calls(job, self.visible, self.room)


def make_plan(job: Job, engine: str, *, engines: Sequence[str]) -> Plan:
    """Returns the plan for a job.

    Args:
      job: the job.
      engine: one of `ENGINES`.
      engines: those that the predictor supports besides "auto".

    Raises:
      ValueError: another engine, or one that the predictor does not support.
    """
    check_engine(engine, engines)
    everything = np.arange(job.num_variants)
    if engine == "dense" or (engine == "auto" and not _may_pay(job, engines)):
        return Plan(everything)
    layout = programs.record(job)
    if not layout.sets:  # no layer computes rows, as where a dense layer reads the pixels
        return Plan(everything)
    if engine == "auto":
        return _auto_plan(job, layout)
    counts = programs.count_rows(job, layout, everything)
    cut = _best_cut(job, counts) if engine == "shared" else None
    return _visible_plan(job, counts, everything) if cut is None else shared_plan(job, cut)


def check_engine(engine: str, engines: Sequence[str]) -> None:
    """Raises ValueError unless there is such an engine, and a predictor supports it.

    Args:
      engine: the engine.
      engines: those that the predictor supports besides "auto".
    """
    check_choice("engine", engine, ENGINES)
    if engine not in ("auto", *engines):
        raise ValueError(
            f"engine {engine!r} needs an lmjax.Predictor whose removal goes through the layers of "
            "an lmjax.models classifier, such as lmjax.LayerMasking(); take 'auto' or 'dense'"
        )


def _may_pay(job: Job, engines: Sequence[str]) -> bool:
    """Whether anything but dense could pay, before masks are looked at."""
    if jax.default_backend() != "cpu" or "visible" not in engines:
        return False
    try:
        layout = programs.record(job)
    except Exception:  # a module of the user's own may take full-size activations only
        return False
    return _worth_a_look(job, layout, _COMPILING_VISIBLE)


def _worth_a_look(job: Job, layout: Layout, per_convolution: float) -> bool:
    """Whether there is enough to compute for another way than dense to pay."""
    return _work(job, layout) / 2 > _LEAST_COMPILATIONS * _compiling(job, layout, per_convolution)


def _work(job: Job, layout: Layout) -> float:
    """Returns what all variants that are expected would cost one device, in multiplications."""
    return job.expected * float(layout.costs_at_full_size().sum()) / job.mesh.size


def _compiling(job: Job, layout: Layout, per_convolution: float) -> float:
    """Multiplications that a way loses to compiling, more than dense does."""
    calls = max(1, round(job.expected / job.num_variants))
    return min(calls, _PROGRAMS_OF_A_RUN) * layout.convolutions * per_convolution


def _auto_plan(job: Job, layout: Layout) -> Plan:
    count, work = job.num_variants, _work(job, layout)
    sample = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_VARIANTS)).astype(int))
    counts = programs.count_rows(job, layout, sample)
    times = _times(counts, layout)
    visible = _fastest(times).mean() + _compiling(job, layout, _COMPILING_VISIBLE) / work
    ways = {"dense": 1.0, "visible": visible}
    cut = None
    enough = count >= _LEAST_SHARING * job.mesh.size and _most_sharing(job) >= _LEAST_SHARING // 4
    if enough and _worth_a_look(job, layout, _COMPILING_SHARED):
        compiling = _compiling(job, layout, _COMPILING_SHARED) / work
        cut = _best_cut(job, counts, most=_WORTHWHILE - compiling)
        if cut is not None:
            ways["shared"] = cut.time + compiling
    best = min(ways, key=lambda way: ways[way])
    if ways[best] > _WORTHWHILE:
        return Plan(np.arange(count))
    if best == "shared" and cut is not None:
        return shared_plan(job, cut)
    counts = programs.count_rows(job, layout, np.arange(count))
    return _visible_plan(job, counts, np.flatnonzero(_on_visible(_times(counts, layout))))


def _on_visible(times: np.ndarray) -> np.ndarray:
    """Which variants go to rows of visible positions, by the times they would take there.

    All of them, unless it is worth the half-empty batches of both ways to part them.
    """
    if np.minimum(times, 1).mean() <= _WORTHWHILE * times.mean():
        return times < 1
    return np.ones(len(times), bool)


def _fastest(times: np.ndarray) -> np.ndarray:
    """The time of each variant, the way that it goes."""
    return np.where(_on_visible(times), times, 1)


def _times(counts: Counts, layout: Layout, *, behind: int = 0) -> np.ndarray:
    """Time of each variant on rows of visible positions, behind a seam or in all."""
    work = counts.rows @ counts.costs[behind:].sum(axis=0)
    return work / layout.costs_at_full_size().sum() + _VISIBLE_VARIANT


def _visible_plan(job: Job, counts: Counts, variants: np.ndarray) -> Plan:
    """Some variants on rows of visible positions, the others on full-size activations."""
    few = counts._replace(rows=counts.rows[variants])
    packing = pack(few, work_per_batch=min(2 * job.batch_size, len(variants)))
    batches = [variants[batch] for batch in packing.batches()]
    rest = np.setdiff1d(np.arange(job.num_variants), variants)
    return Plan(rest, batches, packing.room)


class Cut(NamedTuple):
    """Sharing up to a seam, weighed.

    Attributes:
      time: a variant's, on average.
      prefix: the layout up to the seam.
      rows: capacity of each set up to there, for a group.
      on_visible: whether it goes on with rows of visible positions.
    """

    time: float
    prefix: Layout
    rows: tuple[int, ...]
    on_visible: bool


def _best_cut(job: Job, counts: Counts, *, most: float = math.inf) -> Cut | None:
    """The seam with the least time, and how to go on from there.

    Args:
      job: the job.
      counts: of visible rows, of some variants.
      most: the most time that is of use. Looking for owners is what takes long, so one group is
        counted first: more of them can only need more rows.

    Returns:
      The cut; None where there is no seam, or where all would take longer.
    """
    whole = programs.record(job)
    work = whole.costs_at_full_size()
    if len(work) < 2 or not work.any():
        return None
    done = work.cumsum()[:-1] / work.sum()  # at each seam
    deepest = max(int((done <= _SHARING_DEPTH).sum()), 1)
    layout = programs.record(job, stop=deepest, sharing=True)
    groups, room = _groups(job)
    rows, best = np.zeros(len(layout.sets), int), None
    for i in dict.fromkeys((len(groups) // 2, len(groups) - 1)):
        counted = programs.count_shared_rows(job, layout, groups[i], room)
        rows = np.maximum(rows, counted)
        best = min(_cuts(job, counts, layout, rows), key=lambda cut: cut.time)
        if best.time > most:
            return None
    return best


def _cuts(job: Job, counts: Counts, layout: Layout, rows: np.ndarray) -> list[Cut]:
    """All seams up to that of a layout, and both ways to go on.

    Args:
      job: the job.
      counts: of visible rows, of some variants.
      layout: up to the deepest seam, of shared rows.
      rows: that a group needs in each set of the layout.
    """
    (groups, room), whole = _groups(job), programs.record(job)
    work = whole.costs_at_full_size()
    done = work.cumsum() / work.sum()  # at each seam
    capacities = _on_ladder(rows, layout, room)
    padded = room * len(groups) / job.num_variants
    full, costs = layout.full(), layout.costs()
    cuts = []
    for seam in range(1, layout.seams + 1):
        prefix = layout.until(seam)
        sets = len(prefix.sets)
        computed = costs[:seam, :sets].sum(axis=0) @ capacities[:sets] / room
        owners = _SHARED_POSITION * full[:sets].sum()
        time = padded * (computed + owners) / work.sum()
        on_visible = _times(counts, whole, behind=seam).mean()
        full_size = 1 - done[seam - 1]
        cuts.append(Cut(time + full_size, prefix, capacities[:sets], on_visible=False))
        cuts.append(Cut(time + on_visible, prefix, capacities[:sets], on_visible=True))
    return cuts


class _Groups(NamedTuple):
    """Groups of variants that share rows.

    Attributes:
      variants: their numbers, of one group each; the last one may be smaller.
      room: how many variants there is room for in each.
    """

    variants: list[np.ndarray]
    room: int


def _groups(job: Job) -> _Groups:
    """Returns the variants in groups of one size, which devices divide evenly."""
    devices, most = job.mesh.size, _most_sharing(job)
    count = -(-job.num_variants // (most * devices)) * devices
    groups = programs.in_batches(np.arange(job.num_variants), -(-job.num_variants // count))
    room = -(-_most(groups) // _STEP_OF_SHARING) * _STEP_OF_SHARING
    return _Groups(groups, min(room, most))


def _most_sharing(job: Job) -> int:
    """Returns how many variants a group has at most: fewer of large images."""
    # However many cores there are: a plan follows from the call alone.
    pixels = _PIXELS_OF_GROUPS // most_threads(job.mesh)
    return max(min(_MOST_SHARING, pixels // math.prod(job.spatial_shape)), 1)


def shared_plan(job: Job, cut: Cut) -> Plan:
    """Returns the plan for all variants, sharing rows up to a seam."""
    (of_groups, room), nothing = _groups(job), np.zeros(0, int)
    if not cut.on_visible:
        groups = [programs.in_batches(group, job.batch_size) for group in of_groups]
        batches = -(-room // job.batch_size)
        seam = Sharing(cut.prefix.seams, cut.rows, room, batches, job.batch_size)
        return Plan(nothing, groups=groups, prefix=cut.prefix, seam=seam)
    behind = programs.record(job, start=cut.prefix.seams, full=False)
    counts = programs.count_rows(job, behind, np.arange(job.num_variants))
    share = _share(counts, programs.record(job))
    packed = pack(counts, work_per_batch=max(2 * job.batch_size * share, 1))
    groups = [_packed(packed, counts, group) for group in of_groups]
    batches = int(np.ceil(_most(groups) / 2) * 2)
    seam = Sharing(cut.prefix.seams, cut.rows, room, batches, packed.room.variants)
    return Plan(nothing, room=packed.room, groups=groups, prefix=cut.prefix, seam=seam)


def _most(groups: Sequence[Sized]) -> int:
    return max(map(len, groups))


def _share(counts: Counts, layout: Layout) -> float:
    """The part of a variant's work that is behind a seam."""
    whole = layout.full() @ layout.costs().sum(axis=0)
    return float(counts.full @ counts.costs.sum(axis=0) / whole)


def _packed(packing: Packing, counts: Counts, group: np.ndarray) -> list[np.ndarray]:
    """Variants of a group in batches that fit the room."""
    filled = fill(packing.room, counts._replace(rows=counts.rows[group]))
    assert filled is not None  # every single variant fits
    return [group[batch] for batch in filled.batches()]


def _on_ladder(rows: np.ndarray, layout: Layout, variants: int) -> tuple[int, ...]:
    """Returns capacities on the ladder for the rows of a group and spare ones, multiples of 8."""
    full = layout.full()[: len(rows)] * variants
    steps = np.ceil(np.log(np.maximum(_SPARE * rows, 1) / full) / np.log(_STEP))
    capacity = np.minimum(full * _STEP**steps, full)
    return tuple((8 * np.ceil(np.maximum(capacity, 1) / 8).astype(int)).tolist())
