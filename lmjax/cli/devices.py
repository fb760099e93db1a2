"""The CPU as several devices of JAX: a study's variants then keep all cores busy."""

import os

from lmjax._utils.checks import check_whole
from lmjax.cli.terminal import say

_MOST = 8  # by default: each device has its own copy of the network
_FLAG = "--xla_force_host_platform_device_count"


def divide_cpu(devices: int | None) -> bool:
    """Divides the CPU into devices, unless JAX runs already; to be called before JAX is used.

    Args:
      devices: how many. None takes one for each core, at most 8, where neither `XLA_FLAGS` nor
        `JAX_NUM_CPU_DEVICES` says how many.

    Returns:
      Whether it was done by default, so that `tell` may say so.

    Raises:
      ValueError: more devices than cores, or none.
    """
    import jax

    cores = _cores()
    if devices is None:
        if _FLAG in os.environ.get("XLA_FLAGS", "") or jax.config.values["jax_num_cpu_devices"] > 0:
            return False
        wanted = min(cores, _MOST)
    else:
        wanted = check_whole("devices", devices, least=1, most=cores, note="cores of the CPU")
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:  # JAX runs already: `tell` compares
        return False
    return devices is None and wanted > 1


def tell(devices: int | None, *, by_default: bool) -> None:
    """Says that the CPU is divided, where that was done by default.

    Args:
      devices: how many were asked for, or None.
      by_default: what `divide_cpu` returned.

    Raises:
      ValueError: JAX uses another number of devices than was asked for, or no CPU.
    """
    import jax

    found, backend = len(jax.local_devices()), jax.default_backend()
    if devices is not None and (backend != "cpu" or found != devices):
        raise ValueError(
            f"devices must be left out here, where JAX uses {found} of {backend}; it divides the "
            f"CPU. Got {devices}"
        )
    if by_default and backend == "cpu":
        say(f"the CPU is divided into {found} devices for JAX; --devices says how many")


def _cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
