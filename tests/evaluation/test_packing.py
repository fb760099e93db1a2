"""Packing of variants into batches with room for a fixed number of rows."""

import numpy as np
import pytest

from lmjax.evaluation.packing import Counts, Room, fill, pack, rooms_for


def random_counts(variants, seed=0):
    rng = np.random.default_rng(seed)
    full = np.array([100, 25, 9])
    rows = (rng.random((variants, 1)) * rng.random((variants, 3)) * full).astype(np.int64)
    return Counts(rows, full, np.array([[10.0, 0, 0], [0, 80.0, 100.0]]))


@pytest.mark.parametrize("variants", [1, 2, 50, 1000])
@pytest.mark.parametrize("work_per_batch", [0.1, 1, 8])
def test_no_batch_overflows_and_none_is_left_out(variants, work_per_batch):
    counts = random_counts(variants)
    packing = pack(counts, work_per_batch=work_per_batch)
    assert packing.starts[0] == 0
    assert packing.starts[-1] == variants
    for start, end in zip(packing.starts, packing.starts[1:]):
        assert 1 <= end - start <= packing.room.variants
        assert (counts.rows[start:end].sum(axis=0) <= packing.room.rows).all()


def test_batches_are_nearly_full():
    counts = random_counts(1000)
    packing = pack(counts, work_per_batch=8)
    assert counts.work(counts.rows).sum() > 0.85 * packing.work


def test_calls_that_are_alike_find_the_same_room():
    rng = np.random.default_rng(0)
    full = np.array([100, 100, 25])
    costs = np.array([[10.0, 0, 80.0]])
    rooms = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        share = np.array([0.62, 0.11, 0.66]) * (1 + 0.02 * rng.normal(size=(500, 3)))
        rooms.add(pack(Counts((share * full).astype(int), full, costs), work_per_batch=8).room)
    assert len(rooms) <= 3


def test_a_room_too_small_for_one_variant_does_not_fit():
    counts = random_counts(10)
    assert fill(Room(5, (1, 1, 1)), counts) is None
    assert fill(rooms_for(counts, 0.01)[1], counts) is not None
