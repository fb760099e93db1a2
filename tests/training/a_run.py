"""A training run of a tiny network, for tests: here, or by itself in a process (`python a_run.py`).

Arguments: its folder, and after how many steps there is a checkpoint.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from lmjax.data import DigitScenes
from lmjax.models import registry
from lmjax.training import TrainingConfig, train
from tests.training.small_network import Small

CONFIG = TrainingConfig(
    epochs=3,
    images_per_epoch=64,
    batch_size=8,
    accumulate=2,
    optimizer="adamw",
    learning_rate=0.01,
    ema=0.9,
    augmentations=("cutout:black",),
    small_share=1.0,
    small_size=32,
)


def build(network, **options):
    """Takes the place of `registry.NetworkInfo.build`: what is small compiles fast."""
    return Small(**{"num_classes": 10, **options})


def run(out, *, config=CONFIG, checkpoint_steps=None, **options):
    """Trains."""
    return train(
        "resnet18_digits",
        DigitScenes("train", length=48),  # less than an epoch: passes follow each other
        config=config,
        output=out,
        checkpoint_steps=checkpoint_steps,
        progress=False,
        **options,
    )


if __name__ == "__main__":
    registry.NetworkInfo.build = build
    run(sys.argv[1], checkpoint_steps=int(sys.argv[2]))
