"""Counts XLA compilations."""

import contextlib

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_durations: list[float] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: _durations.append(duration) if event == _EVENT else None
)


@contextlib.contextmanager
def counted():
    """A list that holds one entry for each compilation inside the block, once it has ended."""
    compiled: list[float] = []
    start = len(_durations)
    yield compiled
    compiled.extend(_durations[start:])
