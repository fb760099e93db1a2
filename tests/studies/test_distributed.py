"""Two processes of a cluster share a study; one is killed, and all start again."""

import signal
import warnings
from pathlib import Path

from lmjax.studies.running import run
from tests.cluster import free_port, start, wait_for
from tests.studies import fakes, one_of_two

MODULE = one_of_two.__name__


def shards(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(out).glob("rows-*/[0-9]*.parquet")}


def run_alone(out):
    """The study in this process, or what is missing of it."""
    return run(
        one_of_two.STUDY,
        fakes.Source(one_of_two.IMAGES),
        networks={"a": fakes.network()},
        out=out,
        images_per_shard=one_of_two.IMAGES_PER_SHARD,
    )


def test_a_process_is_killed_and_the_run_goes_on(tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    table = run_alone(alone)

    # Of 11 shards, process 1 has 5; the third of them holds image 10.
    port = free_port()
    first, second = start(MODULE, port, 0, shared), start(MODULE, port, 1, shared, 10)
    try:
        wait_for(lambda: len(shards(shared)) == 6 + 2, second)
        second.send_signal(signal.SIGKILL)
        output = first.communicate(timeout=240)[0]
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert "0 of 2, 2 devices" in output
    assert first.returncode != 0, "the others notice that a process has died"
    before = shards(shared)
    assert before.items() < shards(alone).items()

    port = free_port()
    both = [start(MODULE, port, process, shared) for process in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert shards(shared) == shards(alone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = run_alone(shared)
    assert again.equals(table)
