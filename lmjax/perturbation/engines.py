"""Two ways to compute the logits of many variants, each as a row of calls of one compiled program.

*dense* calls the predictor as it is; *visible* computes visible positions only. A call takes
several batches, one after the other in a loop on the device: so memory is that of one batch, and on
a CPU its pages are used again.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking.visible import Capacities, Counting
from lmjax.perturbation.packing import Counts, Packing

# Pixels of one batch when rows are counted.
_COUNTED_PIXELS = 2**22


class Static(NamedTuple):
    """What programs are compiled for, besides shapes.

    Attributes:
      tree: the predictor's structure.
      leaves: its leaves, None where an array belongs.
      is_array: which leaves are arrays.
      make: of the mask family.
    """

    tree: Any
    leaves: tuple
    is_array: tuple[bool, ...]
    make: Callable

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
      pixels_per_call: how many pixels of variants a call takes at most, if it has several batches.
    """

    static: Static
    arrays: list[jax.Array]
    image: jax.Array
    shared: Any
    rows: Any
    num_variants: int
    batch_size: int
    pixels_per_call: int

    def batches_per_call(self, variants_per_batch: float) -> int:
        """How many batches a call takes."""
        pixels = variants_per_batch * self.image.shape[0] * self.image.shape[1]
        return max(int(self.pixels_per_call / pixels), 1)

    def take(self, variants: np.ndarray) -> Any:
        """Rows of some variants, in the shape of `variants`; any row where that is -1."""
        return jax.tree.map(lambda x: x[np.maximum(variants, 0)], self.rows)

    def arguments(self, rows) -> tuple:
        """What every program takes."""
        return self.arrays, self.image, self.shared, rows


Calls = Iterator[tuple[np.ndarray, jax.Array]]


def num_classes(job: Job) -> int:
    """K of the logits, from a trace that `dense_calls` uses again."""
    rows = job.take(np.zeros(job.batch_size, int))
    return _dense_batch.eval_shape(*job.arguments(rows), static=job.static).shape[1]


def dense_calls(job: Job, variants: np.ndarray) -> Calls:
    """Logits of some variants.

    Yields:
      `[n]` the variants' numbers, -1 for padding, and their logits `[n, K]`, on the device.
    """
    starts = range(0, len(variants), job.batch_size)
    batches = [variants[start : start + job.batch_size] for start in starts]
    for numbers in _grouped(batches, job.batches_per_call(job.batch_size), job.batch_size):
        rows, used = job.take(numbers), (numbers >= 0).any(axis=1).sum()
        yield numbers.reshape(-1), _dense_call(*job.arguments(rows), used, static=job.static)


def visible_calls(job: Job, variants: np.ndarray, packing: Packing) -> Calls:
    """As `dense_calls`, on visible positions only, for variants that are packed into batches."""
    room = packing.room
    batches = [variants[a:b] for a, b in itertools.pairwise(packing.starts)]
    per_call = job.batches_per_call(packing.work / len(batches))
    for numbers in _grouped(batches, per_call, room.variants):
        rows, used = job.take(numbers), (numbers >= 0).any(axis=1).sum()
        arguments = *job.arguments((rows, numbers >= 0)), used
        yield numbers.reshape(-1), _visible_call(*arguments, static=job.static, room=room)


def _grouped(batches: list[np.ndarray], per_call: int, length: int) -> Iterator[np.ndarray]:
    """Batches of numbers, so many at a time, as one array `[per_call, length]`, -1 for padding."""
    for start in range(0, len(batches), per_call):
        numbers = np.full((per_call, length), -1)
        for row, batch in zip(numbers, batches[start : start + per_call]):
            row[: len(batch)] = batch
        yield numbers


@functools.partial(jax.jit, static_argnames="static")
def _dense_call(arrays, image, shared, rows, used, *, static):
    """Logits `[G * B, K]` of rows `[G, B, ...]`; zeros behind the first `used` of G batches."""
    batch = functools.partial(_dense_batch, arrays, image, shared, static=static)
    return _one_by_one(batch, rows, used)


@functools.partial(jax.jit, static_argnames=("static", "room"))
def _visible_call(arrays, image, shared, rows, used, *, static, room):
    """As `_dense_call`, of (rows `[G, V, ...]`, which of them are no padding `[G, V]`)."""
    batch = functools.partial(_visible_batch, arrays, image, shared, static=static, room=room)
    return _one_by_one(batch, rows, used)


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
    rows, real = rows
    masks = static.make(shared, rows) & real[:, None, None]  # padding shows nothing: no rows
    logits = static.predictor(arrays).on_visible(image, masks, Capacities(room.rows))
    return logits.astype(jnp.float32)


def _one_by_one(batch: Callable, rows, used) -> jax.Array:
    """Results of `batch` on the first `used` of G batches of rows; zeros for the others."""

    def nth(i):
        return jax.tree.map(lambda x: x[i], rows)

    one = jax.eval_shape(batch, nth(0))
    results = jnp.zeros((len(jax.tree.leaves(rows)[0]), *one.shape), one.dtype)
    results = jax.lax.fori_loop(0, used, lambda i, r: r.at[i].set(batch(nth(i))), results)
    return results.reshape(-1, *one.shape[1:])


def count_rows(job: Job) -> Counts:
    """How many rows each variant needs on visible positions."""
    height, width = job.image.shape[:2]
    size = min(max(_COUNTED_PIXELS // (height * width), 1), power_of_two(job.num_variants))
    counted = []
    for start in range(0, job.num_variants, size):
        rows = job.take(np.minimum(np.arange(start, start + size), job.num_variants - 1))
        counts, full, products = _count(*job.arguments(rows), static=job.static)
        counted.append(np.asarray(counts, np.int64))
    counted = np.concatenate(counted)[: job.num_variants]
    return Counts(counted, np.asarray(full), np.asarray(products, float))


@functools.partial(jax.jit, static_argnames="static")
def _count(arrays, image, shared, rows, *, static):
    """Rows that variants need `[n, P]`, and of each set the full number and the products `[P]`."""
    ledger = Counting()
    static.predictor(arrays).on_visible(image, static.make(shared, rows), ledger)
    full, products = jnp.array(ledger.full), jnp.array(ledger.products, jnp.float32)
    return jnp.stack(ledger.counts, axis=1), full, products


def power_of_two(number: int) -> int:
    """The next power of two."""
    return 2 ** (number - 1).bit_length()
