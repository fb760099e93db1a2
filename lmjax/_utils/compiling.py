"""How much of a time is spent on tracing and compiling."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

import jax

_EVENTS = "/jax/core/compile/"
Interval = tuple[float, float]
_watching: list[list[Interval]] = []


@functools.cache
def _listen() -> None:
    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith(_EVENTS):
            now = time.perf_counter()
            for intervals in _watching:
                intervals.append((now - duration_secs, now))

    jax.monitoring.register_event_duration_secs_listener(add)


@contextlib.contextmanager
def compiling() -> Iterator[Callable[[], float]]:
    """Yields a function that says for how many seconds JAX has traced and compiled since."""
    _listen()
    intervals: list[Interval] = []
    _watching.append(intervals)
    start = time.perf_counter()
    try:
        yield lambda: covered([(max(first, start), last) for first, last in intervals])
    finally:
        _watching[:] = [each for each in _watching if each is not intervals]


def covered(intervals: list[Interval]) -> float:
    """Returns the length of a union of intervals: a trace may contain others."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        total += max(last - max(first, end), 0.0)
        end = max(end, last)
    return total
