"""Runs of studies: batch after batch of images is measured, and its rows are stored when done."""

import math
import operator
import os
import platform
import time
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pyarrow as pa
from jax.sharding import Mesh

from lmjax._utils.checks import check_whole
from lmjax._utils.identity import has_version
from lmjax._utils.interruption import stop_if_noted
from lmjax._utils.notices import said_once
from lmjax._utils.renamed import renamed
from lmjax.data.source import Source
from lmjax.evaluation.evaluator import Engine
from lmjax.studies import measurements
from lmjax.studies.held_out import HeldOutError, is_held_out
from lmjax.studies.images import ImageBatch, SampledBatch, Spending
from lmjax.studies.job import DEFAULT_MODELS as DEFAULT_MODELS
from lmjax.studies.job import IMAGE_ERRORS, IMAGES_PER_SHARD, Job
from lmjax.studies.progress import Progress
from lmjax.studies.run_folder import Range, Results, ranges, read_manifest
from lmjax.studies.study import Study

_RECORDED = ("jax", "jaxlib", "flax", "numpy", "scikit-image", "pillow", "pyarrow")
_MEASURED_IMAGES = 2
# Where the first images all fail and there are no rows, the source is wrong, not an image.
_TRIED_IMAGES = 16


@renamed(out="output", networks="models")
@said_once()
def run(
    study: Study,
    source: Source | str,
    *,
    models: Sequence[str] | Mapping[str, Any] | None = None,
    output: str | os.PathLike | None = None,
    images: int | None = None,
    already_sized: bool = False,
    images_per_shard: int = IMAGES_PER_SHARD,
    shard: tuple[int, int] = (0, 1),
    retry_errors: bool = False,
    progress: bool | None = None,
    engine: Engine = "auto",
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> pa.Table:
    """Runs a study: computes its rows, or reads those that an earlier run has stored.

    Example:
      >>> study = lmjax.studies.SegmentRemoval(removals=("layer", "black"))
      >>> source = lmjax.data.DigitScenes("test", length=500)
      >>> table = lmjax.studies.run(study, source, output="runs/removal")

    Args:
      study: its settings.
      source: has a length, and `source[i]` has `image`, uint8 `[H, W, C]`; where known `label`, an
        int, `object_mask`, `[H, W]`, and `id` (attributes, or keys of a mapping). Its `version`
        names what it holds; rows of another version are not mixed, and a source without one brings
        a warning. Or as commands write it, such as "folder:val" (`lmjax.data.open_source`): reports
        then find it again. Another thread reads the next images while networks are evaluated on
        some: one at a time, in order.
      models: names of networks whose weights come with the package, or a mapping from names of
        your own to classifiers (`lmjax.models.load`). None takes the bundled one.
      output: folder for the rows, `runs/NAME` by default. A run goes on where an earlier one ended,
        and refuses a folder whose rows depend on anything else.
      images: how many, from the first; None takes all. A later run with more images keeps the
        rows, and one with fewer takes those of its images. Of two at once, the folder is afterwards
        that of the one that ends last; neither loses rows.
      already_sized: images have the size that networks are to see: they are neither resized nor
        cropped. An image of a size that a network does not take has no rows.
      images_per_shard: images that are stored together; a kill costs no more than these.
      shard: (i, n) does every n-th shard, from the i-th: n processes share the work.
      retry_errors: compute shards with images that could not be measured again, such as after a
        disk was out of reach.
      progress: show progress and the time left. None does on a terminal and in a notebook.
      engine, batch_size, mesh: how variants are evaluated, as in `lmjax.Evaluator`; removals that
        do not support an engine run dense. Gradients (of orders by `saliency`) are computed on one
        device. Rows do not depend on any of these but for the rounding of probabilities, so a run
        can go on with others; the report lists the engines that took part. "auto" chooses by the
        variants of the whole run: it makes the same choice when a run goes on.

    Returns:
      Rows in the order of images. Images that cannot be read or measured have none: a warning
      counts them, `lmjax.studies.errors(output)` tells why.

    Raises:
      ValueError: arguments out of range, a folder of other rows, no image that can be measured.
      OSError: the folder cannot be written.
    """
    job = Job(
        study,
        source,
        models=models,
        images=images,
        already_sized=already_sized,
        images_per_shard=images_per_shard,
        engine=engine,
        batch_size=batch_size,
        mesh=mesh,
    )
    if not has_version(job.source):
        warnings.warn(
            "source has no version: rows of other images in this folder would not be noticed. Give "
            "it an attribute `version`, a string that changes with what it holds",
            stacklevel=2,
        )
    results = Results(default_output(study) if output is None else output, job.identity())
    chosen = job.shards[_check_shard(shard)]
    results.claim(job.about())
    if shard[0] == 0 and not measurements.path(results).exists():
        _measure(job, results)

    def is_mine(shard: Range) -> bool:
        if not results.has(shard):
            return True
        return retry_errors and not all(map(is_held_out, results.errors(shard)))

    mine = [each for each in chosen if is_mine(each)]
    done = _count(chosen) - _count(mine)
    name, images = study.name, _count(chosen)
    with Progress(name, images=images, done=done, shown=progress) as shown:
        _write_shards(job, results, mine, shown)
    results.describe(job.about())  # again: another process may have begun with fewer images
    missing = [each for each in job.shards if not results.has(each)]
    table, errors = results.read(job.shards)
    if table.num_rows == 0 and not missing:
        why = f"{errors[0]['error']}; retry_errors=True tries again" if errors else "no errors"
        raise ValueError(f"none of {job.images} images has rows: {why}")
    _warn(job, missing, errors)
    return measurements.beside(table, results)


def _measure(job: Job, results: Results) -> None:
    """Stores what a study measures on the first image that it can be measured on."""
    if not isinstance(job.study, measurements.Measuring):
        return
    tried = 0
    for i in range(job.images):
        samples, errors = job.read([i])
        tried += not any(map(is_held_out, errors))
        if tried > _TRIED_IMAGES:
            return
        if not errors:
            try:
                found = job.study.measure(job.batch(samples, ImageBatch))
            except IMAGE_ERRORS:  # another image will do
                continue
            device = {"device": jax.devices()[0].device_kind}
            return measurements.store(results, [{**each, **device} for each in found])


def _count(shards: Sequence[Range]) -> int:
    """Returns how many images shards have."""
    return sum(stop - start for start, stop in shards)


def _write_shards(job: Job, results: Results, shards: list[Range], progress: Progress) -> None:
    """Computes and stores shards; raises ValueError where the first images all fail."""
    made_by = _made_by(job.engine)
    failed, enough = [], min(_TRIED_IMAGES, _count(shards))
    with job.reading(shards) as batches:
        for each, found in batches:
            with progress.block(each.stop - each.start):
                rows, errors = job.rows(*found)
            failed += [error for error in errors if not is_held_out(error)]
            if rows or (len(failed) >= enough and results.read(job.shards)[0].num_rows):
                enough = math.inf
            if len(failed) >= enough:
                raise ValueError(
                    f"none of the first {len(failed)} images can be evaluated: {failed[0]['error']}"
                )
            if not (results.has(each) and _goes_worse(errors, results.errors(each))):
                results.write(each, rows, errors, made_by)
            stop_if_noted()


def _goes_worse(errors: list[dict], before: list[dict]) -> bool:
    """Whether an image fails that did not fail when its shard was computed before."""
    return not {error["image"] for error in errors} <= {error["image"] for error in before}


class Cost(NamedTuple):
    """The cost of a run.

    Attributes:
      images: how many.
      evaluations: variants that networks are evaluated on.
      seconds: how long, compilation included, as measured on a few images.
      spending: the evaluations by part of the study (such as a method or a metric), network and
        removal.
    """

    images: int
    evaluations: int
    seconds: float
    spending: Mapping[Spending, int] = types.MappingProxyType({})


@renamed(networks="models")
@said_once()
def estimate(
    study: Study,
    source: Source | str,
    *,
    models: Sequence[str] | Mapping[str, Any] | None = None,
    images: int | None = None,
    already_sized: bool = False,
    engine: Engine = "auto",
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    processes: int = 1,
) -> Cost:
    """Estimates the evaluations and the time of a run; nothing is written.

    Both are those of the first two images, taken for all: where images have different numbers of
    segments, evaluations differ a little.

    Args:
      study, source, models, images, already_sized, engine, batch_size, mesh: as in `run`.
      processes: how many share the run (`shard`), each on a machine like this one and with devices
        like those of `mesh`. Each compiles; the time is that of the one with the most shards.

    Raises:
      ValueError: as `run`.
    """
    processes = check_whole("processes", processes, least=1)
    job = Job(
        study,
        source,
        models=models,
        images=images,
        already_sized=already_sized,
        engine=engine,
        batch_size=batch_size,
        mesh=mesh,
    )

    def measure(indices: Sequence[int]) -> tuple[SampledBatch, float]:
        start = time.perf_counter()
        samples, errors = job.read(indices)
        if errors:
            first = errors[0]
            if is_held_out(first):
                raise HeldOutError(first["error"], first["id"])
            raise ValueError(first["error"])
        batch = job.batch(samples, SampledBatch)
        job.study.rows(batch)
        return batch, time.perf_counter() - start

    few = range(min(_MEASURED_IMAGES, job.images))
    try:
        _, first = measure(few)
    except IMAGE_ERRORS:  # another image will do; a part of what it compiles is not counted
        few = [_first_good(measure, job.images)]
        _, first = measure(few)
    batch, second = measure(few)
    share = job.images / len(few)
    compiling = max(first - second, 0)
    evaluating = (second + batch.seconds_spared) * share
    most = math.ceil(len(job.shards) / processes) / len(job.shards)
    spending = {each: round(count * share) for each, count in batch.spent.items() if count}
    seconds = compiling + evaluating * most
    return Cost(job.images, round(batch.evaluations * share), seconds, spending)


def _first_good(measure: Callable[[Sequence[int]], Any], images: int) -> int:
    """Returns the first image that can be measured."""
    errors = []
    for i in range(images):
        try:
            measure([i])
            return i
        except IMAGE_ERRORS as error:
            errors.append(error)
            if sum(not isinstance(each, HeldOutError) for each in errors) == _TRIED_IMAGES:
                break
    raise ValueError(f"none of the first {len(errors)} images can be evaluated: {errors[0]}")


@renamed(out="output")
def errors(output: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads which images a run could not measure: dicts of `image` (its index), `id` and `error`.

    Args:
      output: folder of the run.
    """
    return open_run(output)[2]


def open_run(output: str | os.PathLike) -> tuple[dict[str, Any], pa.Table, list[dict[str, Any]]]:
    """Reads the manifest, rows and errors of a run from its folder, even of an unfinished run.

    The manifest has a further entry, `made_by`: the `versions` of software, the `device` and the
    `engine` of the shards, each combination once.

    Args:
      output: folder of the run.
    """
    manifest, results, shards = _open(output)
    rows, errors = results.read(shards)
    manifest = {**manifest, "made_by": results.made_by(shards)}
    return manifest, measurements.beside(rows, results), errors


def unfinished(output: str | os.PathLike) -> list[Range]:
    """Returns the images of a run that have not been tried yet."""
    _, results, shards = _open(output)
    return [each for each in shards if not results.has(each)]


def _open(output: str | os.PathLike) -> tuple[dict[str, Any], Results, list[Range]]:
    """Reads the manifest of a folder; returns it, its results and all shards of the run."""
    manifest = read_manifest(output)
    identity = manifest["identity"]
    shards = ranges(manifest["images"], identity["images_per_shard"])
    return manifest, Results(output, identity), shards


def default_output(study: Study) -> Path:
    """Returns the folder of a study's results where none is given."""
    return Path("runs") / study.name


def _made_by(engine: str) -> dict[str, Any]:
    """Returns what rows are made by, for the record."""
    versions = {name: version(name) for name in _RECORDED}
    return {
        "versions": versions | {"python": platform.python_version()},
        "device": jax.devices()[0].device_kind,
        "engine": engine,
    }


def _check_shard(shard: tuple[int, int]) -> slice:
    """Returns the slice of shards that a process does."""
    try:
        number, of = map(operator.index, shard)
    except (TypeError, ValueError) as error:
        raise ValueError(f"shard must be (i, n), two whole numbers, got {shard!r}") from error
    if not 0 <= number < of:
        raise ValueError(f"shard must be (i, n) with i from 0 to n - 1, got {shard!r}")
    return slice(number, None, of)


def _warn(job: Job, missing: list[Range], errors: list[dict]) -> None:
    """Warns of images without rows and of shards that are not finished."""
    held_out = [error for error in errors if is_held_out(error)]
    if held_out:
        first = held_out[0]
        warnings.warn(
            f"{len(held_out)} of {job.images} images are left out, since a removal knows them; the "
            f"first is {first['id']}: {first['error']}",
            stacklevel=3,
        )
    if errors := [error for error in errors if not is_held_out(error)]:
        first = errors[0]
        warnings.warn(
            f"{len(errors)} of {job.images} images could not be evaluated and are left out; the "
            f"first is {first['id']}: {first['error']}. retry_errors=True (--retry-errors) tries "
            "again",
            stacklevel=3,
        )
    if missing:
        warnings.warn(
            f"{len(missing)} of {len(job.shards)} shards are not finished; another process may be "
            "at work on them. Run again without shard= for all rows",
            stacklevel=3,
        )
