"""Processes in which JAX works, and those in which it would hang."""

import os

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
