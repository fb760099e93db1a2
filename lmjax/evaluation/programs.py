"""Two ways to compute the logits of many variants, each as a row of calls of one compiled program.

*dense* calls the predictor as it is; *visible* computes visible positions only. A call takes
several batches, one after the other in a loop on the device: so memory is that of one batch, and on
a CPU its pages are used again.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax._utils import sharding
from lmjax._utils.sizes import power_of_two
from lmjax.evaluation import dealing
from lmjax.evaluation.packing import Counts, Room
from lmjax.masking.sparse.rows import Capacities, Counting
from lmjax.masking.sparse.sharing import (
    Prefix,
    SharedCounting,
    Suffix,
    count_behind,
    full_size,
    visible_rows,
)

# Variants that share rows: more share more, and need more memory.
SHARING_VARIANTS = 64
# For how many groups of them rows are counted.
_COUNTED_GROUPS = 3
# Pixels of one batch when rows are counted.
_COUNTED_PIXELS = 2**22


class Static(NamedTuple):
    """What programs are compiled for, besides shapes.

    Attributes:
      tree: the predictor's structure.
      leaves: its leaves, None where an array belongs.
      is_array: which leaves are arrays.
      make: of the mask family, where there is one.
    """

    tree: Any
    leaves: tuple
    is_array: tuple[bool, ...]
    make: Callable | None

    def predictor(self, arrays: list) -> Callable:
        """The predictor, its arrays put back."""
        arrays = iter(arrays)
        leaves = [
            next(arrays) if array else leaf
            for leaf, array in zip(self.leaves, self.is_array, strict=True)
        ]
        return jax.tree.unflatten(self.tree, leaves)


class Job(NamedTuple):
    """Checked arguments of `evaluate`, arrays on the device.

    Attributes:
      static: what programs are compiled for.
      arrays: of the predictor.
      image: `[H, W, C]`.
      shared: of the mask family.
      rows: of the mask family, on the host.
      num_variants: N.
      batch_size: variants of a dense batch.
      pixels_per_call: how many pixels of variants a call takes on a device at most, if it has
        several batches.
      mesh: of the devices.
    """

    static: Static
    arrays: list[jax.Array]
    image: jax.Array
    shared: Any
    rows: Any
    num_variants: int
    batch_size: int
    pixels_per_call: int
    mesh: Mesh

    def batches_per_call(self, variants_per_batch: float) -> int:
        """How many batches a call takes on each device."""
        pixels = variants_per_batch * self.image.shape[0] * self.image.shape[1]
        return max(int(self.pixels_per_call / pixels), 1)

    def take(self, variants: np.ndarray) -> Any:
        """Rows of some variants, in the shape of `variants`; any row where that is -1."""
        return jax.tree.map(lambda x: x[np.maximum(variants, 0)], self.rows)

    def deal(self, batches: Sequence[np.ndarray], per_call: int, length: int) -> Iterator[tuple]:
        """`dealing.deal` for the devices of this job."""
        size = self.mesh.size
        return dealing.deal(batches, per_call=per_call, length=length, devices=size)

    def arguments(self, rows) -> tuple:
        """What every program takes."""
        return self.arrays, self.image, self.shared, rows


class Sharing(NamedTuple):
    """What is shared.

    Attributes:
      seam: up to which rows are shared.
      rows: capacity of each set of positions up to there, for all variants of a call.
    """

    seam: int
    rows: tuple[int, ...]


# Numbers of variants `[n]`, -1 for padding; their logits `[n, K]`; and, for each of equal parts,
# False where they had no room, so that the logits are wrong (`shared_calls` tries without knowing).
Calls = Iterator[tuple[np.ndarray, jax.Array, jax.Array | np.ndarray]]


def num_classes(job: Job) -> int:
    """K of the logits, from a trace that `dense_calls` uses again."""
    rows = job.take(np.zeros(job.batch_size, int))
    return _dense_batch.eval_shape(*job.arguments(rows), static=job.static).shape[1]


def dense_calls(job: Job, variants: np.ndarray) -> Calls:
    """Some variants on full-size activations."""
    per_call, static = job.batches_per_call(job.batch_size), job.static
    for numbers, used in job.deal(batches(job, variants), per_call, job.batch_size):
        rows, used = sharding.divided((job.take(numbers), used), job.mesh)
        logits = _dense_call(*job.arguments(rows), used, static=static, mesh=job.mesh)
        yield numbers.reshape(-1), logits, np.array([True])


def batches(job: Job, variants: np.ndarray) -> list[np.ndarray]:
    """Variants in dense batches."""
    starts = range(0, len(variants), job.batch_size)
    return [variants[start : start + job.batch_size] for start in starts]


def visible_calls(job: Job, batches: Sequence[np.ndarray], room: Room) -> Calls:
    """Variants that are packed into batches, on visible positions only."""
    per_call = job.batches_per_call(2 * job.batch_size)
    static = {"static": job.static, "room": room, "mesh": job.mesh}
    for numbers, used in job.deal(batches, per_call, room.variants):
        rows, used = sharding.divided(((job.take(numbers), numbers >= 0), used), job.mesh)
        logits = _visible_call(*job.arguments(rows), used, **static)
        yield numbers.reshape(-1), logits, np.array([True])


def shared_calls(
    job: Job, batches: Sequence[np.ndarray], sharing: Sharing, room: Room | None
) -> Calls:
    """Variants that share rows up to a seam, all those of a call on one device.

    Args:
      job: the job.
      batches: variants of each batch behind the seam.
      sharing: the seam and the room up to there.
      room: of the batches behind the seam; None computes there on full-size activations.
    """
    size = job.batch_size if room is None else room.variants
    per_call = -(-SHARING_VARIANTS // size)  # batches are seldom full
    static = {"static": job.static, "sharing": sharing, "room": room, "mesh": job.mesh}
    for numbers, used in job.deal(batches, per_call, size):
        rows, used = sharding.divided(((job.take(numbers), numbers >= 0), used), job.mesh)
        yield numbers.reshape(-1), *_shared_call(*job.arguments(rows), used, **static)


@functools.partial(jax.jit, static_argnames=("static", "mesh"))
def _dense_call(arrays, image, shared, rows, used, *, static, mesh):
    """Logits `[D * G * B, K]` of rows `[D * G, B, ...]`, G batches for each of D devices; zeros
    behind the first `used` `[D]` of them."""

    def run(arrays, image, shared, rows, used):
        batch = functools.partial(_dense_batch, arrays, image, shared, static=static)
        return one_by_one(batch, rows, used[0])

    return dealing.side_by_side(run, mesh, parts=2)(arrays, image, shared, rows, used)


@functools.partial(jax.jit, static_argnames=("static", "room", "mesh"))
def _visible_call(arrays, image, shared, rows, used, *, static, room, mesh):
    """As `_dense_call`, of (rows `[D * G, V, ...]`, which of them are no padding `[D * G, V]`)."""

    def run(arrays, image, shared, rows, used):
        batch = functools.partial(_visible_batch, arrays, image, shared, static=static, room=room)
        return one_by_one(batch, rows, used[0])

    return dealing.side_by_side(run, mesh, parts=2)(arrays, image, shared, rows, used)


@functools.partial(jax.jit, static_argnames=("static", "sharing", "room", "mesh"))
def _shared_call(arrays, image, shared, rows, used, *, static, sharing, room, mesh):
    """As `_visible_call`; with them, whether a device's variants had room in the shared part."""

    def run(arrays, image, shared, rows, used):
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
        prefix = Prefix(*sharing)
        static.predictor(arrays).on_visible(image, _masks(static, shared, flat), prefix)
        x, positions = prefix.cut
        index = positions.index.reshape(*rows[1].shape, *positions.index.shape[1:])
        needed = jnp.stack([count.sum() for count in prefix.counts])
        batch = functools.partial(
            _batch_behind, arrays, image, shared, x, static=static, seam=sharing.seam, room=room
        )
        enough = (needed <= jnp.array(sharing.rows)).all()
        return one_by_one(batch, (rows, index), used[0]), enough[None]

    return dealing.side_by_side(run, mesh, parts=2)(arrays, image, shared, rows, used)


@functools.partial(jax.jit, static_argnames=("static", "seam", "room"))
def _batch_behind(arrays, image, shared, x, rows, *, static, seam, room):
    """A batch from a seam on, where positions have the rows `index` of `x` `[R, C]`."""
    rows, index = rows

    def resume(at):
        if room is None:
            return full_size(x, index, at)
        return visible_rows(x, index, at, Capacities(room.rows))

    masks = _masks(static, shared, rows)
    logits = static.predictor(arrays).on_visible(image, masks, Suffix(seam, resume))
    return logits.astype(jnp.float32)


@functools.partial(jax.jit, static_argnames="static")
def _dense_batch(arrays, image, shared, rows, *, static):
    masks = static.make(shared, rows)
    logits = static.predictor(arrays)(image, masks)
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != len(masks):
        got = type(logits).__name__ if shape is None else f"shape {shape}"
        raise ValueError(f"predictor must return logits [N, K], got {got} for N = {len(masks)}")
    return logits.astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("static", "room"))
def _visible_batch(arrays, image, shared, rows, *, static, room):
    masks = _masks(static, shared, rows)
    logits = static.predictor(arrays).on_visible(image, masks, Capacities(room.rows))
    return logits.astype(jnp.float32)


def _masks(static: Static, shared, rows) -> jax.Array:
    """Masks of (rows, which of them are no padding); padding shows nothing and needs no rows."""
    rows, real = rows
    return static.make(shared, rows) & real[:, None, None]


def one_by_one(batch: Callable, rows, used) -> jax.Array:
    """Results of `batch` on the first `used` of G batches of rows; zeros for the others."""

    def nth(i):
        return jax.tree.map(lambda x: x[i], rows)

    one = jax.eval_shape(batch, nth(0))
    results = jnp.zeros((len(jax.tree.leaves(rows)[0]), *one.shape), one.dtype)
    results = jax.lax.fori_loop(0, used, lambda i, r: r.at[i].set(batch(nth(i))), results)
    return results.reshape(-1, *one.shape[1:])


class SharedCounts(NamedTuple):
    """How many rows a group of `SHARING_VARIANTS` variants needs.

    Attributes:
      rows: `[P]`, the most that a group needs.
      full, products: as in `Counts`.
      sets_at_seam: `[seams]`, how many sets of positions there are before each seam.
    """

    rows: np.ndarray
    full: np.ndarray
    products: np.ndarray
    sets_at_seam: np.ndarray


def count_products(job: Job) -> float:
    """How many multiplications the convolutions do for a wholly visible variant; from a trace."""
    rows = job.take(np.zeros(1, int))
    shapes = jax.eval_shape(lambda *arguments: arguments, *job.arguments(rows))
    leaves, tree = jax.tree.flatten(shapes)
    return _count_products(job.static, tree, tuple((x.shape, x.dtype) for x in leaves))


@functools.lru_cache(maxsize=64)
def _count_products(static: Static, tree, shapes) -> float:
    ledger = Counting()

    def run(arrays, image, shared, rows):
        static.predictor(arrays).on_visible(image, static.make(shared, rows), ledger)

    jax.eval_shape(run, *jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*x) for x in shapes]))
    return float(ledger.products().sum(axis=0) @ ledger.full)


def count_rows(job: Job, *, behind: int = 0) -> Counts:
    """How many rows each variant needs on visible positions, behind a seam or in all."""
    height, width = job.image.shape[:2]
    size = min(max(_COUNTED_PIXELS // (height * width), 1), power_of_two(job.num_variants))
    counted = []
    for start in range(0, job.num_variants, size):
        rows = job.take(np.minimum(np.arange(start, start + size), job.num_variants - 1))
        counts, full, products = _count(*job.arguments(rows), static=job.static, behind=behind)
        counted.append(np.asarray(counts, np.int64))
    counted = np.concatenate(counted)[: job.num_variants]
    return Counts(counted, np.asarray(full), np.asarray(products, float))


def count_shared_rows(job: Job, *, until: int) -> SharedCounts:
    """How many rows groups of variants need up to a seam, where they share them."""
    starts = np.arange(0, job.num_variants, SHARING_VARIANTS)
    chosen = starts[np.linspace(0, len(starts) - 1, _COUNTED_GROUPS).astype(int)]
    counted = []
    for start in np.unique(chosen):
        numbers = start + np.arange(SHARING_VARIANTS)
        numbers = np.where(numbers < job.num_variants, numbers, -1)
        arguments = job.arguments((job.take(numbers), numbers >= 0))
        rows, *others = _count_shared(*arguments, static=job.static, until=until)
        counted.append(rows)
    full, products, sets = map(np.asarray, others)
    return SharedCounts(np.max(counted, axis=0), full, products.astype(float), sets)


@functools.partial(jax.jit, static_argnames=("static", "behind"))
def _count(arrays, image, shared, rows, *, static, behind):
    """Rows that variants need `[n, P]`; the full numbers and the products, as in `Counts`."""
    ledger = counting = Counting()
    if behind > 0:
        ledger, counting = count_behind(behind)
    static.predictor(arrays).on_visible(image, static.make(shared, rows), ledger)
    full, products = jnp.array(counting.full), jnp.array(counting.products(), jnp.float32)
    return jnp.stack(counting.counts, axis=1), full, products


@functools.partial(jax.jit, static_argnames=("static", "until"))
def _count_shared(arrays, image, shared, rows, *, static, until):
    ledger = SharedCounting(until)
    static.predictor(arrays).on_visible(image, _masks(static, shared, rows), ledger)
    constants = ledger.full, ledger.products().astype(np.float32), ledger.sets_at_seam
    return jnp.stack([count.sum() for count in ledger.counts]), *map(jnp.array, constants)
