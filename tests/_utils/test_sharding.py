"""Meshes, who has which part of them, and clusters that are none."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from lmjax._utils import sharding


class Device:
    """Of some process."""

    def __init__(self, process_index):
        self.process_index = process_index


def mesh(*processes):
    return Mesh(np.array([Device(process) for process in processes]), ("devices",))


@pytest.mark.parametrize(
    ("processes", "of_all", "message"),
    [
        ((0, 1, 1), False, r"this process \(1\) only, got those of process 0, 1; .*local_devices"),
        ((2,), False, r"this process \(1\) only, got those of process 2;"),
        ((1,), True, r"every process \(there are 3\), got those of process 1; .*=jax.devices"),
        ((0, 2, 0), True, r"every process \(there are 3\), got those of process 0, 2;"),
    ],
)
def test_meshes_that_do_not_do_are_errors(processes, of_all, message, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(ValueError, match=message):
        sharding.check_mesh(mesh(*processes), of_all_processes=of_all)
    for good, all_of_them in ((mesh(1, 1), False), (mesh(2, 0, 1), True)):
        assert sharding.check_mesh(good, of_all_processes=all_of_them) is good
        assert sharding.spans_processes(good) is all_of_them


def test_rows_of_all_processes_are_those_of_their_devices_and_all_rows_together(monkeypatch):
    rows = {}
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        rows[process] = sharding.own_rows(8, mesh(0, 2, 1, 0)).tolist()
    assert rows == {0: [0, 1, 6, 7], 1: [4, 5], 2: [2, 3]}


def test_without_a_cluster(monkeypatch):
    def initialize(*, shutdown_timeout_seconds):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"finds no cluster \(SLURM.*--shard 0/4"):
        sharding.join(shutdown_timeout_seconds=60)


def test_versions_of_jax_that_do_not_wait(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda coordinator_address=None: None)
    with pytest.raises(ValueError, match=r"needs jax 0.9 or newer.*--shard"):
        sharding.join(shutdown_timeout_seconds=60)


def test_arrays_that_are_in_place_are_not_placed_again():
    mesh = Mesh(np.array(jax.devices()[:1]), "x")
    here, elsewhere = jax.numpy.ones(3), np.zeros(2, np.float32)
    found = sharding.replicated({"a": [here, elsewhere]}, mesh)
    assert found["a"][0] is here
    assert found["a"][1].sharding == sharding.everywhere(mesh)
