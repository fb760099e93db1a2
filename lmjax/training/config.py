"""Settings of a training run."""

import dataclasses
from typing import Literal

from lmjax import removals
from lmjax._utils.checks import check_choice, check_number, check_whole, set_plain_numbers
from lmjax.training.augmentation import MIXING_KINDS, parse


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run, for any network and images.

    The documentation's page on training has the source of each default.

    Args:
        epochs: passes of images_per_epoch images; accuracy is measured after each.
        images_per_epoch: images in an epoch; None takes as many as the source has.
        batch_size: images in a step.
        accumulate: micro-batches that a step is computed in, one after the other, to save memory.
        optimizer: sgd (with momentum) or adamw.
        learning_rate: at its peak, after the warm-up; a cosine takes it to zero. None takes 0.1 x
            batch_size / 256 for sgd and 0.001 for adamw.
        momentum: of sgd.
        weight_decay: of kernels; norms, biases and embeddings have none.
        warmup: share of the steps in which the learning rate grows from zero, 0 or more, below 1.
        label_smoothing: share of the label that all classes divide among them, 0 or more, below 1.
        ema: decay of the moving average of the weights that is exported and measured; 0 for none.
        augmentations: what is done to images, in this order: flip, cutmix, or KIND:FILL, where KIND
            is patches, cell, few, cutout, erasing or objects, and FILL a removal that needs no
            segments, one of {FILLS}.
        small_share: share of the epochs, the first, that see images shrunk to small_size.
        small_size: height and width in those epochs, pixels.
        dtype: of the computation, float32 or bfloat16; weights are float32.
        seed: of the initial weights, the order of images and the augmentations.

    Raises:
        ValueError: a setting out of range; says which and what is allowed.
    """

    epochs: int = 12
    images_per_epoch: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.05
    label_smoothing: float = 0.1
    ema: float = 0.0
    augmentations: tuple[str, ...] = ()
    small_share: float = 0.0
    small_size: int = 80
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        set_plain_numbers(self)
        for name, least in (
            *(("epochs", 1), ("batch_size", 1), ("accumulate", 1)),
            *(("small_size", 32), ("seed", 0)),
        ):
            check_whole(name, getattr(self, name), least=least)
        for name in ("momentum", "warmup", "label_smoothing", "ema"):
            check_number(name, getattr(self, name), least=0, below=1)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("small_share", self.small_share, least=0, most=1)
        if self.learning_rate is not None:
            check_number("learning_rate", self.learning_rate, above=0)
        check_choice("optimizer", self.optimizer, ("sgd", "adamw"))
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size}; it must be a multiple of accumulate "
                f"({self.accumulate})"
            )
        if self.images_per_epoch is not None:
            check_whole("images_per_epoch", self.images_per_epoch, least=1)
        if self.images_per_epoch is not None and self.images_per_epoch < self.batch_size:
            raise ValueError(
                f"images_per_epoch is {self.images_per_epoch}; it must be at least batch_size "
                f"({self.batch_size})"
            )
        augmentations = parse(self.augmentations)
        mixing = [each for each in augmentations if each.kind in MIXING_KINDS]
        if mixing and self.batch_size == 1:
            raise ValueError(
                f"batch_size must be 2 or more for the augmentation {mixing[0]}, which takes from "
                "another image of the batch; got 1"
            )
        object.__setattr__(self, "augmentations", tuple(map(str, augmentations)))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch, once images_per_epoch is known."""
        return self.images_per_epoch // self.batch_size  # pyright: ignore[reportOptionalOperand]

    @property
    def steps(self) -> int:
        """Steps in all, once images_per_epoch is known."""
        return self.epochs * self.steps_per_epoch

    @property
    def small_steps(self) -> int:
        """Steps, the first, that see small images."""
        return int(self.epochs * self.small_share + 1e-9) * self.steps_per_epoch

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 0.1 * self.batch_size / 256 if self.optimizer == "sgd" else 1e-3


TrainingConfig.__doc__ = (TrainingConfig.__doc__ or "").replace(
    "{FILLS}", ", ".join(name for name in removals.names() if name != "segment_mean")
)
