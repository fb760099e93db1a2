"""Options of XLA's compiler for programs of which one runs at a time."""

import functools
from typing import Any

import jax

# XLA gives some convolutions on CPU to YNNPACK, which keeps 1.3 of two cores busy where Eigen's
# keep both: a batch of four took 1.43 times as long in ResNet-18, 1.34 in DenseNet-121 and
# SqueezeNet. In processor time it is as fast, and so it stays where calls run side by side.
_ON_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}


def for_one_call() -> dict[str, Any] | None:
    """Returns the options for JAX's default backend; None where it takes none."""
    return _ON_CPU if jax.default_backend() == "cpu" and _known() else None


@functools.cache
def _known() -> bool:
    """Whether this version of XLA knows the options: it raises an error for others."""
    try:
        with jax.disable_jit(False):
            jax.jit(lambda: 0, compiler_options=_ON_CPU).lower().compile()
    except Exception:  # its type has changed between versions
        return False
    return True
