"""Compiled programs that compute logits of many variants, and the calls that run them.

*dense* calls the predictor as it is; *visible* computes rows of visible positions; *shared*
computes rows that variants have in common once, and goes on in either way. A call takes several
batches, one after the other in a loop on the device: so memory is that of one batch, and on a CPU
its pages are used again.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils import sharding
from lmjax._utils.bounded import Kept, bounded_jit
from lmjax._utils.host import suggests_black_box
from lmjax.evaluation import batches as batching
from lmjax.evaluation.calls import Call
from lmjax.evaluation.jobs import Job, Static
from lmjax.evaluation.packing import Counts, Room
from lmjax.masking.sparse.allocation import Allocation, NoRoomError
from lmjax.masking.sparse.positions import Cut, Layout
from lmjax.masking.sparse.rows import resume_full, resume_rows

# Rows are counted for this many pixels of masks at a time.
_COUNTED_PIXELS = 2**22


def num_classes(job: Job) -> int:
    """Returns K of the logits, from a trace that `dense_calls` uses again."""
    rows = job.take(np.zeros(job.batch_size, int))
    arguments = job.arrays, job.images, job.shared, rows
    return _dense_batch.eval_shape(*arguments, static=job.static).shape[1]


def filled_up(variants: np.ndarray, size: int) -> np.ndarray:
    """Returns numbers of variants, filled up to a size with -1."""
    return np.pad(variants, (0, size - len(variants)), constant_values=-1)


def in_batches(variants: np.ndarray, size: int) -> list[np.ndarray]:
    """Returns consecutive variants in batches of a size."""
    return [variants[start : start + size] for start in range(0, len(variants), size)]


# Full-size activations.


def dense_calls(job: Job, variants: np.ndarray) -> Iterator[Call]:
    """Computes some variants on full-size activations."""
    batches = in_batches(variants, job.batch_size)
    per_call = job.batches_per_call(job.batch_size)
    for numbers, used in job.distribute(batches, per_call, job.batch_size):
        rows, used = sharding.divided((job.take(numbers), used), job.mesh)
        arguments = job.arrays, job.images, job.shared, rows, used
        static = {"static": job.static, "mesh": job.mesh}
        yield Call(numbers.reshape(-1), _dense_call, arguments, static)


@bounded_jit(static_argnames=("static", "mesh"))
def _dense_call(arrays, images, shared, rows, used, *, static, mesh):
    """Logits `[D * G * B, K]` of rows `[D * G, B, ...]`, G batches for each of D devices.

    Behind the first `used` `[D]` of them they are zeros.
    """

    def run(arrays, images, shared, rows, used):
        batch = functools.partial(_dense_batch, arrays, images, shared, static=static)
        return one_by_one(batch, rows, used[0])

    return batching.side_by_side(run, mesh, parts=2)(arrays, images, shared, rows, used)


@bounded_jit(static_argnames="static", kept=Kept())  # traced within others: it has no programs
def _dense_batch(arrays, images, shared, rows, *, static):
    """Logits `[B, K]` of a batch."""
    predictor = static.predictor(arrays)
    if not static.many:
        masks = static.make(shared, rows)
        with suggests_black_box("predictor"):
            return _checked(predictor(images, masks), len(masks))
    image_of, rows = rows

    def variant(image, shared, row):
        alone = jax.tree.map(lambda x: x[None], row)
        return _checked(predictor(image, static.make(shared, alone)), 1)[0]

    images, own = jax.tree.map(lambda x: x[image_of], (images, shared))
    with suggests_black_box("predictor"):
        return jax.vmap(variant)(images, own, rows)


def _checked(logits: Any, count: int) -> jax.Array:
    """float32 logits; raises ValueError unless they are `[N, K]`."""
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != count:
        got = type(logits).__name__ if shape is None else f"shape {shape}"
        raise ValueError(f"predictor must return logits [N, K], got {got} for N = {count}")
    return logits.astype(jnp.float32)


# Rows of visible positions.


def visible_calls(job: Job, batches: Sequence[np.ndarray], room: Room) -> Iterator[Call]:
    """Computes batches of variants, each of which fits the room, on rows of visible positions."""
    layout = record(job, room.variants)
    per_call = job.batches_per_call(2 * job.batch_size)
    calls = list(job.distribute(batches, per_call, room.variants))
    all_masks = job.masks_ahead(numbers for numbers, _ in calls)
    for (numbers, used), masks in zip(calls, all_masks, strict=True):
        image_of = job.image_of(numbers)
        arrays = _stacked(
            lambda i, masks=masks: Allocation(masks[i], layout, room.rows).arrays(), numbers
        )
        inputs = sharding.divided((masks, image_of, arrays, used), job.mesh)
        static = {"static": job.static, "room": room, "recorded": layout.origins, "mesh": job.mesh}
        arguments = job.arrays, job.images, *inputs
        yield Call(numbers.reshape(-1), _visible_call, arguments, static)


def _stacked(make: Callable[[int], Any], numbers: np.ndarray) -> Any:
    """Stacks what is made for each batch; batches of padding alone repeat that of the first."""
    made = {i: make(i) for i, batch in enumerate(numbers) if batch[0] >= 0}
    first = next(iter(made.values()))
    every = [made.get(i, first) for i in range(len(numbers))]
    return jax.tree.map(lambda *x: np.stack(x), *every)


@bounded_jit(static_argnames=("static", "room", "recorded", "mesh"))
def _visible_call(
    arrays, images, masks, image_of, index_arrays, used, *, static, room, recorded, mesh
):
    """As `_dense_call`, of masks `[D * G, V, H, W]` and index arrays `[D * G, ...]`."""

    def run(arrays, images, masks, image_of, index_arrays, used):
        def batch(inputs):
            masks, image_of, index_arrays = inputs
            layout = Layout(room.rows, index_arrays, num_variants=room.variants, recorded=recorded)
            return _on_rows(static, arrays, images, image_of, masks, layout)

        return one_by_one(batch, (masks, image_of, index_arrays), used[0])

    inputs = masks, image_of, index_arrays, used
    return batching.side_by_side(run, mesh, parts=4)(arrays, images, *inputs)


def _on_rows(static: Static, arrays, images, image_of, masks, layout: Layout) -> jax.Array:
    """Logits `[V, K]` of one batch."""
    shown = images if image_of is None else jax.tree.map(lambda x: x[image_of], images)
    logits = static.predictor(arrays).on_visible(shown, masks, layout)
    return logits.astype(jnp.float32)


def one_by_one(batch: Callable, rows, used) -> jax.Array:
    """Returns results of `batch` on the first `used` of G batches; zeros for the others."""

    def nth(i):
        return jax.tree.map(lambda x: x[i], rows)

    batch = jax.jit(batch)  # traced for its shape, and not again in the loop
    one = jax.eval_shape(batch, nth(0))
    results = jnp.zeros((len(jax.tree.leaves(rows)[0]), *one.shape), one.dtype)
    results = jax.lax.fori_loop(0, used, lambda i, r: r.at[i].set(batch(nth(i))), results)
    return results.reshape(-1, *one.shape[1:])


# Rows that variants share.


class Sharing(NamedTuple):
    """The part of the network that the variants of a group share, with its capacities.

    Attributes:
      seam: up to which rows are shared.
      rows: capacity of each set of positions up to there, for all variants of a group.
      variants: of a group, at most.
      batches: of a group behind the seam, at most.
      batch_size: variants of such a batch, at most.
    """

    seam: int
    rows: tuple[int, ...]
    variants: int
    batches: int
    batch_size: int


Group = Sequence[np.ndarray]  # variants in batches behind the seam


def shared_calls(
    job: Job, groups: Sequence[Group], prefix: Layout, seam: Sharing, room: Room | None
) -> Iterator[Call]:
    """Computes groups of variants that share rows up to a seam, a group on each device at a time.

    Variants that the shared part has no room for are computed on full-size activations.

    Args:
      job: the job.
      groups: batches of variants, each of which fits the room behind the seam.
      prefix: the layout up to the seam.
      seam: the seam and the room up to there.
      room: of a batch behind the seam; None computes there on full-size activations.
    """
    suffix = record(job, seam.batch_size, start=seam.seam, full=room is None)
    parts = _Parts(job, seam, room, prefix, suffix)
    ready: list = []
    for group in _fitting(parts, groups):
        if isinstance(group, np.ndarray):
            yield from dense_calls(job, group)
            continue
        ready.append(group)
        if len(ready) == job.mesh.size:
            yield _call_of_groups(parts, ready)
            ready = []
    if ready:
        yield _call_of_groups(parts, ready)


class _Parts(NamedTuple):
    """A job in two parts: the network up to a seam, whose rows variants share, and behind it.

    Attributes:
      job, seam, room: as in `shared_calls`.
      prefix, suffix: the layouts of both.
    """

    job: Job
    seam: Sharing
    room: Room | None
    prefix: Layout
    suffix: Layout


def _fitting(parts: _Parts, groups: Sequence[Group]) -> Iterator:
    """Groups with their index arrays, split until they have room; variants that have none."""
    job, seam = parts.job, parts.seam
    numbers = (filled_up(np.concatenate(group), seam.variants) for group in groups)
    all_masks = job.masks_ahead(numbers, ahead=job.mesh.size)
    for whole, masks in zip(groups, all_masks, strict=True):
        left = [(whole, masks[: sum(map(len, whole))])]
        while left:
            group, masks = left.pop()
            try:
                yield _with_arrays(parts, group, masks)
            except NoRoomError:
                if len(masks) == 1:
                    yield group[0]
                else:
                    left += _halves(group, masks)[::-1]


def _halves(group: Group, masks: np.ndarray) -> list[tuple[Group, np.ndarray]]:
    if len(group) > 1:
        middle = len(group) // 2
        first, second = group[:middle], group[middle:]
    else:
        (batch,) = group
        middle = len(batch) // 2
        first, second = [batch[:middle]], [batch[middle:]]
    count = sum(map(len, first))
    return [(first, masks[:count]), (second, masks[count:])]


def _with_arrays(parts: _Parts, group: Group, shown: np.ndarray) -> tuple:
    """Numbers `[batches, V]` of a group with its masks, and what `_shared_call` takes of it."""
    job, seam, room, prefix, suffix = parts
    size = seam.batch_size
    numbers = np.full((seam.batches, size), -1)
    for row, batch in zip(numbers, group, strict=False):
        row[: len(batch)] = batch
    all_numbers = filled_up(np.concatenate(group), seam.variants)
    image_of = job.image_of(all_numbers)
    masks = np.zeros((seam.variants, *shown.shape[1:]), bool)
    masks[: len(shown)] = shown
    shared = Allocation(masks, prefix, seam.rows, image_of=image_of)
    at_seam = prefix.passed[-1].positions
    index, missing = shared.index(at_seam), shared.capacity(at_seam)
    starts = np.cumsum([0, *map(len, group)])

    def behind(i: int) -> list[np.ndarray]:
        of_batch = slice(starts[i], starts[i + 1])
        outer = np.full((size, *index.shape[1:]), missing, np.int32)
        own = np.zeros((size, *masks.shape[1:]), bool)
        outer[: len(group[i])], own[: len(group[i])] = index[of_batch], masks[of_batch]
        rows = None if room is None else room.rows
        return Allocation(own, suffix, rows, outer=outer, outer_rows=missing).arrays()

    arrays = _stacked(behind, numbers)
    own_images = job.image_of(numbers)
    # Of each batch, the places of its masks among the group's.
    places = np.full(numbers.shape, len(shown) - 1, np.int32)
    for i, batch in enumerate(group):
        places[i, : len(batch)] = np.arange(starts[i], starts[i + 1])
    used = np.int32(len(group))
    return numbers, masks, image_of, shared.arrays(), own_images, places, arrays, used


def _call_of_groups(parts: _Parts, ready: list[tuple]) -> Call:
    job, seam, room, prefix, suffix = parts
    filled = ready + [(*ready[0][:-1], np.int32(0))] * (job.mesh.size - len(ready))
    numbers = np.concatenate([group[0] for group in filled])
    numbers[len(ready) * seam.batches :] = -1
    inputs = jax.tree.map(lambda *x: np.stack(x), *(group[1:] for group in filled))
    static = {"static": job.static, "seam": seam, "room": room, "mesh": job.mesh}
    static["recorded"] = prefix.origins, suffix.origins
    inputs = sharding.divided(inputs, job.mesh)
    arguments = job.arrays, job.images, inputs
    return Call(numbers.reshape(-1), _shared_call, arguments, static)


@bounded_jit(static_argnames=("static", "seam", "room", "recorded", "mesh"))
def _shared_call(arrays, images, inputs, *, static, seam, room, recorded, mesh):
    """Logits `[D * batches * V, K]` of a group for each of D devices."""
    up_to_seam, behind = recorded

    def run(arrays, images, *inputs):
        masks, image_of, prefix, *behind_seam, used = jax.tree.map(lambda x: x[0], inputs)
        options = {"recorded": up_to_seam, "sharing": True, "stop": seam.seam}
        layout = Layout(seam.rows, prefix, num_variants=seam.variants, **options)
        x = _rows_at_cut(static, arrays, images, image_of, masks, layout)
        size = seam.batch_size

        def batch(inputs):
            image_of, places, index_arrays = inputs
            resume = resume_full(x) if room is None else resume_rows(x)
            layout = Layout(
                room and room.rows,
                index_arrays,
                num_variants=size,
                recorded=behind,
                start=seam.seam,
                resume=resume,
            )
            # What lies before the seam is not computed; a removal may read the masks behind it.
            return _on_rows(static, arrays, images, image_of, masks[places], layout)

        return one_by_one(batch, tuple(behind_seam), used)

    return batching.side_by_side(run, mesh, parts=len(inputs))(arrays, images, *inputs)


def _rows_at_cut(static: Static, arrays, images, image_of, masks, layout: Layout) -> jax.Array:
    """Rows `[R, C]` at the seam where the layout stops."""
    try:
        _on_rows(static, arrays, images, image_of, masks, layout)
    except Cut as cut:
        return cut.rows.x
    raise ValueError(f"the network has no seam number {layout.stop}")


# What networks need, before anything is computed.


def record(job: Job, variants: int = 2, **options) -> Layout:
    """Returns the layout of the predictor's network.

    Args:
      job: the job.
      variants: of a batch. Of more than two the layout is that of two; of one it may differ: an
        array with an entry for each variant cannot be told from one that all share.
      **options: `sharing`, `stop` and `start` of `Layout`; with `start` also `full`, whether the
        network goes on from there on full-size activations.
    """
    shapes = jax.eval_shape(lambda *x: x, job.arrays, job.images)
    leaves, tree = jax.tree.flatten(shapes)
    key = tuple((x.shape, x.dtype) for x in leaves), tuple(sorted(options.items()))
    return _record(job.static, tree, *key, job.spatial_shape, min(variants, 2))


@functools.lru_cache(maxsize=256)
def _record(static, tree, shapes, options, spatial_shape, variants) -> Layout:
    options = dict(options)
    if "start" in options:
        options["resume"] = resume_full() if options.pop("full") else resume_rows()
    layout = Layout(num_variants=variants, **options)
    arrays, images = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*x) for x in shapes])

    def trace(arrays, images):
        image_of = jnp.zeros(variants, int) if static.many else None
        masks = jnp.zeros((variants, *spatial_shape), bool)
        with contextlib.suppress(Cut):
            _on_rows(static, arrays, images, image_of, masks, layout)
        layout.forget_arrays()

    jax.eval_shape(trace, arrays, images)
    return layout


def count_rows(job: Job, layout: Layout, variants: np.ndarray) -> Counts:
    """Counts the rows that variants need on visible positions, in the sets of a layout."""
    height, width = job.spatial_shape
    size = max(_COUNTED_PIXELS // (height * width), 1)
    counted = [Allocation(job.masks(some), layout).counts() for some in in_batches(variants, size)]
    return Counts(np.concatenate(counted), layout.full(), layout.costs())


def count_shared_rows(job: Job, layout: Layout, group: np.ndarray, variants: int) -> np.ndarray:
    """Counts the rows that a group of variants needs where they share them, `[P]`.

    Args:
      job: the job.
      layout: up to a seam.
      group: the variants.
      variants: of a group, at most.
    """
    masks = job.masks(filled_up(group, variants))[: len(group)]
    return Allocation(masks, layout, image_of=job.image_of(group)).counts().sum(axis=0)
