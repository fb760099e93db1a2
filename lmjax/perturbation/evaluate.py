"""Thousands of masked variants of one image through a predictor, in batches of one shape."""

import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking.checks import check_colours, check_image, check_mask
from lmjax.masking.visible import Capacities, Counting
from lmjax.perturbation.coalitions import Coalitions
from lmjax.perturbation.packing import Counts, Packing, Room, pack

# Pixels of one batch when batch_size is None. On CPU larger batches fall out of the caches; an
# accelerator needs more of them to be busy.
_CPU_PIXELS = 2**18
_ACCELERATOR_PIXELS = 2**24
# On CPU several batches run in one call, which keeps its working memory: the pages of a fresh one
# cost a tenth of the time (resnet50, 224 x 224, 2 cores).
_CPU_PIXELS_PER_CALL = 2**21
# Pixels of one batch when rows are counted.
_COUNTED_PIXELS = 2**22
# Time on visible positions over time on full-size activations: so much for the same work, and so
# much for each variant, whatever is visible (resnet50, 224 x 224, 2 cores).
_VISIBLE_TIME = 1.1
_VISIBLE_TIME_PER_VARIANT = 0.05


def evaluate(
    predictor: Callable,
    image,
    masks,
    *,
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: Literal["dense", "visible", "auto"] = "dense",
) -> np.ndarray:
    """Logits of all variants of an image.

    Compiles once for each image shape and batch size, whatever the number of variants: the last
    batch is padded. (Fewer variants than a batch are a batch of the next power of two.) Memory
    depends on the batch size: the masks of coalitions exist only on the device, a batch at a time.

    Args:
      predictor: function (image `[H, W, C]`, masks `[N, H, W]`) -> logits `[N, K]`. Arrays of a
        pytree (such as `lmjax.Predictor`) are passed as arguments of the compiled function. A plain
        function works too, but arrays it closes over become constants and are kept as long as the
        compiled program.
      image: `[H, W, C]` floats in [0, 1]. Pixels hidden in every variant may hold anything.
      masks: `[N, H, W]`, 1 = visible, 0 = hidden, or `Coalitions`.
      batch_size: variants computed together. None takes the power of two whose batch has about
        2^18 pixels on a CPU and 2^24 on an accelerator (4 and 256 variants at 224 x 224). Never
        more than the number of variants, rounded up to a power of two.
      progress: show a progress bar. None shows one on a terminal, when a run of more than one batch
        takes longer than a second.
      engine: `"dense"` calls the predictor as it is. `"visible"` computes visible positions only
        (`lmjax.masking.visible`), and packs variants into batches by what they show: about twice
        `batch_size` wholly visible ones, or more that show less. Same numbers, to rounding.
        `"auto"` counts the rows that the variants need, and takes the way that promises to be
        faster: on a CPU, whose costs were measured, and for predictors that know both.

    Returns:
      float32 `[N, K]`.

    Raises:
      ValueError: shapes that do not match, mask values other than 0 and 1, no variant at all, no
        pixel visible in any variant, colours outside [0, 1], NaN or infinity in a visible pixel,
        `"visible"` for a predictor that cannot.
    """
    job = _choose(_prepare(predictor, image, masks, batch_size), predictor, engine)
    logits = np.empty((len(job.rows), job.num_classes()), np.float32)
    with _progress_bar(job, progress) as bar:
        under_way = None
        for start, rows in job.calls():
            dispatched = start, len(rows), job.run(rows)
            if under_way is not None:
                bar.update(_fetch(*under_way, logits))
            under_way = dispatched  # the device works on this call while the last is fetched
        bar.update(_fetch(*under_way, logits))
    return logits


def num_classes(predictor: Callable, image, masks, *, batch_size: int | None = None) -> int:
    """K of the logits `evaluate` would return, with the same checks, without computing them.

    The trace is kept: `evaluate` with the same arguments does not trace again.
    """
    return _prepare(predictor, image, masks, batch_size).num_classes()


def default_batch_size(spatial_shape: tuple[int, int]) -> int:
    """The batch size that `evaluate` takes by itself for images of (H, W)."""
    pixels = _CPU_PIXELS if jax.default_backend() == "cpu" else _ACCELERATOR_PIXELS
    return 2 ** max((pixels // (spatial_shape[0] * spatial_shape[1])).bit_length() - 1, 0)


class _Static(NamedTuple):
    """The hashable part of a predictor: its tree, and its leaves that are not arrays."""

    tree: Any
    leaves: tuple  # None where an array belongs
    is_array: tuple[bool, ...]


class _Job(NamedTuple):
    """Checked arguments, arrays on the device."""

    arrays: list[jax.Array]
    static: _Static
    image: jax.Array
    rows: np.ndarray  # [N, S] with segments, [N, H, W] without
    segments: jax.Array | None
    batch_size: int
    batches_per_call: int

    def calls(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first variant, rows of at most `batches_per_call` batches)."""
        size = self.batch_size * self.batches_per_call
        return (
            (start, self.rows[start : start + size]) for start in range(0, len(self.rows), size)
        )

    def run(self, rows: np.ndarray) -> jax.Array:
        """Logits of the rows, and of padding behind them, `[n, K]`."""
        if self.batches_per_call == 1:
            return _run_batch(*self._arguments(_pad(rows, self.batch_size)), static=self.static)
        count = -(-len(rows) // self.batch_size)
        rows = _pad(rows, self.batch_size * self.batches_per_call)
        rows = rows.reshape(self.batches_per_call, self.batch_size, *rows.shape[1:])
        return _run_batches(
            *self._arguments(rows), count, static=self.static, num_classes=self.num_classes()
        )

    def num_classes(self) -> int:
        rows = _pad(self.rows[: self.batch_size], self.batch_size)
        return _run_batch.eval_shape(*self._arguments(rows), static=self.static).shape[1]

    def _arguments(self, rows: np.ndarray) -> tuple:
        return self.arrays, self.image, rows, self.segments


def _pad(rows: np.ndarray, length: int) -> np.ndarray:
    """Repeats the last row up to `length` rows."""
    return np.concatenate([rows, np.repeat(rows[-1:], length - len(rows), axis=0)])


@functools.partial(jax.jit, static_argnames="static")
def _run_batch(arrays, image, rows, segments, *, static):
    masks = rows if segments is None else rows[:, segments]
    logits = _join(arrays, static)(image, masks)
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != len(masks):
        got = type(logits).__name__ if shape is None else f"shape {shape}"
        raise ValueError(f"predictor must return logits [N, K], got {got} for N = {len(masks)}")
    return logits.astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("static", "num_classes"))
def _run_batches(arrays, image, rows, segments, count, *, static, num_classes):
    """Logits `[G * B, K]` of the first `count` of G batches of rows `[G, B, ...]`, one by one."""

    def one_more(i, logits):
        return logits.at[i].set(_run_batch(arrays, image, rows[i], segments, static=static))

    logits = jnp.zeros((*rows.shape[:2], num_classes))
    return jax.lax.fori_loop(0, count, one_more, logits).reshape(-1, num_classes)


class _VisibleJob(NamedTuple):
    """The same job on visible positions only."""

    dense: _Job
    packing: Packing

    @property
    def rows(self) -> np.ndarray:
        return self.dense.rows

    @property
    def batch_size(self) -> int:
        return self.packing.room.variants

    def calls(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first variant, rows of a batch)."""
        starts = self.packing.starts
        return ((a, self.rows[a:b]) for a, b in itertools.pairwise(starts))

    def run(self, rows: np.ndarray) -> jax.Array:
        """Logits of the rows, and of hidden variants behind them, `[n, K]`."""
        return _run_visible(*self._arguments(rows), **self._static())

    def num_classes(self) -> int:
        rows = self.rows[: self.packing.starts[1]]
        return _run_visible.eval_shape(*self._arguments(rows), **self._static()).shape[1]

    def _arguments(self, rows: np.ndarray) -> tuple:
        return self.dense._arguments(_pad_hidden(rows, self.batch_size))

    def _static(self) -> dict:
        return {"static": self.dense.static, "room": self.packing.room}


def _choose(job: _Job, predictor: Callable, engine: str) -> _Job | _VisibleJob:
    if engine not in ("dense", "visible", "auto"):
        raise ValueError(f"engine must be 'dense', 'visible' or 'auto', got {engine!r}")
    able = getattr(predictor, "knows_visible", False)
    if engine == "visible" and not able:
        raise ValueError(
            "engine 'visible' needs an lmjax.Predictor whose removal goes through the layers of an "
            "lmjax.models classifier, such as lmjax.LayerMasking(); take 'auto' or 'dense'"
        )
    if engine == "dense" or not able:
        return job
    if engine == "auto" and jax.default_backend() != "cpu":
        return job
    counts = _count(job)
    time = _VISIBLE_TIME * counts.work(counts.rows).mean() + _VISIBLE_TIME_PER_VARIANT
    if engine == "auto" and time > 1:
        return job
    known = _known_rooms(job.static, job.image.shape, job.rows.shape[1:])
    return _VisibleJob(job, pack(counts, work_per_batch=2 * job.batch_size, known=known))


@functools.lru_cache(maxsize=64)
def _known_rooms(static: _Static, *shapes: tuple[int, ...]) -> list[Room]:
    """The rooms that are compiled for a predictor and shapes; starts empty."""
    return []


def _count(job: _Job) -> Counts:
    height, width = job.image.shape[:2]
    size = min(max(_COUNTED_PIXELS // (height * width), 1), 2 ** (len(job.rows) - 1).bit_length())
    counted = []
    for start in range(0, len(job.rows), size):
        rows = job.rows[start : start + size]
        arguments = job._arguments(_pad_hidden(rows, size))
        counts, full, products = _run_count(*arguments, static=job.static)
        counted.append(np.asarray(counts, np.int64)[: len(rows)])
    return Counts(np.concatenate(counted), np.asarray(full), np.asarray(products, float))


@functools.partial(jax.jit, static_argnames="static")
def _run_count(arrays, image, rows, segments, *, static):
    """Rows that variants need `[n, P]`, and of each set the full number and the products `[P]`."""
    ledger = Counting()
    masks = rows if segments is None else rows[:, segments]
    _join(arrays, static).on_visible(image, masks, ledger)
    full, products = jnp.array(ledger.full), jnp.array(ledger.products, jnp.float32)
    return jnp.stack(ledger.counts, axis=1), full, products


@functools.partial(jax.jit, static_argnames=("static", "room"))
def _run_visible(arrays, image, rows, segments, *, static, room):
    masks = rows if segments is None else rows[:, segments]
    logits = _join(arrays, static).on_visible(image, masks, Capacities(room.rows))
    return logits.astype(jnp.float32)


def _pad_hidden(rows: np.ndarray, length: int) -> np.ndarray:
    """Adds variants that hide everything, up to `length`: they need no rows."""
    hidden = np.zeros((length - len(rows), *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, hidden])


def _prepare(predictor: Callable, image, masks, batch_size: int | None) -> _Job:
    check_image(image)
    image = np.asarray(image)
    rows, segments, visible = _variants(masks, image.shape[:2])
    _check_visible(image, visible)
    arrays, static = _split(predictor)
    batch_size = _batch_size(batch_size, len(rows), image.shape[:2])
    return _Job(
        arrays=jax.device_put(arrays),
        static=static,
        image=jnp.asarray(image, jnp.float32),
        rows=rows,
        segments=None if segments is None else jnp.asarray(segments),
        batch_size=batch_size,
        batches_per_call=_batches_per_call(batch_size, image.shape[:2]),
    )


def _variants(masks, shape) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Rows, segments, and `[H, W]` which pixels any variant shows."""
    if not isinstance(masks, Coalitions):
        rows = np.asarray(check_mask(masks, shape))
        visible, segments = rows.any(axis=0), None
    elif masks.segments.shape != shape:
        raise ValueError(
            f"masks: the coalitions' segments have shape {masks.segments.shape}, "
            f"the image {shape}; segment this image"
        )
    else:
        rows, segments = masks.keep, masks.segments
        visible = rows.any(axis=0)[segments]
    if len(rows) == 0:
        raise ValueError("masks must hold at least one variant, got none")
    return rows, segments, visible


def _check_visible(image: np.ndarray, visible: np.ndarray) -> None:
    if not visible.any():
        raise ValueError(
            "masks leave no visible pixel in any variant; 1 = visible, 0 = hidden: "
            "if yours are the other way round, pass 1 - masks"
        )
    bad = visible & ~np.isfinite(image).all(axis=-1)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"image holds NaN or infinity in {bad.sum()} visible pixels (first at row {row}, "
            f"column {column}); hide them in every variant or fill them in"
        )
    check_colours(np.where(visible[..., None], image, 0))


def _batch_size(batch_size: int | None, num_variants: int, shape: tuple[int, int]) -> int:
    if batch_size is None:
        batch_size = default_batch_size(shape)
    elif isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1:
        raise ValueError(f"batch_size must be None or a whole number above 0, got {batch_size!r}")
    return min(int(batch_size), 2 ** (num_variants - 1).bit_length())


def _batches_per_call(batch_size: int, shape: tuple[int, int]) -> int:
    if jax.default_backend() != "cpu":
        return 1
    return max(_CPU_PIXELS_PER_CALL // (batch_size * shape[0] * shape[1]), 1)


def _split(predictor: Callable) -> tuple[list, _Static]:
    if not callable(predictor):
        raise ValueError(
            "predictor must be a function (image, masks) -> logits, such as "
            f"lmjax.Predictor(classifier); got {type(predictor).__name__}"
        )
    leaves, tree = jax.tree.flatten(predictor)
    is_array = tuple(map(_is_array, leaves))
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    others = tuple(None if array else leaf for leaf, array in zip(leaves, is_array, strict=True))
    static = _Static(tree, others, is_array)
    try:
        hash(static)
    except TypeError as error:
        raise ValueError(
            f"predictor holds something that is neither an array nor hashable ({error}); "
            "register it as a pytree, or wrap the predictor in a function"
        ) from error
    return arrays, static


def _join(arrays: list, static: _Static) -> Callable:
    arrays = iter(arrays)
    leaves = [
        next(arrays) if array else leaf
        for leaf, array in zip(static.leaves, static.is_array, strict=True)
    ]
    return jax.tree.unflatten(static.tree, leaves)


def _is_array(leaf) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    return isinstance(leaf, np.ndarray | np.generic) and (
        leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.number)
    )


def _fetch(start: int, count: int, batch: jax.Array, logits: np.ndarray) -> int:
    """Waits for a call, stores its rows without the padding, returns how many."""
    logits[start : start + count] = np.asarray(batch)[:count]
    return count


def _progress_bar(job: _Job, progress: bool | None):
    from tqdm import tqdm

    automatic = progress is None
    if automatic:
        progress = len(job.rows) > job.batch_size and sys.stderr.isatty()
    return tqdm(
        total=len(job.rows), unit=" variants", disable=not progress, delay=1 if automatic else 0
    )
