"""Variants on several devices: each has the whole predictor, and batches of its own.

A program is mapped over the devices of a `jax.sharding.Mesh` (`jax.shard_map`). Devices never wait
for one another within a call, so each runs what it would run alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)


def local_mesh() -> Mesh:
    """The devices of this process in one axis, or `jax.default_device` where that is set."""
    default = jax.config.jax_default_device
    if default is None:
        devices = jax.local_devices()
    else:
        devices = [jax.local_devices(backend=default)[0] if isinstance(default, str) else default]
    return Mesh(np.array(devices), ("variants",), axis_types=(AxisType.Auto,))


def check_mesh(mesh: Mesh | None) -> Mesh:
    """The mesh, or that of `local_mesh` for None.

    Raises:
      ValueError: anything else, or devices of another process.
    """
    if mesh is None:
        return local_mesh()
    if not isinstance(mesh, Mesh):
        raise ValueError(
            "mesh must be a jax.sharding.Mesh, such as jax.make_mesh((4,), ('variants',)), or None "
            f"for all devices of this process; got {mesh!r}"
        )
    others = {device.process_index for device in mesh.devices.flat} - {jax.process_index()}
    if others:
        raise ValueError(
            f"mesh must hold devices of this process ({jax.process_index()}) only, got some of "
            f"process {', '.join(map(str, sorted(others)))}; every process evaluates images of its "
            "own: take jax.make_mesh(..., devices=jax.local_devices()), or None"
        )
    return mesh


def replicated(tree: Any, mesh: Mesh) -> Any:
    """The arrays on every device; nothing is copied where they are."""
    return jax.device_put(tree, _sharding(mesh, PartitionSpec()))


def divided(tree: Any, mesh: Mesh) -> Any:
    """The arrays, their first axis divided among the devices."""
    return jax.device_put(tree, _sharding(mesh, PartitionSpec(mesh.axis_names)))


def _sharding(mesh: Mesh, spec: PartitionSpec) -> Sharding:
    """On one device arrays are plain ones, and programs those of a process without a mesh."""
    if mesh.size == 1:
        return SingleDeviceSharding(mesh.devices.item())
    return NamedSharding(mesh, spec)


def side_by_side(run: Callable, mesh: Mesh, *, parts: int) -> Callable:
    """`run`, by every device on its part of the last `parts` arguments and of the results.

    All other arguments are replicated.
    """
    if mesh.size == 1:
        return run
    part = PartitionSpec(mesh.axis_names)

    def mapped(*arguments):
        whole = (PartitionSpec(),) * (len(arguments) - parts)
        specs = {"in_specs": whole + (part,) * parts, "out_specs": part}
        # Loops run as often as a device has batches, and nothing is exchanged: so variables of a
        # loop that begin the same everywhere are no mistake.
        return jax.shard_map(run, mesh=mesh, check_vma=False, **specs)(*arguments)

    return mapped


def deal(
    batches: Sequence[np.ndarray], *, per_call: int, length: int, devices: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of numbers, dealt to the devices in turn, so many to each at a time.

    Args:
      batches: of at most `length` numbers.
      per_call: batches for each device.
      length: of a row.
      devices: D of them.

    Yields:
      `[D * per_call, length]` numbers, device by device, -1 for padding; and `[D]`, how many
      batches of each device are no padding.
    """
    for start in range(0, len(batches), per_call * devices):
        numbers = np.full((per_call, devices, length), -1)
        some = batches[start : start + per_call * devices]
        for row, batch in zip(numbers.reshape(-1, length), some):
            row[: len(batch)] = batch
        used = (numbers[:, :, 0] >= 0).sum(axis=0, dtype=np.int32)
        yield numbers.swapaxes(0, 1).reshape(-1, length), used
