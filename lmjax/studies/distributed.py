"""Processes of a cluster share a study; each does images of its own, on its own devices.

They meet when they start and when they end. In between nothing is exchanged: what a process has
done is in the folder of the run, so a process that dies costs the shard it was at, and the same
command goes on.
"""

import inspect

import jax

# The first to finish waits so long for the others.
_LONGEST_STUDY = 30 * 24 * 3600


def join(**options) -> tuple[int, int]:
    """Meets the other processes of the cluster, before any other use of JAX.

    `jax.distributed.initialize` finds out about SLURM, Open MPI, Kubernetes and Cloud TPU by
    itself. Where a process dies, the others end too, when they have not heard of it for a while
    (`heartbeat_timeout_seconds`, 100).

    Args:
      options: of `jax.distributed.initialize`.

    Returns:
      Which process this is, and of how many: `shard` of `lmjax.studies.run`.

    Raises:
      ValueError: no cluster is found, or JAX is older than 0.9, where those that finish early wait
        for the others for five minutes at most.
    """
    options = {"shutdown_timeout_seconds": _LONGEST_STUDY} | options
    if not options.keys() <= inspect.signature(jax.distributed.initialize).parameters.keys():
        raise ValueError(
            f"distributed needs jax 0.9 or newer, got {jax.__version__}; upgrade it, or give each "
            "process its part: --shard 0/4, --shard 1/4, ..."
        )
    try:
        jax.distributed.initialize(**options)
    except ValueError as error:
        raise ValueError(
            "distributed finds no cluster (SLURM, Open MPI, Kubernetes or Cloud TPU) that says "
            f"which process this is ({error}); give each its part instead: --shard 0/4, "
            "--shard 1/4, ..."
        ) from error
    return jax.process_index(), jax.process_count()
