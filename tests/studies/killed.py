"""Kills runs of a study again and again; started by test_runner.py as a process of its own.

Children are forked, so that they start in no time: none of this process has touched a device.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

from lmjax.studies import job
from lmjax.studies.runner import run
from tests.studies.fakes import Brightness, Source

for module in ("pyarrow.dataset", "pandas"):  # once here, or by pyarrow in each child
    with contextlib.suppress(ImportError):
        importlib.import_module(module)

job.hash_draws = lambda key: "draws"  # which each child would compile

IMAGES = 40
STUDY = Brightness()
SOURCE = Source(IMAGES, broken=(7,))


def start(out, shard=(0, 1)) -> int:
    child = os.fork()
    if child == 0:
        warnings.simplefilter("ignore")
        slow_down(os.fsync)
        run(STUDY, SOURCE, models=NETWORKS, output=out, images_per_shard=2, shard=shard)
        os._exit(0)
    return child


def slow_down(fsync):
    """So that many kills hit a shard that is being written."""

    def slowly(descriptor):
        time.sleep(0.003)
        fsync(descriptor)

    os.fsync = slowly


class Network:
    """No arrays on a device."""

    variables: dict = {}  # noqa: RUF012
    preprocessing = "none"

    def apply(self):
        raise AssertionError


NETWORKS = {"none": Network()}


def shards(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(out).glob("rows-*/[0-9]*.parquet")}


def kill_after(child: int, changes: int, folder: Path) -> bool:
    """Kills a child once files have come or gone so often; True if it had ended by itself."""
    before = names(folder)
    while changes:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        now = names(folder)
        changes -= now != before
        before = now
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def main(folder):
    random.seed(0)
    out, finished, seen = folder / "killed", [], {}
    (rows,) = start_and_end(folder / "whole").glob("rows-*")
    ended = False
    while not ended:
        ended = kill_after(start(out), random.randint(1, 10), out / rows.name)
        now = shards(out)
        assert seen.items() <= now.items(), "a finished shard has changed"
        finished.append(len(now))
        seen = now
    children = [start(folder / "two", (i, 2)) for i in range(2)]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    print(json.dumps({"finished": finished, "statuses": statuses}))


def start_and_end(out: Path) -> Path:
    os.waitpid(start(out), 0)
    return out


if __name__ == "__main__":
    main(Path(sys.argv[1]))
