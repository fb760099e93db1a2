"""Variants on several devices: each has the whole predictor, and batches of its own.

A program is mapped over the devices of a `jax.sharding.Mesh` (`jax.shard_map`). Devices never wait
for one another within a call, so each runs what it would run alone.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec


def side_by_side(run: Callable, mesh: Mesh, *, parts: int) -> Callable:
    """Returns `run` mapped over devices: each has its part of the last `parts` arguments.

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


def distribute(
    batches: Sequence[np.ndarray], *, per_call: int, length: int, devices: int, calls: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Distributes batches of numbers over the devices in turn, `per_call` to each at a time.

    Args:
      batches: of at most `length` numbers.
      per_call: batches for each device.
      length: of a row.
      devices: D of them.
      calls: that run at a time: none takes more than its share of the batches, rounded up.

    Yields:
      `[D * per_call, length]` numbers, device by device, -1 for padding; and `[D]`, how many
      batches of each device are no padding.
    """
    together = devices * min(per_call, -(-len(batches) // (devices * calls)))
    for start in range(0, len(batches), max(together, 1)):
        numbers = np.full((per_call, devices, length), -1)
        some = batches[start : start + together]
        for row, batch in zip(numbers.reshape(-1, length), some):
            row[: len(batch)] = batch
        used = (numbers[:, :, 0] >= 0).sum(axis=0, dtype=np.int32)
        yield numbers.swapaxes(0, 1).reshape(-1, length), used
