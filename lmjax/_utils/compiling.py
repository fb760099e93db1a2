"""How much of a time is spent on tracing and compiling."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import jax

_EVENTS = "/jax/core/compile/"
_total = [0.0]


@functools.cache
def _listen() -> None:
    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith(_EVENTS):
            _total[0] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)


@contextlib.contextmanager
def compiling() -> Iterator[Callable[[], float]]:
    """Yields a function that says how many seconds JAX has traced and compiled since."""
    _listen()
    start = _total[0]
    yield lambda: _total[0] - start
