"""Packing of variants into batches with room for a fixed number of rows."""

import numpy as np
import pytest

from lmjax.perturbation.packing import Counts, Room, fill, pack, rooms_for


def random_counts(variants, seed=0):
    rng = np.random.default_rng(seed)
    full = np.array([100, 25, 9])
    rows = (rng.random((variants, 1)) * rng.random((variants, 3)) * full).astype(np.int64)
    return Counts(rows, full, np.array([[10.0, 0, 0], [0, 80.0, 100.0]]))


@pytest.mark.parametrize("variants", [1, 2, 50, 1000])
@pytest.mark.parametrize("work_per_batch", [0.1, 1, 8])
def test_no_batch_overflows_and_none_is_left_out(variants, work_per_batch):
    counts = random_counts(variants)
    packing = pack(counts, work_per_batch=work_per_batch, compiling=100, known=[])
    assert packing.starts[0] == 0
    assert packing.starts[-1] == variants
    for start, end in zip(packing.starts, packing.starts[1:]):
        assert 1 <= end - start <= packing.room.variants
        assert (counts.rows[start:end].sum(axis=0) <= packing.room.rows).all()


def test_batches_are_nearly_full():
    counts = random_counts(1000)
    packing = pack(counts, work_per_batch=8, compiling=100, known=[])
    assert counts.work(counts.rows).sum() > 0.85 * packing.work


def test_rooms_are_used_again_unless_they_waste_more_than_a_compilation():
    known = []
    first = pack(random_counts(1000), work_per_batch=8, compiling=100, known=known)
    assert (
        pack(random_counts(900, seed=1), work_per_batch=8, compiling=100, known=known).room
        == first.room
    )
    tiny = random_counts(10_000, seed=2)
    tiny = tiny._replace(rows=tiny.rows // 50)
    assert pack(tiny, work_per_batch=8, compiling=100, known=known).room != first.room
    assert len(known) == 2


def test_a_room_too_small_for_one_variant_does_not_fit():
    counts = random_counts(10)
    assert fill(Room(5, (1, 1, 1)), counts) is None
    assert fill(rooms_for(counts, 0.01)[1], counts) is not None
