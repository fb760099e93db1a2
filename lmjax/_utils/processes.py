"""Processes: the cores that they may use, and those in which JAX would hang."""

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")

_first: int | None = None


def check_not_forked() -> None:
    """Raises RuntimeError in a process that was forked after this was called in its parent.

    JAX is multithreaded: a forked process has its locks, and not the threads that would release
    them.
    """
    global _first
    if _first is None:
        _first = os.getpid()
    elif _first != os.getpid():
        raise RuntimeError(
            "this process was forked after JAX had started, where JAX would hang; start processes "
            "by multiprocessing.get_context('spawn'), or fork them before the first evaluation"
        )


def usable_cores() -> int:
    """Returns how many cores this process may use, by its affinity and its container's quota."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, _QUOTA.read_text().split())
    except (OSError, ValueError):  # no such file, or "max", which is no limit
        return cores
    return min(cores, max(math.ceil(quota / period), 1))
