"""Packing of variants into batches with room for a fixed number of rows."""

import numpy as np
import pytest

from lmjax.evaluation.packing import Counts, Room, Rooms, fill, pack, rooms_for


def random_counts(variants, seed=0):
    rng = np.random.default_rng(seed)
    full = np.array([100, 25, 9])
    rows = (rng.random((variants, 1)) * rng.random((variants, 3)) * full).astype(np.int64)
    return Counts(rows, full, np.array([[10.0, 0, 0], [0, 80.0, 100.0]]))


@pytest.mark.parametrize("variants", [1, 2, 50, 1000])
@pytest.mark.parametrize("work_per_batch", [0.1, 1, 8])
def test_no_batch_overflows_and_none_is_left_out(variants, work_per_batch):
    counts = random_counts(variants)
    packing = pack(counts, work_per_batch=work_per_batch, compiling=100, known=Rooms())
    assert packing.starts[0] == 0
    assert packing.starts[-1] == variants
    for start, end in zip(packing.starts, packing.starts[1:]):
        assert 1 <= end - start <= packing.room.variants
        assert (counts.rows[start:end].sum(axis=0) <= packing.room.rows).all()


def test_batches_are_nearly_full():
    counts = random_counts(1000)
    packing = pack(counts, work_per_batch=8, compiling=100, known=Rooms())
    assert counts.work(counts.rows).sum() > 0.85 * packing.work


def test_rooms_are_used_again_until_they_have_wasted_as_much_as_a_compilation():
    known = Rooms()
    first = pack(random_counts(1000), work_per_batch=8, compiling=100, known=known)
    small = random_counts(100, seed=2)
    small = small._replace(rows=small.rows // 50)
    wasted = fill(first.room, small).work - fill(rooms_for(small, 8)[0], small).work
    runs = 0
    while pack(small, work_per_batch=8, compiling=100, known=known).room == first.room:
        runs += 1
    assert runs == pytest.approx(100 / wasted, abs=2)
    assert len(known.compiled) == 2
    assert pack(small, work_per_batch=8, compiling=100, known=known).room == known.compiled[1]


def test_a_room_too_small_for_one_variant_does_not_fit():
    counts = random_counts(10)
    assert fill(Room(5, (1, 1, 1)), counts) is None
    assert fill(rooms_for(counts, 0.01)[1], counts) is not None
