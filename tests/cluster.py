"""Processes that meet, as SLURM would start them on one machine."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


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


def start(module, port, process, *arguments) -> subprocess.Popen:
    """One of two processes, each of which runs a module with some arguments."""
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
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "nothing happens"
        for process in processes:
            assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
