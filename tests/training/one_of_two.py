"""`lmjax train` of a tiny network, alone or as one of two processes (test_distributed.py).

Arguments: the folder, the step at whose last image to stall (or -1), more options of the command.
"""

import functools
import sys
import time

from lmjax._utils import sharding
from lmjax.cli import main as cli
from lmjax.cli import train
from lmjax.data import DigitScenes
from lmjax.models import registry
from lmjax.training.batches import indices
from tests.training import a_run

EPOCHS, IMAGES, BATCH = 2, 32, 8
OPTIONS = {
    **{"epochs": EPOCHS, "images-per-epoch": IMAGES, "batch-size": BATCH, "checkpoint-steps": 3},
    **{"accumulate": 2, "ema": 0.9, "learning-rate": 0.01, "small-share": 1, "small-size": 32},
    **{"augmentations": "cutmix", "test-images": 21},  # an odd number, so that one does not count
}


def stall(step):
    """The last image of a step, from 1, is never there."""
    length = EPOCHS * IMAGES
    stalled = indices(step - 1, length=length, batch_size=BATCH, seed=0)[-1]
    image_of = DigitScenes.__getitem__

    def image_or_wait(self, index):
        while len(self) == length and index == stalled:
            time.sleep(1)
        return image_of(self, index)

    DigitScenes.__getitem__ = image_or_wait


def main(out, stalled, *options):
    registry.NetworkInfo.build = a_run.build
    train.join = functools.partial(sharding.join, heartbeat_timeout_seconds=10)
    if int(stalled) > 0:
        stall(int(stalled))
    words = [str(word) for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    cli.main(["train", "digit-scenes", *words, "--output", out, *options])


if __name__ == "__main__":
    main(*sys.argv[1:])
