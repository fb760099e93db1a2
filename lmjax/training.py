"""Training with optax.

Images are uint8 [N, H, W, 3] until the jitted step, which scales and normalises them as the
classifier's preprocessing says; labels are int [N].

`train_step` and the functions it calls know nothing of the data; `train_digit_scenes` puts them
together with digit scenes, checkpoints and metrics.
"""

import collections
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import serialization

from lmjax.atomic import atomic_write
from lmjax.data.digit_scenes import SIZE, DigitScenes
from lmjax.masking.masked import Masked
from lmjax.models import checkpoints, registry
from lmjax.models.classifier import Classifier
from lmjax.models.loading import load
from lmjax.models.preprocess import Preprocessing

NETWORK = "resnet18_digits"
Batch = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run. The defaults made the weights that come with the package.

    Args:
        epochs: passes of `scenes_per_epoch` scenes.
        small_epochs: how many of the first epochs see images shrunk to `small_size`: cheaper, and
            the coarse shape of digits is learnt there.
        small_size: height and width in those epochs, pixels.
        scenes_per_epoch: training scenes in an epoch; every epoch has fresh ones.
        test_scenes: scenes of the test split that accuracy is measured on, after every epoch.
        batch_size: scenes in a step.
        learning_rate: AdamW's at its peak, after a linear warm-up; a cosine takes it to zero.
        warmup: share of the steps that warm up, at least 0 and below 1.
        weight_decay: AdamW's, on kernels alone.
        seed: of the initial weights and of the training scenes.
    """

    epochs: int = 12
    small_epochs: int = 8
    small_size: int = 80
    scenes_per_epoch: int = 12_000
    test_scenes: int = 2_000
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "test_scenes", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.small_epochs <= self.epochs:
            raise ValueError(
                f"small_epochs is {self.small_epochs}; it must be in 0..epochs ({self.epochs})"
            )
        if not 32 <= self.small_size <= SIZE:
            raise ValueError(f"small_size is {self.small_size}; it must be in 32..{SIZE}")
        if self.scenes_per_epoch < self.batch_size:
            raise ValueError(
                f"scenes_per_epoch is {self.scenes_per_epoch}; it must be at least batch_size "
                f"({self.batch_size})"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}; it must be at least 0 and below 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be at least 0")

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.scenes_per_epoch // self.batch_size


# Generic: one step of training, whatever the data


class TrainState(NamedTuple):
    """What a step changes, as one pytree."""

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    optimizer: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """The network's variables."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def make_optimizer(config: TrainingConfig) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), linear warm-up and cosine decay."""
    steps = config.epochs * config.steps_per_epoch
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup_steps=int(config.warmup * steps), decay_steps=steps
    )
    return optax.adamw(schedule, weight_decay=config.weight_decay, mask=_is_kernel)


def _is_kernel(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


@functools.partial(jax.jit, static_argnames=("module", "config"))
def initial_state(key: jax.Array, *, module: nn.Module, config: TrainingConfig) -> TrainState:
    """Random weights and a fresh optimizer."""
    variables = module.init(key, Masked(jnp.zeros((1, 64, 64, 3))))
    params = variables["params"]
    return TrainState(params, variables["batch_stats"], make_optimizer(config).init(params))


@functools.partial(
    jax.jit, static_argnames=("module", "preprocessing", "config", "size"), donate_argnames="state"
)
def train_step(
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    *,
    module: nn.Module,
    preprocessing: Preprocessing,
    config: TrainingConfig,
    size: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of gradient descent on the cross entropy of a batch.

    Args:
        state: consumed; use the one returned.
        images: uint8 [N, H, W, 3].
        labels: int [N].
        module: the network.
        preprocessing: gives the normalisation.
        config: gives the optimizer.
        size: images are shrunk to this height and width if theirs differ.

    Returns:
        The next state, and the batch's mean loss and accuracy before the step.
    """
    inputs = Masked(preprocessing.normalise(_shrink(images.astype(jnp.float32) / 255, size)))

    def loss_of(params):
        logits, changed = module.apply(
            {"params": params, "batch_stats": state.batch_stats},
            inputs,
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        accuracy = (logits.argmax(axis=-1) == labels).mean()
        return losses.mean(), (changed["batch_stats"], accuracy)

    (loss, (batch_stats, accuracy)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
        state.params
    )
    update, optimizer = make_optimizer(config).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, update)
    return TrainState(params, batch_stats, optimizer), {"loss": loss, "accuracy": accuracy}


def _shrink(images: jax.Array, size: int) -> jax.Array:
    n, height, width, channels = images.shape
    if (height, width) == (size, size):
        return images
    return jax.image.resize(images, (n, size, size, channels), "linear", antialias=True)


@jax.jit
def _predict(classifier: Classifier, images: jax.Array) -> jax.Array:
    return classifier.apply(classifier.normalise(images.astype(jnp.float32) / 255)).argmax(axis=-1)


def accuracy(classifier: Classifier, batches: Iterable[Batch]) -> float:
    """Share of images, 0..1, whose largest logit is the label's; nothing masked."""
    right = total = 0
    for images, labels in batches:
        right += int((np.asarray(_predict(classifier, images)) == labels).sum())
        total += len(labels)
    return right / total


# Digit scenes


def train_digit_scenes(
    config: TrainingConfig, out: str | os.PathLike, *, progress: bool | None = None
) -> Path:
    """Trains `resnet18_digits` on digit scenes, from random weights.

    A run that was interrupted goes on from its last whole epoch when it is called again with the
    same config and folder, and gives what it would have given without the interruption.

    Args:
        config: see `TrainingConfig`.
        out: folder, made if needed: `resnet18_digits.safetensors` (the weights, in half precision,
            with torchvision's keys), `metrics.jsonl` (a line an epoch: epoch, loss,
            train_accuracy, test_accuracy, seconds) and `checkpoint.msgpack`.
        progress: whether to show a progress bar; None shows one on a terminal.

    Returns:
        Path of the weights. Their metadata hold the config, the accuracy of the weights as stored,
        and the version of lmjax.

    Raises:
        ValueError: the folder holds a run with another config, or an unreadable checkpoint.
        OSError: the folder cannot be written.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    network = registry.network(NETWORK)
    module, preprocessing = network.build(), network.preprocessing
    state, metrics = _begin(out / "checkpoint.msgpack", config, module)
    test = list(_scene_batches("test", 0, config.test_scenes, 100, seed=0))

    for epoch in range(len(metrics), config.epochs):
        start = time.perf_counter()
        size = config.small_size if epoch < config.small_epochs else SIZE
        steps = []
        for images, labels in _epoch_batches(config, epoch, progress=progress):
            state, step = train_step(
                state,
                images,
                labels,
                module=module,
                preprocessing=preprocessing,
                config=config,
                size=size,
            )
            steps.append(step)
        row = {"epoch": epoch + 1, **_means(steps)}
        row["test_accuracy"] = accuracy(Classifier(state.variables, module, preprocessing), test)
        row["seconds"] = round(time.perf_counter() - start, 1)
        metrics.append(row)
        _write_metrics(out / "metrics.jsonl", metrics)
        _save(out / "checkpoint.msgpack", config, state, metrics)
    _write_metrics(out / "metrics.jsonl", metrics)
    return _export(out / f"{NETWORK}.safetensors", config, state, test)


def _means(steps: list[dict[str, jax.Array]]) -> dict[str, float]:
    loss, right = (np.mean([float(s[name]) for s in steps]) for name in ("loss", "accuracy"))
    return {"loss": float(loss), "train_accuracy": float(right)}


def _epoch_batches(config: TrainingConfig, epoch: int, *, progress: bool | None) -> Iterator[Batch]:
    """An epoch's batches: scenes that no other epoch has, so they need no shuffling."""
    from tqdm import tqdm

    start = epoch * config.scenes_per_epoch
    batches = _scene_batches(
        "train",
        start,
        start + config.steps_per_epoch * config.batch_size,
        config.batch_size,
        seed=config.seed,
    )
    show = sys.stderr.isatty() if progress is None else progress
    label = f"epoch {epoch + 1}/{config.epochs}"
    return iter(tqdm(batches, label, config.steps_per_epoch, disable=not show))


def _scene_batches(
    split: str, start: int, stop: int, batch_size: int, *, seed: int
) -> Iterator[Batch]:
    """Scenes start..stop-1 in batches, rendered ahead in a background thread."""
    scenes = DigitScenes(split, length=stop, seed=seed)

    def render(first: int) -> Batch:
        batch = [scenes[i] for i in range(first, min(first + batch_size, stop))]
        return np.stack([s.image for s in batch]), np.array([s.label for s in batch])

    return _ahead(render, range(start, stop, batch_size))


def _ahead(function: Callable, arguments: Iterable, *, depth: int = 8) -> Iterator:
    """`map` in a background thread, at most `depth` results ahead of the reader."""
    executor = ThreadPoolExecutor(1)
    pending = collections.deque()
    try:
        for argument in arguments:
            pending.append(executor.submit(function, argument))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


# Files


def _write_metrics(path: Path, metrics: list[dict[str, float]]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in metrics))


def _save(path: Path, config: TrainingConfig, state: TrainState, metrics: list) -> None:
    content = {"config": dataclasses.asdict(config), "metrics": json.dumps(metrics), "state": state}
    with atomic_write(path) as temporary:
        temporary.write_bytes(serialization.to_bytes(content))


def _begin(path: Path, config: TrainingConfig, module: nn.Module) -> tuple[TrainState, list]:
    """The state and metrics of a checkpoint; if there is no file, random weights and no metrics."""
    key = jax.random.key(config.seed)
    if not path.exists():
        return initial_state(key, module=module, config=config), []
    damaged = f"{path} is not a readable checkpoint; delete it to start anew"
    try:
        content = serialization.msgpack_restore(path.read_bytes())
        saved, metrics, state = content["config"], json.loads(content["metrics"]), content["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(damaged) from error
    wanted = dataclasses.asdict(config)
    differing = [name for name in wanted if saved.get(name) != wanted[name]]
    if differing:
        changes = ", ".join(f"{n} {saved.get(n)} there, {wanted[n]} now" for n in differing)
        raise ValueError(
            f"{path} is of a run with another config ({changes}); "
            "choose another folder, or delete it to start anew"
        )
    shapes = jax.eval_shape(functools.partial(initial_state, module=module, config=config), key)
    return jax.tree.map(jnp.asarray, serialization.from_state_dict(shapes, state)), metrics


def _export(path: Path, config: TrainingConfig, state: TrainState, test: list[Batch]) -> Path:
    """Writes the weights in half precision; their accuracy is that of the file, read back."""
    state_dict = checkpoints.to_state_dict(state.variables)
    half = {key: value.astype(np.float16) for key, value in state_dict.items()}
    metadata = {"lmjax": version("lmjax"), "config": dataclasses.asdict(config)}
    checkpoints.save_safetensors(path, half, metadata=metadata)
    metadata["test_accuracy"] = accuracy(load(NETWORK, weights=path), test)
    checkpoints.save_safetensors(path, half, metadata=metadata)
    return path
