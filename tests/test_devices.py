"""Meshes, and what of them is whose."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from lmjax import devices


class Device:
    """One of a process."""

    def __init__(self, process_index):
        self.process_index = process_index


def mesh_of_processes(*processes):
    return Mesh(np.array([Device(process) for process in processes]), ("any",))


def test_devices_of_other_processes_are_an_error():
    with pytest.raises(ValueError, match=r"devices of this process \(0\) only; got.*process 3"):
        devices.check_mesh(mesh_of_processes(3))
    with pytest.raises(ValueError, match=r"only; got devices of process 0, 1"):
        devices.check_mesh(mesh_of_processes(0, 1))


def test_a_mesh_across_processes_has_all_of_them(monkeypatch):
    mesh = mesh_of_processes(0, 1, 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert devices.check_mesh(mesh, across_processes=True) is mesh
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(ValueError, match=r"or of all 3 processes; got devices of process 0, 1\."):
        devices.check_mesh(mesh, across_processes=True)


def test_every_row_is_for_one_process(monkeypatch):
    mesh = mesh_of_processes(0, 1, 1, 0)
    assert devices.own_rows(8, mesh).tolist() == [0, 1, 6, 7]
    assert devices.is_first(mesh)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert devices.own_rows(8, mesh).tolist() == [2, 3, 4, 5]
    assert not devices.is_first(mesh)


def test_what_one_process_makes_needs_no_other():
    mesh = devices.local_mesh()
    made = devices.from_first(lambda: {"a": np.arange(3)}, None, mesh)
    assert isinstance(made["a"], jax.Array)
    np.testing.assert_array_equal(made["a"], [0, 1, 2])
    devices.check_same("anything", "settings", mesh)


def test_without_a_cluster(monkeypatch):
    def initialize():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"finds no cluster \(SLURM.*--shard 0/4"):
        devices.join()


def test_versions_of_jax_that_do_not_wait(monkeypatch):
    def initialize(coordinator_address=None):
        raise AssertionError("called")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"needs jax 0.9 or newer.*--shard"):
        devices.join(shutdown_timeout_seconds=1)
