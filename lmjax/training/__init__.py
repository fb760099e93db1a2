"""Training: optax, masking augmentations, runs that survive a kill.

    config = TrainingConfig(epochs=30, augmentations=("flip", "patches:layer"))
    path = train("resnet18", source, config=config, output="runs/pets", weights="IMAGENET1K_V1")

`train_step` and the augmentations are pure functions, for loops of your own.
"""

from lmjax._utils.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Examples": "lmjax.training.augmentation",
        "Reader": "lmjax.training.batches",
        "TrainState": "lmjax.training.step",
        "TrainingConfig": "lmjax.training.config",
        "accuracy": "lmjax.training.measurement",
        "augment": "lmjax.training.augmentation",
        "initial_state": "lmjax.training.step",
        "measure": "lmjax.training.measurement",
        "read_metrics": "lmjax.training.run_folder",
        "train": "lmjax.training.loop",
        "train_step": "lmjax.training.step",
    },
)
