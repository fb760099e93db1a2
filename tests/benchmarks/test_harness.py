"""Turns, ratios, fresh processes and tables of the benchmarks."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.harness import (
    Usage,
    fresh_process,
    machine,
    measure,
    peak_memory,
    ratio,
    run_alone,
    show,
    table,
    take_turns,
)


def fake(name, walls, turns):
    """A contender that notes its turn and says what it took; twice as much CPU time."""
    walls = iter(walls)

    def run():
        turns.append(name)
        wall = next(walls)
        return Usage(wall, 2 * wall)

    return run


def test_contenders_take_turns_and_the_first_run_is_apart():
    turns = []
    contenders = {"a": fake("a", [9, 1, 2, 3], turns), "b": fake("b", [8, 2, 2, 12], turns)}
    times = take_turns(contenders, 3)
    assert turns == ["a", "b"] * 4
    assert times["a"].first == Usage(9, 18)
    assert times["b"].wall.tolist() == [2, 2, 12]
    assert times["b"].cpu.tolist() == [4, 4, 24]


def test_without_a_warm_up_every_run_counts():
    times = take_turns({"a": fake("a", [1, 2], [])}, 2, warm_up=False)
    assert times["a"].first is None
    assert times["a"].wall.tolist() == [1, 2]


def test_no_round_leaves_the_first_run():
    times = take_turns({"a": fake("a", [1], [])}, 0)
    assert times["a"].first == Usage(1, 2)
    assert times["a"].wall.shape == (0,)


def test_ratios_are_those_within_rounds():
    """The machine is ten times as slow in the second round, which no ratio shows."""
    found = ratio(np.array([2.0, 20.0, 3.0]), np.array([1.0, 10.0, 1.0]))
    assert found == (2.0, 2.0, 2.5)
    assert str(found) == "2.00 (2.00 to 2.50)"


def test_seconds_are_those_of_the_clock_and_of_the_processor():
    asleep = measure(lambda: time.sleep(0.1))
    assert asleep.wall >= 0.1
    assert asleep.cpu < 0.09

    def work():
        start = time.process_time()
        while time.process_time() - start < 0.1:
            pass

    assert measure(work).cpu >= 0.1
    assert 0.009 < measure(work, per=10).cpu < 0.09


def test_processor_time_counts_child_processes():
    code = "import time\nwhile time.process_time() < 0.2: pass"
    assert measure(lambda: subprocess.run([sys.executable, "-c", code], check=True)).cpu >= 0.19


def allocate(megabytes):
    np.ones(megabytes * 125_000)
    return peak_memory()


def test_a_process_of_its_own_has_its_own_environment_cores_and_memory():
    ballast = np.ones(50_000_000)  # 400 MB of this process
    environment = {"BENCHMARKS_TEST": "yes"}
    with fresh_process(environment, cores=1) as process:
        assert process.submit(os.getenv, "BENCHMARKS_TEST").result() == "yes"
        assert len(process.submit(os.sched_getaffinity, 0).result()) == 1
        before = process.submit(peak_memory).result()
        after = process.submit(allocate, 200).result()
    assert before < peak_memory() - ballast.nbytes / 2e6
    assert after - before == pytest.approx(200, abs=30)
    assert "BENCHMARKS_TEST" not in os.environ
    assert run_alone(os.getenv, "BENCHMARKS_TEST") is None


def test_tables_are_markdown():
    rows = [
        {"name": "a", "count": 12_345, "ratio": ratio(np.ones(3), np.ones(3)), "share": 0.12345},
        {"name": "b", "count": 1, "ratio": None, "share": 12345.6},
        {"name": "c", "count": np.int64(7), "ratio": None, "share": np.float64(8.54e-7)},
    ]
    assert list(table(rows)) == [
        "| name | count | ratio | share |",
        "|---|---:|---:|---:|",
        "| a | 12,345 | 1.00 (1.00 to 1.00) | 0.123 |",
        "| b | 1 |  | 12,346 |",
        "| c | 7 |  | 8.54e-07 |",
    ]


def test_rows_are_printed_as_soon_as_they_are_there(capsys):
    def rows():
        yield {"row": 1}
        assert capsys.readouterr().out.endswith("; size 8\n\n| row |\n|---:|\n| 1 |\n")
        yield {"row": 2}

    show(rows(), size=8)
    assert capsys.readouterr().out == "| 2 |\n\n"


def test_the_machine_is_named():
    cores = len(os.sched_getaffinity(0))
    assert machine().startswith(f"{cores} cores of ")
    assert f"numpy {np.__version__}" in machine()
