"""`lmjax train` of a tiny network, alone or as one of two processes (test_distributed.py).

Arguments: the folder, the step at which to stall (or -1), more options of the command.
"""

import functools
import sys
import time

from lmjax._utils import sharding
from lmjax.cli import main as cli
from lmjax.cli import train
from lmjax.models import registry
from lmjax.training import loop
from tests.training import a_run

EPOCHS, IMAGES, BATCH = 2, 32, 8
OPTIONS = {
    **{"epochs": EPOCHS, "images-per-epoch": IMAGES, "batch-size": BATCH, "checkpoint-steps": 3},
    **{"accumulate": 2, "ema": 0.9, "learning-rate": 0.01, "small-share": 1, "small-size": 32},
    **{"augmentations": "cutmix", "test-images": 21},  # an odd number, so that one does not count
}


def stall(step):
    """A step, from 1, is never taken."""
    train_step = loop.train_step

    def step_or_wait(state, *arguments, **options):
        while int(state.step) == step - 1:
            time.sleep(1)
        return train_step(state, *arguments, **options)

    loop.train_step = step_or_wait


def main(out, stalled, *options):
    registry.NetworkInfo.build = a_run.build
    train.join = functools.partial(sharding.join, heartbeat_timeout_seconds=10)
    if int(stalled) > 0:
        stall(int(stalled))
    words = [str(word) for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    cli.main(["train", "digit-scenes", *words, "--output", out, *options])


if __name__ == "__main__":
    main(*sys.argv[1:])
