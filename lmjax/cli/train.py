"""`lmjax train`: a command for any network and source, and one for the bundled network."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro
from jax.sharding import Mesh
from tyro.conf import Positional, arg

from lmjax import data
from lmjax._utils.checks import check_whole
from lmjax._utils.sharding import join, mesh_of
from lmjax.cli.compilation_cache import compilation_cache
from lmjax.cli.options import OptionalInt, OptionalStr, documented, options_of
from lmjax.cli.terminal import say_written
from lmjax.data import Source, SourceSpec
from lmjax.training.config import TrainingConfig
from lmjax.training.loop import train

LESS_MEMORY = "use a larger --accumulate or a smaller --batch-size"

_IMAGES_PER_EPOCH = 12_000  # of a source that is generated
_Options = options_of(TrainingConfig)
DIGIT_SCENES = _Options(
    images_per_epoch=_IMAGES_PER_EPOCH,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.05,
    warmup=0.1,
    label_smoothing=0.0,
    small_share=2 / 3,
)
"""The settings that made the bundled network."""

# Seconds that a process that ends waits for the others. They end together, unless one has failed,
# and then this wait is in vain.
_END_TOGETHER = 60

_OLD_OPTIONS = {"out": "output"}

_Config = Annotated[_Options, arg(name="")]


def build() -> tyro.extras.SubcommandApp:
    """Returns the commands by name."""
    app = tyro.extras.SubcommandApp()
    app.command(network)
    app.command(name="digit-scenes")(digit_scenes)
    return app


def old_options(arguments: Sequence[str]) -> Mapping[str, str]:
    """Returns the options whose names changed: old name -> new name."""
    return _OLD_OPTIONS


@compilation_cache()
@documented
def network(
    name: Annotated[Positional[str], arg(metavar="NAME")],
    /,
    config: _Config = _Options(),  # noqa: B008 # pyright: ignore[reportInvalidTypeForm]
    *,
    source: str,
    test: OptionalStr = None,
    test_images: int = 2000,
    num_classes: OptionalInt = None,
    output: Annotated[Path | None, arg(metavar="DIR")] = None,
    checkpoint_steps: OptionalInt = None,
    distributed: bool = False,
) -> None:
    """Trains a network on a source of images.

    Args:
        name: NAME starts from random weights, NAME=WEIGHTS from trained ones, where WEIGHTS is a
            file, the folder of a training or a tag; the classifier is replaced where the number
            of classes differs.
        config: settings.
        source: of images with labels: `lmjax.data.forms()`. `lmjax data list` tells how to
            get datasets. Of one with splits, the training split, unless it says another.
        test: a source that accuracy is measured on after every epoch. As in studies, it has the
            images to be judged, unless it says another split.
        test_images: how many scenes, if that is of digit scenes.
        num_classes: of the network; by default as many as the source has.
        output: folder for weights, metrics and checkpoints; runs/NAME by default. Run again to go
            on.
        checkpoint_steps: keep a checkpoint each time this many steps are done, and after epochs.
        distributed: train on the devices of all processes of a cluster, which JAX finds by itself
            (SLURM, Open MPI, Kubernetes, Cloud TPU).
    """
    check_whole("test_images", test_images, least=1)
    mesh = _join_cluster() if distributed else None
    name, _, weights = name.partition("=")
    training, config = _open(SourceSpec.parse(source), config)
    path = train(
        name,
        training,
        config=config,
        output=Path("runs") / name if output is None else output,
        test=None if test is None else data.open_source(test, length=test_images),
        weights=weights or None,
        num_classes=num_classes,
        checkpoint_steps=checkpoint_steps,
        progress=True,
        mesh=mesh,
    )
    _print_written(path)


@compilation_cache()
@documented
def digit_scenes(
    config: _Config = DIGIT_SCENES,  # pyright: ignore[reportInvalidTypeForm]
    *,
    source: str = "digit-scenes,split=train",
    test: OptionalStr = None,
    test_images: int = 2000,
    output: Path = Path("runs/digit-scenes"),
    checkpoint_steps: OptionalInt = None,
    distributed: bool = False,
) -> None:
    """Trains resnet18_digits, the bundled network, from scratch; by default as it was made.

    Args:
        config: settings.
        source: of training scenes; split=train, unless it says another; every epoch has fresh
            ones, of the run's seed unless it has one.
        test: of the scenes that accuracy is measured on after every epoch; by default the source's
            with split=test, and none where its split is no option.
        test_images: how many.
        output: folder for weights, metrics and checkpoints. Run again to go on.
        checkpoint_steps: keep a checkpoint each time this many steps are done, and after epochs.
        distributed: train on the devices of all processes of a cluster, which JAX finds by itself
            (SLURM, Open MPI, Kubernetes, Cloud TPU).
    """
    check_whole("test_images", test_images, least=1)
    mesh = _join_cluster() if distributed else None
    spec = SourceSpec.parse(source)
    training, config = _open(spec, config)
    tested = _test_split(spec) if test is None else SourceSpec.parse(test)
    path = train(
        "resnet18_digits",
        training,
        config=config,
        output=output,
        test=None if tested is None else tested.open(length=test_images),
        half_precision=True,
        checkpoint_steps=checkpoint_steps,
        progress=True,
        mesh=mesh,
    )
    _print_written(path)


def _join_cluster() -> Mesh:
    """Joins the cluster; returns the devices of all its processes."""
    join(shutdown_timeout_seconds=_END_TOGETHER)
    return mesh_of(jax.devices())


def _print_written(path: Path) -> None:
    if jax.process_index() == 0:
        say_written(path)


def _test_split(spec: SourceSpec) -> SourceSpec | None:
    """Returns the test split of a source; None where its split is no option."""
    split = "split" in spec.for_training().options
    return spec.with_options(split="test") if split else None


def _open(spec: SourceSpec, config: TrainingConfig) -> tuple[Source, TrainingConfig]:
    """Opens a source of training images, by default its training split; completes the settings.

    A source that is generated has fresh images in every epoch, drawn with the seed of the training
    unless it names its own.
    """
    spec = spec.for_training()
    if not spec.generated:
        return spec.open(), config
    images = config.images_per_epoch or _IMAGES_PER_EPOCH
    config = dataclasses.replace(config, images_per_epoch=images)
    if "seed" in spec.accepts and "seed" not in spec.options:
        spec = spec.with_options(seed=config.seed)
    return spec.open(length=config.epochs * images), config
