"""Makes XLA compilations quick, and counts them."""

import contextlib
import os
from functools import partial

import jax

# Most programs of the suite run once or twice: compiling them takes longer than running them.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
FULL = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_parallel_codegen_split_count": 32,
}
if jax.__version_info__ < (0, 11):  # XLA ends the process where it does not know a flag
    QUICK["xla_cpu_use_fusion_emitters"] = False
    FULL["xla_cpu_use_fusion_emitters"] = True
if (0, 10) <= jax.__version_info__ < (0, 11):
    QUICK["xla_cpu_copy_insertion_use_region_analysis"] = True
    FULL["xla_cpu_copy_insertion_use_region_analysis"] = False

# Loops of hundreds of steps: compiling takes three times as long, and running a tenth.
LOOPS = QUICK | {"xla_backend_optimization_level": 1}

quick_jit = partial(jax.jit, compiler_options=QUICK)
loop_jit = partial(jax.jit, compiler_options=LOOPS)
full_jit = partial(jax.jit, compiler_options=FULL)  # as for users


def compile_quickly() -> None:
    """Makes quick compilation the default here and in the processes that this one starts.

    Call it before JAX has used a device. Flags that are set already win.
    """
    flags = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
    given = os.environ.get("XLA_FLAGS", "")
    if flags not in given:
        os.environ["XLA_FLAGS"] = f"{flags} {given}".strip()


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
