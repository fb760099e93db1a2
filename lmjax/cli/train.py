"""`lmjax train`: a command for any network and source, and one for the bundled network."""

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import tyro
from jax.sharding import Mesh
from tyro.conf import Positional, arg

from lmjax import data
from lmjax._utils.sharding import join, mesh_of
from lmjax.data.opening import FORMS
from lmjax.training.config import TrainingConfig
from lmjax.training.loop import train

DIGIT_SCENES = TrainingConfig(
    images_per_epoch=12_000,
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.05,
    warmup=0.1,
    label_smoothing=0.0,
    small_share=2 / 3,
)
"""The settings that made the bundled network."""

# A process that ends waits so long for the others, seconds. They end together, unless one has
# failed: then they wait for it, and this wait is in vain.
_END_TOGETHER = 60

_Config = Annotated[TrainingConfig, arg(name="")]
_OptionalInt = Annotated[int | None, arg(metavar="INT")]
_OptionalStr = Annotated[str | None, arg(metavar="STR")]


def build() -> tyro.extras.SubcommandApp:
    """The commands by name."""
    app = tyro.extras.SubcommandApp()
    app.command(network)
    app.command(digit_scenes, name="digit-scenes")
    return app


def network(
    name: Annotated[Positional[str], arg(metavar="NAME")],
    /,
    config: _Config = TrainingConfig(),  # noqa: B008
    *,
    source: str,
    test: _OptionalStr = None,
    test_images: int = 2000,
    num_classes: _OptionalInt = None,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    checkpoint_steps: _OptionalInt = None,
    distributed: bool = False,
) -> None:
    """Train a network on a source of images.

    Args:
        name: NAME starts from random weights, NAME=WEIGHTS from trained ones, where WEIGHTS is a
            file, the folder of a training or a tag; the classifier is replaced where the number
            of classes differs.
        config: settings.
        source: of images with labels: {FORMS}. See docs/data.md.
        test: a source that accuracy is measured on after every epoch.
        test_images: how many scenes, if that is of digit scenes.
        num_classes: of the network; by default as many as the source has.
        out: folder for weights, metrics and checkpoints; runs/NAME by default. Run again to go on.
        checkpoint_steps: keep a checkpoint every so many steps too, not only after epochs.
        distributed: train on the devices of all processes of a cluster, which JAX finds out about
            (SLURM, Open MPI, Kubernetes, Cloud TPU). See docs/devices.md.
    """
    mesh = _together() if distributed else None
    name, _, weights = name.partition("=")
    scenes, config = _open(source, config)
    path = train(
        name,
        scenes,
        config=config,
        out=Path("runs") / name if out is None else out,
        test=None if test is None else data.open_source(test, length=test_images),
        weights=weights or None,
        num_classes=num_classes,
        checkpoint_steps=checkpoint_steps,
        progress=True,
        mesh=mesh,
    )
    _tell(path)


network.__doc__ = network.__doc__.replace("{FORMS}", "; ".join(FORMS))


def digit_scenes(
    config: _Config = DIGIT_SCENES,
    *,
    source: str = "digit-scenes,split=train",
    test: _OptionalStr = None,
    test_images: int = 2000,
    out: Path = Path("runs/digit-scenes"),
    checkpoint_steps: _OptionalInt = None,
    distributed: bool = False,
) -> None:
    """Train resnet18_digits, the bundled network, from nothing; by default as it was made.

    Args:
        config: settings.
        source: of training scenes; every epoch has fresh ones, of the run's seed unless it has one.
        test: of the scenes that accuracy is measured on after every epoch; by default the source's
            with split=test.
        test_images: how many.
        out: folder for weights, metrics and checkpoints. Run again to go on.
        checkpoint_steps: keep a checkpoint every so many steps too, not only after epochs.
        distributed: train on the devices of all processes of a cluster, which JAX finds out about
            (SLURM, Open MPI, Kubernetes, Cloud TPU). See docs/devices.md.
    """
    mesh = _together() if distributed else None
    test = source.replace("split=train", "split=test") if test is None else test
    scenes, config = _open(source, config)
    path = train(
        "resnet18_digits",
        scenes,
        config=config,
        out=out,
        test=data.open_source(test, length=test_images),
        half_precision=True,
        checkpoint_steps=checkpoint_steps,
        progress=True,
        mesh=mesh,
    )
    _tell(path)


def _together() -> Mesh:
    """The devices of all processes of the cluster."""
    join(shutdown_timeout_seconds=_END_TOGETHER)
    return mesh_of(jax.devices())


def _tell(path: Path) -> None:
    if jax.process_index() == 0:
        print(f"wrote {path}")


def _open(source: str, config: TrainingConfig):
    """The source; digit scenes are fresh in every epoch, so there are as many as a run takes."""
    if source.split(",")[0] != "digit-scenes":
        return data.open_source(source), config
    if config.images_per_epoch is None:
        config = dataclasses.replace(config, images_per_epoch=DIGIT_SCENES.images_per_epoch)
    if ",seed=" not in source:
        source += f",seed={config.seed}"
    return data.open_source(source, length=config.epochs * config.images_per_epoch), config
