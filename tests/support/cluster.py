"""Processes of a cluster on this machine, as SLURM would start them."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """Of the 4096 that JAX takes for a SLURM job, by its number.

    A port is taken seconds after it was found free: tests beside each other look in other places.
    """
    for i in range(4096):
        port = 61440 + (97 * os.getpid() + i) % 4096
        with socket.socket(socket.AF_INET6) as taken:
            try:
                taken.bind(("::", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def start(module, port, process, *arguments) -> subprocess.Popen:
    """One of two processes; each runs a module (`python -m`)."""
    slurm = {
        "SLURM_JOB_ID": str(port - 61440),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    }
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | slurm | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, *processes):
    """Until something holds; the processes must be running meanwhile."""
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "nothing happens"
        for process in processes:
            assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)


def end(*processes) -> list[str]:
    """What they print, once they end by themselves or, when that takes too long, are killed."""
    try:
        return [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
