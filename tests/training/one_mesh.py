"""A process that trains with others on one mesh; started twice by test_distributed.py.

Arguments: the folder of the run, and after how many images this process stalls, if it does.
"""

import sys
import time

import jax

from lmjax import devices
from lmjax.data import DigitScenes
from lmjax.models import registry
from tests.training import a_run


class Stalling(DigitScenes):
    """Gives so many images and no more."""

    images = sys.maxsize

    def __getitem__(self, index):
        self.images -= 1
        while self.images < 0:
            time.sleep(1)
        return super().__getitem__(index)


def main(out, images=sys.maxsize):
    devices.join(heartbeat_timeout_seconds=10, shutdown_timeout_seconds=20)
    registry.Network.build = a_run.build
    source = Stalling("train", length=48)
    source.images = int(images)
    mesh = devices.mesh_of(jax.devices())
    a_run.run(out, source=source, checkpoint_steps=3, test=a_run.TEST, mesh=mesh)


if __name__ == "__main__":
    main(*sys.argv[1:])
