"""Other processes that have several devices, on this machine's CPU."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.cluster import ROOT


def environment(count: int) -> dict[str, str]:
    """Of a process with so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def run_tests(path: Path, *, count: int) -> None:
    """All tests of a file must pass there."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(path)],
        env=environment(count),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
