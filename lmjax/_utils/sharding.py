"""Devices that share work, and processes that do.

A `jax.sharding.Mesh` names the devices. All of its axes divide the work, under any names;
it may span the processes of a cluster that have met (`join`).
"""

import contextlib
import hashlib
import inspect
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

from lmjax._utils.summary import brief

_CHUNK = 1 << 28  # bytes that devices broadcast at a time


def join(**options) -> tuple[int, int]:
    """Meets the other processes of the cluster, before any other use of JAX.

    `jax.distributed.initialize` finds out about SLURM, Open MPI, Kubernetes and Cloud TPU by
    itself. Where a process dies, the others end too, when they have not heard of it for a while
    (`heartbeat_timeout_seconds`, 100).

    Args:
      options: of `jax.distributed.initialize`.

    Returns:
      Which process this is, and of how many.

    Raises:
      ValueError: no cluster is found, or JAX is too old for the options.
    """
    known = inspect.signature(jax.distributed.initialize).parameters
    if not options.keys() <= known.keys():
        raise ValueError(
            f"distributed needs jax 0.9 or newer, got {jax.__version__}; upgrade it, or leave it "
            "out (a study is also shared by --shard 0/4, --shard 1/4, ...)"
        )
    try:
        jax.distributed.initialize(**options)
    except ValueError as error:
        raise ValueError(
            "distributed finds no cluster (SLURM, Open MPI, Kubernetes or Cloud TPU) that says "
            f"which process this is ({error}); leave it out (a study is also shared by "
            "--shard 0/4, --shard 1/4, ...)"
        ) from error
    return jax.process_index(), jax.process_count()


def local_mesh() -> Mesh:
    """Returns the devices of this process in one axis, or `jax.default_device` where set."""
    default = getattr(jax.config, "jax_default_device")  # noqa: B009 - unknown to its stubs
    if default is None:
        return mesh_of(jax.local_devices())
    one = jax.local_devices(backend=default)[0] if isinstance(default, str) else default
    return mesh_of([one])


def mesh_of(devices: Sequence[Any]) -> Mesh:
    """Returns a mesh of devices in one axis, whose use is left to the compiler."""
    return Mesh(np.array(devices), ("devices",), axis_types=(AxisType.Auto,))


def check_mesh(mesh: Mesh | None, *, of_all_processes: bool = False) -> Mesh:
    """Returns the mesh, or that of `local_mesh` for None, with axes of type `Auto`.

    With others, which `jax.make_mesh` makes, the mesh would be part of the types of traced arrays.

    Args:
      mesh: what a caller gave.
      of_all_processes: whether the processes of a cluster work together, or each by itself.

    Raises:
      ValueError: anything else.
    """
    mesh = local_mesh() if mesh is None else mesh
    if not isinstance(mesh, Mesh):
        raise ValueError(
            "mesh must be a jax.sharding.Mesh, such as jax.make_mesh((4,), ('devices',)), or None "
            f"for all devices of this process; got {brief(mesh)}"
        )
    found, this, count = _processes(mesh), jax.process_index(), jax.process_count()
    if found != (set(range(count)) if of_all_processes else {this}):
        whose, take = f"this process ({this}) only", "jax.local_devices()"
        if of_all_processes:
            whose, take = f"every process (there are {count})", "jax.devices()"
        raise ValueError(
            f"mesh must hold devices of {whose}, got those of process "
            f"{', '.join(map(str, sorted(found)))}; take jax.make_mesh(..., devices={take})"
        )
    automatic = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=automatic)


def context_mesh() -> Any:
    """Returns the mesh that a caller's `jax.set_mesh` or `jax.shard_map` has set; empty or None."""
    get = getattr(jax.sharding, "get_abstract_mesh", None)  # older versions of JAX have none
    return None if get is None else get()


@contextlib.contextmanager
def no_context_mesh() -> Iterator[None]:
    """Ignores the mesh of a caller's `jax.set_mesh`, which may have other devices than the call."""
    mesh = context_mesh()
    if mesh is None or mesh.empty:
        yield
    else:
        with jax.set_mesh(Mesh(np.empty((), object), ())):
            yield


def _processes(mesh: Mesh) -> set[int]:
    return {device.process_index for device in mesh.devices.flat}


def spans_processes(mesh: Mesh) -> bool:
    """Returns whether other processes take part."""
    return len(_processes(mesh)) > 1


def own_rows(length: int, mesh: Mesh) -> np.ndarray:
    """Returns which rows of an array, of a length the devices divide, are for this process."""
    mine = [device.process_index == jax.process_index() for device in mesh.devices.flat]
    return np.arange(length).reshape(mesh.size, -1)[mine].ravel()


def everywhere(mesh: Mesh) -> Sharding:
    """Returns the sharding of arrays that are whole on every device."""
    return _sharding(mesh, PartitionSpec())


def replicated(tree: Any, mesh: Mesh) -> Any:
    """Places the arrays on every device; those that are there stay as they are.

    JAX takes 10 ms to find that out for the weights of a DenseNet. Arrays that are in place
    without being committed to it stay so: what is placed beside them decides where programs run.
    """
    sharding = everywhere(mesh)
    leaves, structure = jax.tree.flatten(tree)
    elsewhere = [i for i, leaf in enumerate(leaves) if getattr(leaf, "sharding", None) != sharding]
    for i, moved in zip(elsewhere, jax.device_put([leaves[i] for i in elsewhere], sharding)):
        leaves[i] = moved
    return jax.tree.unflatten(structure, leaves)


def divided(tree: Any, mesh: Mesh) -> Any:
    """Places the arrays with their first axis divided among the devices.

    Args:
      tree: of NumPy arrays; where the mesh spans processes only `own_rows` of them.
      mesh: the devices.
    """
    sharding = _sharding(mesh, PartitionSpec(mesh.axis_names))
    if not spans_processes(mesh):
        return jax.device_put(tree, sharding)
    devices = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]

    def put(rows: np.ndarray) -> jax.Array:
        parts = jax.device_put(np.split(rows, len(devices)), devices)
        shape = (len(parts[0]) * mesh.size, *rows.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, parts)

    return jax.tree.map(put, tree)


def _sharding(mesh: Mesh, spec: PartitionSpec) -> Sharding:
    """On one device arrays are plain ones, and programs those of a process without a mesh."""
    if mesh.size == 1:
        return SingleDeviceSharding(mesh.devices.item())
    return NamedSharding(mesh, spec)


def from_first(make: Callable[[], Any], like: Any, mesh: Mesh) -> Any:
    """Sends what the first process makes to all devices of a mesh, bit for bit.

    All wait for it, and fail where it fails.

    Args:
      make: gives a tree of arrays; called by the first process alone.
      like: a tree of their shapes and dtypes, such as `jax.eval_shape` gives.
      mesh: the devices.

    Raises:
      ValueError: in the others, where the first has raised an error.
    """
    if not spans_processes(mesh):
        return replicated(make(), mesh)
    from jax.experimental import multihost_utils

    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([1] + [leaf.size * leaf.dtype.itemsize for leaf in leaves])
    # As bytes, which are added to zeros: of floats, negative zeros would become positive ones.
    sent, error = np.zeros(ends[-1], np.uint8), None
    if jax.process_index() == 0:
        try:
            made = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(make())]
            sent[1:] = np.frombuffer(b"".join(made), np.uint8)
        except Exception as raised:  # of any kind: the others must not wait
            sent[0], error = 1, raised
    for start in range(0, len(sent), _CHUNK):
        part = slice(start, start + _CHUNK)
        sent[part] = multihost_utils.broadcast_one_to_all(sent[part])
    if error is not None:
        raise error
    if sent[0]:
        raise ValueError("process 0 has failed; its message says why")

    def put(leaf: jax.ShapeDtypeStruct, start: int) -> jax.Array:
        array = np.frombuffer(sent, leaf.dtype, leaf.size, start).reshape(leaf.shape)
        return jax.make_array_from_callback(leaf.shape, everywhere(mesh), lambda _: array)

    return jax.tree.unflatten(structure, list(map(put, leaves, ends)))


def check_same(text: str, what: str, mesh: Mesh) -> None:
    """Checks that all processes of a mesh work on the same; all raise an error where they do not.

    Args:
      text: what must be the same.
      what: its name, in the error.
      mesh: the devices.

    Raises:
      ValueError: in all processes, where it differs in one.
    """
    if not spans_processes(mesh):
        return
    from jax.experimental import multihost_utils

    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    found = multihost_utils.process_allgather(digest)
    others = np.flatnonzero((found != found[:1]).any(axis=1))
    if others.size:
        raise ValueError(
            f"{what} of process {', '.join(map(str, others))} differ from those of process 0; all "
            "processes of a mesh must be called with the same, and see the same files"
        )
