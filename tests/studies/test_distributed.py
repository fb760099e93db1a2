"""Two processes of a cluster share a study; one is killed, and all start again."""

import warnings
from pathlib import Path

from lmjax.studies.runner import run
from tests.studies import fakes, one_of_two
from tests.support import cluster


def start(out, port, process, *arguments):
    return cluster.start("tests.studies.one_of_two", port, process, out, *arguments)


def shards(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(out).glob("rows-*/[0-9]*.parquet")}


def run_alone(out):
    """The study in this process, or what is missing of it."""
    return run(
        one_of_two.STUDY,
        fakes.Source(one_of_two.IMAGES),
        models={"a": fakes.network()},
        output=out,
        images_per_shard=one_of_two.IMAGES_PER_SHARD,
    )


def test_a_process_is_killed_and_the_run_goes_on(tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    table = run_alone(alone)

    # Of 11 shards, process 1 has 5; the third of them holds image 10.
    port = cluster.free_port()
    first, second = start(shared, port, 0), start(shared, port, 1, 10)
    try:
        cluster.wait_for(lambda: len(shards(shared)) == 6 + 2, second)
    finally:
        second.kill()
        output = cluster.end(first, second)[0]
    assert "0 of 2, 2 devices" in output
    assert first.returncode != 0, "the others notice that a process has died"
    before = shards(shared)
    assert before.items() < shards(alone).items()

    port = cluster.free_port()
    both = [start(shared, port, process) for process in range(2)]
    outputs = cluster.end(*both)
    assert [process.returncode for process in both] == [0, 0], outputs
    assert shards(shared) == shards(alone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = run_alone(shared)
    assert again.equals(table)
