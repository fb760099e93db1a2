"""Training runs, which go on from the last checkpoint after a kill."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax import __version__
from lmjax._utils import sharding
from lmjax._utils.checks import check_whole
from lmjax._utils.identity import has_version, source_version
from lmjax._utils.interruption import noted, set_unsaved, stop_if_noted
from lmjax._utils.progress import progress_bar
from lmjax._utils.registry import registered_code
from lmjax._utils.renamed import renamed
from lmjax.data.labels import check_classes
from lmjax.data.opening import SourceSpec, open_source
from lmjax.data.source import Example, Source, read_example
from lmjax.masking.masked import Masked
from lmjax.models import checkpoints, registry
from lmjax.models.classifier import Classifier
from lmjax.models.identity import architecture_of
from lmjax.models.loading import build, load_trained
from lmjax.models.preprocessing import Preprocessing
from lmjax.removals.masking import check_masking
from lmjax.removals.registry import file_hashes
from lmjax.training.augmentation import masking_of, needs_objects, parse
from lmjax.training.batches import Batch, Reader, ahead, indices
from lmjax.training.config import TrainingConfig
from lmjax.training.measurement import measure
from lmjax.training.run_folder import RunFolder
from lmjax.training.step import TrainState, initial_state, train_step

_GIVEN = "classifier"  # name of a network that is given as a classifier
_LAG = 2  # steps whose results are not waited for, so that devices never are


@renamed(out="output")
def train(
    network: str | Classifier,
    source: Source | str,
    *,
    config: TrainingConfig | None = None,
    output: str | os.PathLike,
    test: Source | str | None = None,
    weights: str | os.PathLike | None = None,
    num_classes: int | None = None,
    half_precision: bool = False,
    checkpoint_steps: int | None = None,
    progress: bool | None = None,
    mesh: Mesh | None = None,
) -> Path:
    """Trains a network on a source of images, from random weights or from trained ones.

    A run that was stopped, by `kill -9` too, goes on from its last checkpoint when it is called
    again with the same arguments, and gives what it would have given otherwise, bit for bit on the
    same machine and devices.

    The devices of a mesh share each batch. Where it spans processes, all of them call this with the
    same arguments, each reads the images of its own devices, and the first writes the folder.

    Example:
      >>> scenes = lmjax.data.DigitScenes("train", length=24_000)
      >>> config = TrainingConfig(epochs=2, augmentations=("patches:layer",))
      >>> path = train("resnet18_digits", scenes, config=config, output="runs/parts")
      >>> classifier = lmjax.models.load("resnet18_digits", weights=path)

    Args:
      network: a name of the registry, or a classifier, whose weights training starts from. One of
        another framework keeps the statistics of its batch norms, since it is run as at inference.
      source: an `lmjax.data.Source` whose examples have `image`, uint8 `[H, W, C]`, and `label`;
        where an augmentation asks for it `object_mask`. Its `version` names its content. Or what is
        written for one on the command line, such as `"folder:train"` or `"digit-scenes"`, of which
        it is the training split unless it says another.
      config: the settings; None takes the defaults.
      output: folder of the run, see `lmjax.training.run_folder`.
      test: examples that accuracy is measured on after every epoch, nothing hidden. Those that
        cannot be read or have no label of the network are left out, with a warning. A thread reads
        the images of training ahead, and one those of the test; they take turns.
      weights: to start from: a file, the folder of a training or a tag, as `lmjax.models.load`
        takes them; a classifier for another number of classes is replaced by a random one. None
        starts from random weights.
      num_classes: None takes those of the source's `class_names`, or else the network's.
      half_precision: whether weights are stored in half precision at the end.
      checkpoint_steps: steps between checkpoints besides those at the end of each epoch; None keeps
        only those.
      progress: whether to show a progress bar; None shows one on a terminal and in a
        notebook.
      mesh: the devices, with any axes; some of every process of a cluster. None takes
        all of this process, or `jax.default_device` where that is set; in a cluster that is an
        error.

    Returns:
      Path of the weights: a state dict with torch's keys that `lmjax.models.load` and torch read;
      `classifier.with_weights(path)` where a classifier was trained. Their metadata hold settings,
      test accuracy and the version of lmjax.

    Raises:
      ValueError: arguments out of range, a folder of another run, examples that lack what training
        needs, a loss that is not finite, or processes that do not agree.
      OSError: files that cannot be read or written.
    """
    mesh = sharding.check_mesh(mesh, of_all_processes=True)
    mesh = sharding.mesh_of(mesh.devices.ravel().tolist())
    if isinstance(source, str):
        source = SourceSpec.parse(source).for_training().open()
    test = open_source(test) if isinstance(test, str) else test
    job = _prepare(network, source, config or TrainingConfig(), test, weights, num_classes, mesh)
    if checkpoint_steps is not None:
        checkpoint_steps = check_whole("checkpoint_steps", checkpoint_steps, least=1)
    same = [job.identity, half_precision, checkpoint_steps, [each.id for each in mesh.devices.flat]]
    sharding.check_same(json.dumps(same), "network, source, test, settings or mesh", mesh)
    with RunFolder(output) as folder:
        state = _begin(job, folder)
        state = _steps(job, folder, state, checkpoint_steps or job.config.steps, progress)
        return _export(job, folder.output / f"{job.name}.safetensors", state, half_precision)


@dataclasses.dataclass(frozen=True)
class _Job:
    """Checked arguments of a run."""

    name: str
    config: TrainingConfig
    module: Any
    preprocessing: Preprocessing
    reader: Reader
    test: Reader | None
    start: dict[str, Any] | None  # variables to start from, if not random
    class_names: tuple[str, ...] | None
    mesh: Mesh  # of one axis

    @functools.cached_property  # hashes the weights to start from
    def identity(self) -> dict[str, Any]:
        """The facts that a run depends on, other software and devices apart."""
        start = None if self.start is None else checkpoints.weights_sha256(self.start)
        augmentations = parse(self.config.augmentations)
        fills = [each.fill for each in augmentations if each.fill is not None]
        files, registered = file_hashes(fills), registered_code([self.name, *fills])
        return {
            "network": self.name if self.name != _GIVEN else architecture_of(self.module),
            "classes": self.module.num_classes,
            "start": start,
            **_identify("source", self.reader),
            **_identify("test", self.test),
            "settings": dataclasses.asdict(self.config),
            **({"files": files} if files else {}),
            **({"registered": registered} if registered else {}),
            "lmjax": __version__,
        }

    def begin(self) -> TrainState:
        """Returns the state before the first step."""
        if self.start is None:
            variables = initial_variables(self.module, self.preprocessing, self.config.seed)
        else:
            variables = jax.tree.map(jnp.array, self.start)  # a copy: steps take their memory
        return initial_state(variables, self.config)

    def batches(self, start: int) -> Iterator[Batch]:
        """Reads this process's part of the batches of all steps from one on, ahead of use."""
        options = {"batch_size": self.config.batch_size, "seed": self.config.seed}
        order = functools.partial(indices, length=len(self.reader.source), **options)
        own = sharding.own_rows(self.config.batch_size, self.mesh)

        def read(step: int) -> Batch:
            batch = order(step)
            return self.reader(batch[i] for i in own)

        return ahead(read, range(start, self.config.steps))

    def test_accuracy(self, variables: dict[str, Any]) -> float | None:
        """Measures the accuracy on the test examples, if there are some that can be read."""
        if self.test is None:
            return None
        classifier = Classifier(variables, self.module, self.preprocessing, self.class_names)
        found = measure(classifier, self.test, mesh=self.mesh)
        return None if math.isnan(found) else found


def _identify(name: str, reader: Reader | None) -> dict[str, Any]:
    """Returns version and length of a source; without a version, a hash of its first example."""
    if reader is None:
        return {name: None, f"{name}_examples": 0}
    source = reader.source
    version = source_version(source)
    if not has_version(source):
        with contextlib.suppress(Exception):  # of the user's code; reading it says so in time
            version += f"/{_sha256(read_example(source, 0))}"
    return {name: version, f"{name}_examples": len(source)}


def _sha256(example: Example) -> str:
    """Hashes the image and label of an example."""
    image = np.ascontiguousarray(example.image)
    about = f"{image.shape} {image.dtype} {example.label}"
    return hashlib.sha256(about.encode() + image.tobytes()).hexdigest()[:12]


@functools.partial(jax.jit, static_argnames=("module", "preprocessing"))
def initial_variables(module, preprocessing: Preprocessing, seed: int) -> dict[str, Any]:
    """Draws random weights of a network."""
    size = module.image_size or 64  # where there is none, any size gives the same
    images = Masked(jnp.zeros((1, size, size, len(preprocessing.mean))))
    return module.init(jax.random.key(seed), images)


def _prepare(network, source, config, test, weights, num_classes, mesh) -> _Job:
    class_names = getattr(source, "class_names", None)
    if num_classes is not None:
        num_classes = check_whole("num_classes", num_classes, least=1)
    else:
        num_classes = len(class_names) if class_names else _own_classes(network)
    if num_classes == 1:
        raise ValueError(
            "training needs two classes or more, and here is one: softmax over one logit is always "
            "1, so that nothing is learnt. Give a source with other classes too"
        )
    if class_names is not None and len(class_names) != num_classes:
        class_names = None
    for name, each in (("source", source), ("test", test)):
        if each is not None and not len(each):
            raise ValueError(f"{name} has no examples")
    if test is not None:
        check_classes(test, "the training's source", source, argument="test")
        if has_version(test) and source_version(test) == source_version(source):
            warnings.warn(
                "test has the images of source, so that its accuracy is that on images that were "
                "learnt; take another split, folder or seed",
                stacklevel=3,
            )
    if config.images_per_epoch is None:
        config = dataclasses.replace(config, images_per_epoch=len(source))
    if isinstance(network, Classifier):
        begin = _given(network, weights, num_classes)
    else:
        begin = _named(network, weights, num_classes, config)
    name, module, preprocessing, start = begin
    _check_fits(config, module, preprocessing, mesh)
    reader = Reader(source, preprocessing, num_classes, needs_objects(config.augmentations))
    of_test = None if test is None else Reader(test, preprocessing, num_classes)
    names = None if class_names is None else tuple(class_names)
    return _Job(name, config, module, preprocessing, reader, of_test, start, names, mesh)


def _own_classes(network: str | Classifier) -> int:
    if isinstance(network, Classifier):
        return network.module.num_classes  # type: ignore[attr-defined]
    return registry.network(network).num_classes


def _given(classifier: Classifier, weights, num_classes: int):
    """The name, module, preprocessing and first weights of a classifier that is given."""
    if weights is not None:
        raise ValueError("weights must be None: the classifier that is given has its own")
    own = _own_classes(classifier)
    if own != num_classes:
        raise ValueError(
            f"the classifier has {own} classes, and the source (or num_classes) {num_classes}; "
            "both must be equal"
        )
    if not classifier.variables["params"]:
        raise ValueError(
            "the classifier has no weights to train: its function must be given them as params, "
            "since arrays that it closes over stay as they are"
        )
    return _GIVEN, classifier.module, classifier.preprocessing, classifier.variables


def _named(network: str, weights, num_classes: int, config: TrainingConfig):
    """The same of a network of the registry; random weights are drawn later."""
    facts = registry.network(network)
    old = None if weights is None else load_trained(network, weights, num_classes=num_classes)
    preprocessing = facts.preprocessing if old is None else old.preprocessing
    module = build(facts, preprocessing, num_classes=num_classes, dtype=jnp.dtype(config.dtype))
    if old is None:
        return network, module, preprocessing, None
    fresh = initial_variables(module, preprocessing, config.seed)
    start = jax.tree.map(lambda a, b: a if a.shape == b.shape else b, old.variables, fresh)
    return network, module, preprocessing, start


def _check_fits(config: TrainingConfig, module, preprocessing: Preprocessing, mesh: Mesh) -> None:
    masking = masking_of(config.augmentations, module.masking)
    if masking is not None:
        check_masking(masking, module.masking)
    if config.small_steps and module.image_size is not None:
        raise ValueError("small_share must be 0: this network takes images of one size only")
    if preprocessing.crop is None:
        raise ValueError("preprocessing must have a crop, so that images are of one size")
    if config.batch_size % (config.accumulate * mesh.size):
        raise ValueError(
            f"batch_size is {config.batch_size}; it must be a multiple of accumulate x devices "
            f"({config.accumulate} x {mesh.size})"
        )


def _begin(job: _Job, folder: RunFolder) -> TrainState:
    """The state of the last checkpoint, or that before the first step."""
    like = jax.eval_shape(job.begin)

    def begin() -> TrainState:
        folder.claim(job.identity)
        state = folder.restore(like)
        return job.begin() if state is None else state

    return sharding.from_first(begin, like, job.mesh)


def _steps(
    job: _Job,
    folder: RunFolder,
    state: TrainState,
    checkpoint_steps: int,
    progress: bool | None,
) -> TrainState:
    """All steps that are left."""
    config, begun, rows, pending = job.config, time.perf_counter(), [], []
    whole, writes = sharding.everywhere(job.mesh), jax.process_index() == 0

    def collect(most: int) -> None:
        while len(pending) > most:
            step, metrics = pending.pop(0)
            row = {name: float(value) for name, value in metrics.items()}
            if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
                raise ValueError(_diverged(step, row, folder))
            seconds = round(time.perf_counter() - begun, 3)
            epoch = (step - 1) // config.steps_per_epoch + 1
            rows.append({"step": step, "epoch": epoch, "seconds": seconds, **row})
            bar.set_postfix(epoch=epoch, loss=f"{row['loss']:.3f}", refresh=False)
            bar.update()

    def save() -> None:
        collect(0)
        if writes:
            folder.save(jax.device_get(state), rows)
        set_unsaved(False)
        rows.clear()

    first = int(state.step)
    batches = job.batches(first)
    options = {"module": job.module, "preprocessing": job.preprocessing, "config": config}
    with _progress_bar(job, first, progress if writes else False) as bar:
        for step in range(first + 1, config.steps + 1):
            try:
                batch = next(batches)
            except Exception:  # an image that cannot be read, or has no label
                if pending and jax.process_count() == 1:
                    save()
                raise
            state, metrics = train_step(
                state,
                *sharding.divided(batch, job.mesh),
                **options,
                size=config.small_size if step <= config.small_steps else None,
                sharding=whole,
            )
            pending.append((step, metrics))
            set_unsaved(True)
            collect(_LAG)
            ends = step % config.steps_per_epoch == 0
            stops = noted() and jax.process_count() == 1
            if ends or stops or step % checkpoint_steps == 0:
                collect(0)
                if ends:
                    rows[-1]["test_accuracy"] = job.test_accuracy(state.trained)
                save()
            stop_if_noted()
    return state


def _diverged(step: int, row: dict[str, float], folder: RunFolder) -> str:
    kept = folder.checkpoints()
    return (
        f"loss is {row['loss']} and gradient_norm {row['gradient_norm']} at step {step}; the run "
        f"has stopped, checkpoints of steps {', '.join(map(str, kept)) or '(none)'} are kept in "
        f"{folder.output}. Try a lower learning_rate or a longer warmup, in another folder"
    )


def _progress_bar(job: _Job, first: int, progress: bool | None):
    return progress_bar(
        progress, total=job.config.steps, initial=first, desc=job.name, unit=" steps"
    )


def _export(job: _Job, path: Path, state: TrainState, half_precision: bool) -> Path:
    """Writes the weights; their accuracy is that of what the file holds."""
    tensors = checkpoints.to_state_dict(jax.device_get(state.trained))
    if half_precision:
        tensors = {
            k: v.astype(np.float16) if v.dtype.kind == "f" else v for k, v in tensors.items()
        }
    preprocessing = dataclasses.asdict(job.preprocessing)
    metadata = {**job.identity, "class_names": job.class_names, "preprocessing": preprocessing}
    if job.test is not None:
        read_back = functools.partial(checkpoints.to_variables, tensors, state.trained)
        written = sharding.from_first(read_back, state.trained, job.mesh)
        metadata["test_accuracy"] = job.test_accuracy(written)

    def write() -> tuple:
        checkpoints.save_safetensors(path, tensors, metadata=metadata)
        return ()

    sharding.from_first(write, (), job.mesh)  # when this returns, the file is there
    return path
