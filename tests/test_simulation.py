"""The study that is simulated on many hosts."""

import numpy as np
import pytest

from benchmarks.simulation import HEARTBEAT, Costs, simulate

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
