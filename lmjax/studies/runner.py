"""Runs a study: block after block of images, each kept when it is done."""

import contextlib
import functools
import math
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
from jax.sharding import Mesh

from lmjax import __version__
from lmjax._utils.identity import source_version
from lmjax._utils.sharding import check_mesh, replicated
from lmjax.models import load
from lmjax.models.checkpoints import weights_sha256
from lmjax.studies.images import Block, Sample, SampledBlock, read
from lmjax.studies.run_folder import Range, Results, ranges, read_manifest
from lmjax.studies.study import Study

DEFAULT_NETWORKS = ("resnet18_digits",)
IMAGES_PER_SHARD = 16
# What is said of an image that makes no sense. Anything else (no memory, a mistake in the code)
# ends the run.
_IMAGE_ERRORS = (ValueError, OSError)
_RECORDED = ("jax", "jaxlib", "flax", "numpy", "scikit-image", "pillow", "pyarrow")
_MEASURED_IMAGES = 2
# So many images in a row that fail, and no rows: the source is wrong, not an image.
_TRIED_IMAGES = 16
_Read = tuple[list[Sample], list[dict]]  # images, and errors of others
_Rows = tuple[list[dict], list[dict]]


def run(
    study: Study,
    source: Sequence,
    *,
    networks: Sequence[str] | Mapping[str, Any] | None = None,
    out: str | os.PathLike | None = None,
    images: int | None = None,
    images_per_shard: int = IMAGES_PER_SHARD,
    shard: tuple[int, int] = (0, 1),
    retry_errors: bool = False,
    progress: bool | None = None,
    mesh: Mesh | None = None,
) -> pa.Table:
    """All rows of a study, computed or, where a run before has finished them, read.

    Example:
      >>> study = lmjax.studies.SegmentRemoval(removals=("layer", "black"))
      >>> source = lmjax.data.DigitScenes("test", length=500)
      >>> table = lmjax.studies.run(study, source, out="runs/removal")

    Args:
      study: its settings.
      source: has a length, and `source[i]` has `image`, uint8 `[H, W, C]`; where known `label`, an
        int, `object_mask`, `[H, W]`, and `id` (attributes, or keys of a mapping). Its `version`
        names what it holds; rows of another version are not mixed, and a source without one brings
        a warning. Another thread asks for the next images while networks answer about some: one at
        a time, in order.
      networks: names of networks whose weights come with the package, or a mapping from names of
        your own to classifiers (`lmjax.models.load`). None takes the bundled one.
      out: folder for the rows, `runs/NAME` by default. A run goes on with what is there, and
        refuses a folder whose rows depend on anything else.
      images: how many, from the first; None takes all. More images later go on with the same rows.
      images_per_shard: what a kill can cost at most.
      shard: (i, n) does every n-th shard, from the i-th: n processes share the work.
      retry_errors: compute shards with images that could not be evaluated again, such as after a
        disk was out of reach.
      progress: show progress and the time left. None does on a terminal.
      mesh: devices that share the variants, as in `lmjax.evaluate`. Gradients (of orders by
        `saliency`) are computed on one. Rows do not depend on it but for the rounding of
        probabilities, where batches are of another size.

    Returns:
      Rows in the order of images. Images that cannot be read or evaluated have none: a warning
      counts them, `lmjax.studies.errors(out)` tells what is wrong.

    Raises:
      ValueError: arguments out of range, a folder of other rows, no image that can be evaluated.
      OSError: the folder cannot be written.
    """
    job = _Job(study, source, networks, images, images_per_shard, mesh)
    if not hasattr(source, "version"):
        warnings.warn(
            "source has no version: rows of other images in this folder would not be noticed. Give "
            "it an attribute `version`, a string that changes with what it holds",
            stacklevel=2,
        )
    results = Results(default_out(study) if out is None else out, job.identity())
    chosen = job.shards[_check_shard(shard)]
    results.claim(job.about())
    made_by = _software_and_device()
    mine = [
        each for each in chosen if not results.has(each) or (retry_errors and results.errors(each))
    ]
    failed, enough = [], min(_TRIED_IMAGES, sum(stop - start for start, stop in mine))
    with _progress_bar(study, mine, progress) as bar, job.reading(mine) as blocks:
        for each, found in blocks:
            rows, errors = job.rows(*found)
            failed += errors
            if rows or (len(failed) >= enough and results.read(job.shards)[0].num_rows):
                enough = math.inf
            if len(failed) >= enough:
                raise ValueError(
                    f"none of the first {len(failed)} images can be evaluated: {failed[0]['error']}"
                )
            results.write(each, rows, errors, made_by)
            bar.update(each.stop - each.start)
    missing = [each for each in job.shards if not results.has(each)]
    table, errors = results.read(job.shards)
    if table.num_rows == 0 and not missing:
        why = f"{errors[0]['error']}; retry_errors=True tries again" if errors else "no errors"
        raise ValueError(f"none of {job.images} images has rows: {why}")
    _warn(job, missing, errors)
    return table


class Cost(NamedTuple):
    """What a run would cost.

    Attributes:
      images: how many.
      evaluations: variants that networks answer.
      seconds: how long, compilation included, as measured on a few images.
    """

    images: int
    evaluations: int
    seconds: float


def estimate(
    study: Study,
    source: Sequence,
    *,
    networks: Sequence[str] | Mapping[str, Any] | None = None,
    images: int | None = None,
    mesh: Mesh | None = None,
    processes: int = 1,
) -> Cost:
    """How many evaluations a run would make and how long it would take; nothing is written.

    Args:
      study, source, networks, images, mesh: as in `run`.
      processes: how many share the run (`shard`), each on a machine like this one and with devices
        like those of `mesh`. Each compiles; the time is that of the one with the most shards.

    Raises:
      ValueError: as `run`.
    """
    if isinstance(processes, bool) or processes != int(processes) or processes < 1:
        raise ValueError(f"processes must be a whole number above 0, got {processes!r}")
    job = _Job(study, source, networks, images, IMAGES_PER_SHARD, mesh)

    def measure(indices: Sequence[int]) -> tuple[SampledBlock, float]:
        start = time.perf_counter()
        samples, errors = job.read(indices)
        if errors:
            raise ValueError(errors[0]["error"])
        block = job.block(samples, SampledBlock)
        study.rows(block)
        return block, time.perf_counter() - start

    few = range(min(_MEASURED_IMAGES, job.images))
    try:
        _, first = measure(few)
    except _IMAGE_ERRORS:  # another will do; of what it compiles, some is left out
        few = [_first_good(measure, job.images)]
        _, first = measure(few)
    block, second = measure(few)
    share = job.images / len(few)
    compiling = max(first - second, 0)
    answering = (second + block.seconds_spared) * share
    most = math.ceil(len(job.shards) / processes) / len(job.shards)
    return Cost(job.images, round(block.evaluations * share), compiling + answering * most)


def _first_good(measure: Callable[[Sequence[int]], Any], images: int) -> int:
    """The first image that can be evaluated."""
    errors = []
    for i in range(min(_TRIED_IMAGES, images)):
        try:
            measure([i])
            return i
        except _IMAGE_ERRORS as error:
            errors.append(error)
    raise ValueError(f"none of the first {len(errors)} images can be evaluated: {errors[0]}")


def errors(out: str | os.PathLike) -> list[dict[str, Any]]:
    """Images that a run could not evaluate: dicts of `image` (its index), `id` and `error`.

    Args:
      out: folder of the run.
    """
    return open_run(out)[2]


def open_run(out: str | os.PathLike) -> tuple[dict[str, Any], pa.Table, list[dict[str, Any]]]:
    """Manifest, rows and errors of a run, from its folder; also of one that is not finished.

    To the manifest is added what `made_by` the shards: `versions` of software and a `device`, each
    combination once.
    """
    manifest, results, shards = _open(out)
    return {**manifest, "made_by": results.made_by(shards)}, *results.read(shards)


def unfinished(out: str | os.PathLike) -> list[Range]:
    """Images of a run that have not been tried yet."""
    _, results, shards = _open(out)
    return [each for each in shards if not results.has(each)]


def _open(out: str | os.PathLike) -> tuple[dict[str, Any], Results, list[Range]]:
    manifest = read_manifest(out)
    identity = manifest["identity"]
    shards = ranges(manifest["images"], identity["images_per_shard"])
    return manifest, Results(out, identity), shards


def default_out(study: Study) -> Path:
    """Where a study's results go unless a folder is given."""
    return Path("runs") / study.name


class _Job:
    """Checked arguments of a run."""

    def __init__(self, study, source, networks, images, images_per_shard, mesh):
        if not isinstance(study, Study):
            raise ValueError(
                "study must be one of lmjax.studies, such as lmjax.studies.SegmentRemoval(); got "
                f"{study!r}"
            )
        if isinstance(images_per_shard, bool) or images_per_shard < 1:
            raise ValueError(f"images_per_shard must be 1 or more, got {images_per_shard!r}")
        self.study, self.source = study, source
        self.mesh = check_mesh(mesh)
        self.networks = {
            name: _copied(network, self.mesh) for name, network in _check_networks(networks).items()
        }
        study.check(self.networks)
        self.images = _check_images(images, source)
        self.images_per_shard = images_per_shard
        self.shards = ranges(self.images, images_per_shard)

    def identity(self) -> dict[str, Any]:
        """What rows depend on, other software and the device apart."""
        return {
            "study": self.study.name,
            "settings": self.study.settings_of_rows(),
            "networks": [
                {"name": name, **_identify(network)} for name, network in self.networks.items()
            ],
            "source": source_version(self.source),
            "lmjax": __version__,
            "images_per_shard": self.images_per_shard,
        }

    def about(self) -> dict[str, Any]:
        """What the manifest records besides."""
        return {"images": self.images, "settings": self.study.settings()}

    def block(self, samples: Sequence[Sample], kind: type[Block] = Block) -> Block:
        return kind(samples, self.networks, key=jax.random.key(self.study.seed), mesh=self.mesh)

    def read(self, images: Sequence[int]) -> _Read:
        """Images, and errors of those that cannot be read."""
        return _gather({i: functools.partial(read, self.source, i) for i in images})

    @contextlib.contextmanager
    def reading(self, shards: list[Range]) -> Iterator[Iterator[tuple[Range, _Read]]]:
        """What `read` gives of each range in turn; the next is read while one is in use.

        A thread of its own reads, one image after the other: few sources expect to be asked for
        several at once. When the context ends it stops after the image that it is at.
        """
        with ThreadPoolExecutor(1) as reader:

            def ask(images: Range) -> dict[int, Callable[[], Sample]]:
                return {i: reader.submit(read, self.source, i).result for i in range(*images)}

            def blocks():
                coming = ask(shards[0]) if shards else {}
                for each, following in zip(shards, [*shards[1:], Range(0, 0)]):
                    found = _gather(coming)
                    coming = ask(following)
                    yield each, found

            try:
                yield blocks()
            finally:
                reader.shutdown(cancel_futures=True)

    def rows(self, samples: list[Sample], errors: list[dict]) -> _Rows:
        """Rows of some images, and errors of those that have none."""
        try:
            return self._rows(samples), errors
        except _IMAGE_ERRORS:
            rows = []
        for sample in samples:  # rows do not depend on the block
            try:
                rows += self._rows([sample])
            except _IMAGE_ERRORS as error:
                errors.append(_record(sample.index, sample.id, error))
        return rows, sorted(errors, key=lambda error: error["image"])

    def _rows(self, samples: list[Sample]) -> list[dict]:
        rows = self.study.rows(self.block(samples)) if samples else []
        return sorted(rows, key=lambda row: row["image"])


def _gather(asked: Mapping[int, Callable[[], Sample]]) -> _Read:
    """What calls for images give, and errors of those that fail."""
    samples, errors = [], []
    for index, get in asked.items():
        try:
            samples.append(get())
        except Exception as error:  # sources are others' code
            errors.append(_record(index, str(index), error))
    return samples, errors


def _identify(network) -> dict[str, str]:
    """What a network's answers depend on."""
    module = getattr(network, "module", None)
    dtype = getattr(module, "dtype", np.float32)
    architecture = type(network).__qualname__ if module is None else repr(module)
    return {
        "architecture": " ".join(re.sub(r" at 0x[0-9a-f]+", "", architecture).split()),
        "weights_sha256": weights_sha256(getattr(network, "variables", network)),
        "preprocessing": str(network.preprocessing),
        "dtype": np.dtype(dtype).name,
    }


def _software_and_device() -> dict[str, Any]:
    """What rows are made by, for the record."""
    versions = {name: version(name) for name in _RECORDED}
    return {
        "versions": versions | {"python": platform.python_version()},
        "device": jax.devices()[0].device_kind,
    }


def _record(index: int, name: str, error: Exception) -> dict[str, Any]:
    # Names of files may be no UTF-8.
    text = " ".join(str(error).split()).encode("utf-8", "backslashreplace").decode()
    return {"image": index, "id": name, "error": f"{type(error).__name__}: {text}"}


def _check_networks(networks) -> Mapping[str, Any]:
    if networks is None:
        networks = DEFAULT_NETWORKS
    if isinstance(networks, str):
        networks = (networks,)
    if not isinstance(networks, Mapping):
        networks = {name: load(name) for name in networks}
    if not networks:
        raise ValueError("networks must be one or more, got none")
    for name, network in networks.items():
        if not hasattr(network, "apply") or not hasattr(network, "preprocessing"):
            raise ValueError(
                f"networks[{name!r}] must be a classifier such as lmjax.models.load gives, got "
                f"{type(network).__name__}"
            )
    return networks


def _copied(network, mesh: Mesh):
    """The network, its weights on every device once and for all."""
    return jax.tree.map(
        lambda leaf: replicated(leaf, mesh) if isinstance(leaf, jax.Array) else leaf, network
    )


def _check_images(images: int | None, source) -> int:
    if len(source) == 0:
        raise ValueError(f"source has no images: {source!r}")
    if images is None:
        images = len(source)
    if isinstance(images, bool) or images != int(images) or not 1 <= images <= len(source):
        raise ValueError(
            f"images must be from 1 to the {len(source)} that the source has, got {images!r}"
        )
    return int(images)


def _check_shard(shard) -> slice:
    number, of = shard
    if not 0 <= number < of:
        raise ValueError(f"shard must be (i, n) with i from 0 to n - 1, got {shard!r}")
    return slice(number, None, of)


def _progress_bar(study: Study, shards: list[Range], progress: bool | None):
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    return tqdm(
        total=sum(stop - start for start, stop in shards),
        desc=study.name,
        unit=" images",
        mininterval=0.1 if on_terminal else 60,  # in a log, a line a minute
        disable=not (on_terminal if progress is None else progress),
    )


def _warn(job: _Job, missing: list[Range], errors: list[dict]) -> None:
    if errors:
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
