"""A process of a cluster that shares a study; started twice by test_distributed.py.

Arguments: the folder of the run, and the image at which to stall, if any.
"""

import sys
import time

import jax

from lmjax._utils.sharding import join
from lmjax.studies.runner import run
from tests.studies import fakes

STUDY = fakes.Answers()
IMAGES, IMAGES_PER_SHARD = 22, 2


class Stalling(fakes.Source):
    """Does not give one of its images."""

    def __init__(self, length, stalled):
        super().__init__(length)
        self.stalled = stalled

    def __getitem__(self, index):
        while index == self.stalled:
            time.sleep(1)
        return super().__getitem__(index)


def main(out, stalled=-1):
    number, of = join(heartbeat_timeout_seconds=10)
    print(f"{number} of {of}, {jax.device_count()} devices", flush=True)
    source = Stalling(IMAGES, int(stalled))
    networks = {"a": fakes.network()}
    options = {"images_per_shard": IMAGES_PER_SHARD, "shard": (number, of)}
    run(STUDY, source, models=networks, output=out, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
