"""Two processes of a cluster train one network; one is killed, and both start again."""

import subprocess
import sys

import pytest

from lmjax.training import read_metrics
from tests.support import cluster, several_devices

MODULE = "tests.training.one_of_two"
WEIGHTS = "resnet18_digits.safetensors"


def start_two(out, *, stalled=-1, seeds=(0, 0)):
    port = cluster.free_port()
    return [
        cluster.start(
            *(MODULE, port, process, out, stalled if process else -1),
            *("--distributed", "--seed", seeds[process]),
        )
        for process in range(2)
    ]


def results(out):
    """Metrics without times, and the bytes of the weights."""
    return read_metrics(out).drop_columns(["seconds"]), (out / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of one process on two devices."""
    out = tmp_path_factory.mktemp("run")
    subprocess.run(
        [sys.executable, "-m", MODULE, out, "-1"],
        cwd=cluster.ROOT,
        env=several_devices.environment(2),
        check=True,
    )
    assert read_metrics(out).num_rows == 8
    return out


def test_a_process_is_killed_and_two_give_what_two_devices_of_one_give(finished, tmp_path):
    two = start_two(tmp_path, stalled=8)
    try:
        cluster.wait_for((tmp_path / "checkpoints" / "00000006").exists, *two)
    finally:
        two[1].kill()
        cluster.end(*two)
    assert two[0].returncode != 0, "the other notices that a process has died"
    assert read_metrics(tmp_path).num_rows == 6
    two = start_two(tmp_path)
    outputs = cluster.end(*two)
    assert [process.returncode for process in two] == [0, 0], outputs
    assert [output.count(f"wrote {tmp_path / WEIGHTS}") for output in outputs] == [1, 0]
    assert results(tmp_path) == results(finished)  # there is one way to add two numbers


@pytest.mark.parametrize(
    ("seeds", "messages"),
    [
        ((0, 1), ["settings or mesh of process 1 differ from those of process 0"] * 2),
        (
            (1, 1),
            ["holds another run: source is", "process 0 has failed"],
        ),
    ],
    ids=["settings", "folder"],
)
def test_all_processes_say_what_is_wrong_and_none_waits(finished, seeds, messages):
    two = start_two(finished, seeds=seeds)
    outputs = cluster.end(*two)
    assert [process.returncode for process in two] == [1, 1], outputs
    for output, message in zip(outputs, messages):
        assert message in output
