"""Counts XLA compilations, and makes them quick."""

import contextlib
from functools import partial

import jax

# For whole networks that run once or twice, compiling takes most of the time.
quick_jit = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    },
)

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
