"""The job of a run: its checked arguments, what its rows depend on, and the rows of batches."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, get_args

import jax
from jax.sharding import Mesh

from lmjax import __version__
from lmjax._utils.checks import check_choice, check_whole, set_plain_numbers
from lmjax._utils.identity import source_version
from lmjax._utils.registry import registered_code
from lmjax._utils.sharding import check_mesh, replicated
from lmjax._utils.summary import brief
from lmjax._utils.text import one_line
from lmjax.data.labels import check_classes
from lmjax.data.opening import open_source
from lmjax.data.source import Source
from lmjax.evaluation.evaluator import Engine
from lmjax.masks.keys import hash_draws
from lmjax.models import load
from lmjax.models.calibrations import check_calibrations
from lmjax.models.classifier import check_classifier
from lmjax.models.identity import identify
from lmjax.removals.registry import file_hashes
from lmjax.studies.held_out import HeldOut
from lmjax.studies.images import ImageBatch
from lmjax.studies.run_folder import Range, ranges
from lmjax.studies.samples import Sample, read_sample
from lmjax.studies.settings import row_settings, settings, texts
from lmjax.studies.sizes import as_they_are
from lmjax.studies.study import Study

DEFAULT_MODELS = ("resnet18_digits",)
IMAGES_PER_SHARD = 16
IMAGE_ERRORS = (ValueError, OSError)
"""Errors of one image, which is left out. Any other (no memory, a bug) ends the run."""

Batch = TypeVar("Batch", bound=ImageBatch)
Samples = tuple[list[Sample], list[dict]]  # and the errors of images that cannot be read
Rows = tuple[list[dict], list[dict]]  # and the errors of images without rows


class Job:
    """The checked arguments of a run.

    Args:
      study, source, models, already_sized, images, images_per_shard, engine, batch_size, mesh: as
        in `lmjax.studies.run`.

    Attributes:
      study, images, engine: as given.
      source: opened, where it was given as text, which is `written`.
      networks: classifiers by name, their weights on all devices of the mesh.
      shards: all images, divided.

    Raises:
      ValueError: arguments out of range, settings that do not fit the networks.
    """

    def __init__(
        self,
        study: Study,
        source: Source | str,
        *,
        models: Sequence[str] | Mapping[str, Any] | None,
        images: int | None,
        already_sized: bool = False,
        images_per_shard: int = IMAGES_PER_SHARD,
        engine: Engine = "auto",
        batch_size: int | None = None,
        mesh: Mesh | None = None,
    ):
        if isinstance(study, type) or not isinstance(study, Study):
            raise ValueError(
                "study must be a lmjax.studies.Study, such as lmjax.studies.SegmentRemoval(); got "
                f"{brief(study)}"
            )
        study = copy.copy(study)
        set_plain_numbers(study)
        self.images_per_shard = check_whole("images_per_shard", images_per_shard, least=1)
        self.engine = check_choice("engine", engine, get_args(Engine))
        if batch_size is not None:
            batch_size = check_whole("batch_size", batch_size, least=1)
        check_whole("seed", study.seed, least=0)
        self.written = source if isinstance(source, str) else None
        if isinstance(source, str):
            if images is not None:
                images = check_whole("images", images, least=1)
            source = open_source(source, length=images)
        self.study, self.source = study, source
        mesh = check_mesh(mesh)
        self._options: dict[str, Any] = {"engine": engine, "batch_size": batch_size, "mesh": mesh}
        checked = _check_models(models)
        checked = as_they_are(checked) if already_sized else checked
        self.networks = {name: _copied(network, mesh) for name, network in checked.items()}
        for name, network in self.networks.items():
            check_classes(source, name, network)
        study.check(self.networks)
        named = texts(row_settings(study).values())
        self._files = file_hashes(named)
        self._registered = registered_code(named)
        check_calibrations(self._files, self.networks)
        self._held_out = HeldOut(named, source)
        self.images = _check_images(images, source)
        self.shards = ranges(self.images, self.images_per_shard)

    def identity(self) -> dict[str, Any]:
        """Returns what rows depend on, except other software, the device and the engine."""
        return {
            "study": self.study.name,
            "settings": row_settings(self.study),
            "networks": [
                {"name": name, **identify(network)} for name, network in self.networks.items()
            ],
            **({"files": self._files} if self._files else {}),
            **({"registered": self._registered} if self._registered else {}),
            "source": source_version(self.source),
            "lmjax": __version__,
            "images_per_shard": self.images_per_shard,
            "draws": hash_draws(jax.random.key(self.study.seed)),
        }

    def about(self) -> dict[str, Any]:
        """Returns the manifest's entries besides the identity."""
        written = {} if self.written is None else {"source": self.written}
        return {"images": self.images, **written, "settings": settings(self.study)}

    def batch(self, samples: Sequence[Sample], kind: type[Batch]) -> Batch:
        """Makes a batch of some of the run's images, of the class `kind`."""
        key = jax.random.key(self.study.seed)
        return kind(samples, self.networks, key=key, num_images=self.images, **self._options)

    def read(self, images: Sequence[int]) -> Samples:
        """Reads images."""
        return _gather({i: functools.partial(self._read, i) for i in images})

    def _read(self, image: int) -> Sample:
        sample = read_sample(self.source, image)
        self._held_out.check(sample)
        return sample

    @contextlib.contextmanager
    def reading(self, shards: list[Range]) -> Iterator[Iterator[tuple[Range, Samples]]]:
        """Reads shards in turn, each while the one before it is in use.

        A thread of its own reads, one image after the other: few sources can be read by several
        threads. When the context ends, it stops after the image that it is reading.
        """
        with ThreadPoolExecutor(1) as reader:

            def submit(images: Range) -> dict[int, Callable[[], Sample]]:
                return {i: reader.submit(self._read, i).result for i in range(*images)}

            def batches():
                coming = submit(shards[0]) if shards else {}
                for each, following in zip(shards, [*shards[1:], Range(0, 0)]):
                    found = _gather(coming)
                    coming = submit(following)
                    yield each, found

            try:
                yield batches()
            finally:
                reader.shutdown(cancel_futures=True)

    def rows(self, samples: list[Sample], errors: list[dict]) -> Rows:
        """Measures images, one by one where they fail together.

        Args:
          samples: the images.
          errors: of images that could not be read.
        """
        try:
            return self._rows(samples), errors
        except IMAGE_ERRORS:
            rows = []
        for sample in samples:  # rows do not depend on the batch
            try:
                rows += self._rows([sample])
            except IMAGE_ERRORS as error:
                errors.append(_record(sample.index, sample.id, error))
        return rows, sorted(errors, key=lambda error: error["image"])

    def _rows(self, samples: list[Sample]) -> list[dict]:
        rows = self.study.rows(self.batch(samples, ImageBatch)) if samples else []
        return sorted(rows, key=lambda row: row["image"])


def _gather(calls: Mapping[int, Callable[[], Sample]]) -> Samples:
    """Calls functions that read an image each, by index; errors are recorded."""
    samples, errors = [], []
    for index, get in calls.items():
        try:
            samples.append(get())
        except Exception as error:  # a source is the user's code, which may raise anything
            errors.append(_record(index, getattr(error, "id", str(index)), error))
    return samples, errors


def _record(index: int, name: str, error: Exception) -> dict[str, Any]:
    """Describes the error of an image, as JSON."""
    # File names need not be UTF-8.
    text = one_line(error).encode("utf-8", "backslashreplace").decode()
    return {"image": index, "id": name, "error": f"{type(error).__name__}: {text}"}


def _check_models(models: Sequence[str] | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Returns classifiers by name, loaded where only a name is given."""
    if models is None:
        models = DEFAULT_MODELS
    if isinstance(models, str):
        models = (models,)
    if not isinstance(models, Mapping):
        if not isinstance(models, Iterable) or not all(isinstance(each, str) for each in models):
            raise ValueError(
                "models must be names of networks, or classifiers by name, such as "
                f"{{'mine': classifier}}; got {brief(models)}"
            )
        models = {name: load(name) for name in models}
    if not models:
        raise ValueError("models must be one or more, got none")
    for name, network in models.items():
        check_classifier(f"models[{name!r}]", network)
    return models


def _copied(network: Any, mesh: Mesh) -> Any:
    """Copies a network's weights to every device once, instead of in every call."""
    return jax.tree.map(
        lambda leaf: replicated(leaf, mesh) if isinstance(leaf, jax.Array) else leaf, network
    )


def _check_images(images: int | None, source: Source) -> int:
    """Returns the number of images; raises ValueError where the source has fewer."""
    if len(source) == 0:
        raise ValueError(f"source has no images: {source!r}")
    if images is None:
        return len(source)
    return check_whole("images", images, least=1, most=len(source), note="the images of the source")
