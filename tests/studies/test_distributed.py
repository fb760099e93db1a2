"""Two processes of a cluster share a study; one is killed, and all start again."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import pytest

from lmjax.studies import distributed
from lmjax.studies.running import run
from tests.studies import fakes, one_of_two

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """Of the 4096 that JAX takes for a SLURM job, by its number."""
    for port in range(61440, 65536):
        with socket.socket(socket.AF_INET6) as taken:
            try:
                taken.bind(("::", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def start(out, port, process, *arguments) -> subprocess.Popen:
    """One of two processes, as SLURM would start them on one machine."""
    slurm = {
        "SLURM_JOB_ID": str(port - 61440),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.studies.one_of_two", str(out), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | slurm | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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


def wait_for(condition, *processes):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "nothing happens"
        for process in processes:
            assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)


def test_a_process_is_killed_and_the_run_goes_on(tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    table = run_alone(alone)

    # Of 11 shards, process 1 has 5; the third of them holds image 10.
    port = free_port()
    first, second = start(shared, port, 0), start(shared, port, 1, 10)
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
    both = [start(shared, port, process) for process in range(2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert shards(shared) == shards(alone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = run_alone(shared)
    assert again.equals(table)


def test_without_a_cluster(monkeypatch):
    def initialize(*, shutdown_timeout_seconds):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"finds no cluster \(SLURM.*--shard 0/4"):
        distributed.join()


def test_versions_of_jax_that_do_not_wait(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda coordinator_address=None: None)
    with pytest.raises(ValueError, match=r"needs jax 0.9 or newer.*--shard"):
        distributed.join()
