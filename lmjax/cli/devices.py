"""The CPU as several devices of JAX: a study's variants then keep all cores busy."""

import os

from lmjax._utils.checks import check_whole
from lmjax._utils.processes import usable_cores

MOST = 8
"""Devices that a study divides the CPU into by itself: each has its own copy of the network."""

_FLAG = "--xla_force_host_platform_device_count"


def divide_cpu(devices: int | None) -> bool:
    """Divides the CPU into devices, unless JAX runs already; to be called before JAX is used.

    Args:
      devices: how many. None takes one for each core, at most `MOST`, where neither `XLA_FLAGS` nor
        `JAX_NUM_CPU_DEVICES` says how many.

    Returns:
      Whether it chose to divide the CPU by itself.

    Raises:
      ValueError: more devices than cores, or none.
    """
    import jax

    cores = usable_cores()
    if devices is None:
        if _FLAG in os.environ.get("XLA_FLAGS", "") or _configured() > 0:
            return False
        wanted = min(cores, MOST)
    else:
        wanted = check_whole("devices", devices, least=1, most=cores, note="cores of the CPU")
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:  # JAX runs already; `check_devices` compares
        return False
    return devices is None and wanted > 1


def check_devices(devices: int | None) -> None:
    """Raises ValueError unless JAX uses the devices of the CPU that were asked for, if any were."""
    import jax

    if devices is None:
        return
    found, backend = len(jax.local_devices()), jax.default_backend()
    if backend != "cpu":
        raise ValueError(f"devices divides the CPU, and JAX runs on {backend} here; leave it out")
    if found != devices:
        raise ValueError(f"devices must be {found}, as JAX has the CPU so already; got {devices}")


def describe_devices() -> str:
    """Returns a sentence on the devices of the CPU, for a study that divided it by itself."""
    import jax

    if jax.default_backend() != "cpu":
        return ""
    found = len(jax.local_devices())
    return f"the CPU is divided into {found} devices for JAX; --devices says how many"


def _configured() -> int:
    """Returns how many devices JAX's configuration asks for, or -1."""
    import jax

    return jax.config.values["jax_num_cpu_devices"]
