"""Growth over images of many sizes, `benchmarks.growth`."""

from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.harness import run_alone
from lmjax._utils.bounded import MOST_MAPS, MOST_PROGRAMS

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux only")


def test_the_bounds_hold_with_room_for_what_else_a_process_maps():
    assert MOST_MAPS < 20_000
    assert MOST_PROGRAMS * 2.5 < 1024  # MiB of a program of a small network


def test_a_run_is_printed(capsys):
    growth.main(images=3, sizes=2, segment_counts=2, samples=20, every=2)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["2", "3"]


@pytest.mark.slow
def test_a_thousand_images_of_200_sizes_and_300_numbers_of_segments():
    found, same = run_alone(growth.explain, 1000, 200, 300, 400, 100)
    assert found[-1].images == 1000
    assert max(grown.maps for grown in found) < 20_000
    assert max(grown.memory for grown in found) < 1024
    assert same
