"""Studies simulated on many hosts, from the shards of one that was run."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.scaling import HEARTBEAT, Costs, hosts, read_shards, simulate

EQUAL = Costs(shards=np.array([10.0]), host=1.0, start=5.0)


class Clock:
    """Draws the shards that there are, and failures at fixed times."""

    def __init__(self, *failures):
        self.failures = list(failures)

    def choice(self, values, size):
        return np.resize(values, size)

    def exponential(self, mean):
        return self.failures.pop(0) if self.failures else np.inf


def simulated(costs, clock, **options):
    return simulate(costs, rng=clock, hours_between_failures=1.0, **options)


@pytest.mark.parametrize("meet", [True, False])
def test_without_failures_the_busiest_process_decides(meet):
    assert simulated(EQUAL, Clock(), shards=10, hosts=4, meet=meet) == (5 + 3 * 11, 0)


def test_the_slowest_shards_decide():
    costs = EQUAL._replace(shards=np.array([10.0, 20.0]))  # process 1 has the long ones
    assert simulated(costs, Clock(), shards=4, hosts=2, meet=False) == (5 + 2 * 21, 0)


def test_processes_that_meet_all_start_again():
    """At 20 s each has finished one shard of two, and the heartbeat has to be missed."""
    found = simulated(EQUAL, Clock(20.0), shards=4, hosts=2, meet=True)
    assert found == (20 + HEARTBEAT + 5 + 11, 1)


def test_others_do_not_wait_for_one_that_fails_alone():
    found = simulated(EQUAL, Clock(20.0), shards=4, hosts=2, meet=False)
    assert found == (20 + 5 + 11, 1)


@pytest.fixture
def run(tmp_path):
    """A folder with four shards of 4 images of 3 variants, and one of 2; the second is slow."""
    (tmp_path / "rows-0").mkdir()
    for i, (seconds, images) in enumerate([(0, 4), (30, 4), (40, 4), (50, 4), (51, 2)]):
        path = tmp_path / f"rows-0/{4 * i:08}-{4 * i + images:08}.parquet"
        pq.write_table(pa.table({"image": np.repeat(np.arange(images), 3)}), path)
        os.utime(path, (seconds, seconds))
    return tmp_path


def test_shards_are_measured_by_the_times_of_their_files(run):
    seconds, images, variants, size = read_shards(run, 1)
    assert seconds.tolist() == [30, 10, 10]
    assert (images, variants) == (4, 3)
    assert size == pytest.approx((run / "rows-0/00000000-00000004.parquet").stat().st_size, rel=0.1)


def test_processes_that_shared_a_run_are_measured_apart(run):
    assert read_shards(run, 2)[0].tolist() == [40, 20]


def test_a_folder_without_enough_shards_is_refused(run, tmp_path):
    with pytest.raises(SystemExit, match="must hold more than 6 shards"):
        read_shards(run, 3)
    with pytest.raises(SystemExit, match="must hold more than 2 shards"):
        read_shards(tmp_path / "nothing", 1)


def test_hours_of_a_study_without_failures(run, capsys):
    options = {"rates": (1.2,), "host_seconds": 0.0, "start_seconds": 0.0}
    hosts(run, images=4000, hosts=(10,), hours_between_failures=1e9, **options)
    row = capsys.readouterr().out.splitlines()[-2].split(" | ")
    assert row[:3] == ["| 1.2", "10", "100"]  # 1000 shards of 10 s each
    assert float(row[3]) == pytest.approx(1000 / 3600, rel=0.2)
