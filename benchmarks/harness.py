"""Turns, statistics, fresh processes and tables: what every benchmark measures with.

Machines drift, so contenders take turns, and ratios are taken within each round. Tables give
medians and quartiles.
"""

import concurrent.futures
import multiprocessing
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

_PACKAGES = ("jax", "numpy", "torch", "torchvision", "timm")


class Usage(NamedTuple):
    """Seconds that a run took.

    Attributes:
      wall: on the clock.
      cpu: of all threads of this process and of the child processes that it waited for.
    """

    wall: float
    cpu: float


class Times(NamedTuple):
    """Seconds of one contender.

    Attributes:
      first: of the run before the first round, which compiles; None where there was none.
      wall: `[R]`, of each round.
      cpu: `[R]`, of each round.
    """

    first: Usage | None
    wall: np.ndarray
    cpu: np.ndarray


class Quartiles(NamedTuple):
    """Median of some numbers, between their first and third quartile."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def measure(run: Callable[[], Any], *, per: int = 1) -> Usage:
    """Runs a function and returns the seconds that it takes.

    Args:
      run: a function; one that returns a `Usage` has measured itself, in another process.
      per: what the seconds are divided by, such as the number of images.
    """
    start = _clocks()
    result = run()
    took = [now - then for now, then in zip(_clocks(), start)]
    return result if isinstance(result, Usage) else Usage(*(each / per for each in took))


def _clocks() -> tuple[float, float]:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime


def take_turns(
    contenders: Mapping[Any, Callable[[], Any]], rounds: int, *, warm_up: bool = True
) -> dict[Any, Times]:
    """Measures contenders in turn, round after round.

    Args:
      contenders: functions by name, as in `measure`.
      rounds: how often each runs.
      warm_up: run each once before the first round.

    Returns:
      The times of each contender.
    """
    first = {name: measure(run) if warm_up else None for name, run in contenders.items()}
    took = [[measure(run) for run in contenders.values()] for _ in range(rounds)]
    seconds = np.array(took).reshape(rounds, len(contenders), 2)
    return {name: Times(first[name], *seconds[:, i].T) for i, name in enumerate(contenders)}


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Quartiles:
    """Returns the quartiles of the ratios within each round.

    Args:
      numerator: `[R]` seconds of one contender.
      denominator: `[R]` seconds of another: the result says how many times as fast it is.
    """
    return Quartiles(*map(float, np.quantile(numerator / denominator, [0.25, 0.5, 0.75])))


def fresh_process(
    environment: Mapping[str, str] | None = None, *, cores: int | None = None
) -> concurrent.futures.Executor:
    """Starts a process in which nothing has been imported, compiled or allocated yet.

    Args:
      environment: variables that it gets besides those of this process. JAX reads its settings from
        them: `JAX_NUM_CPU_DEVICES`, `JAX_COMPILATION_CACHE_DIR`.
      cores: how many CPU cores it may use; None for all.

    Returns:
      Executor whose `submit` runs functions there; a context manager that ends the process.
    """
    process = concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=_bind, initargs=(cores,)
    )
    with mock.patch.dict(os.environ, environment or {}):
        process.submit(os.getpid).result()  # it starts here, with this environment
    return process


def _bind(cores: int | None) -> None:
    if cores is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def run_alone(function: Callable, *args, **options) -> Any:
    """Returns what a function returns in a fresh process of its own; options as `fresh_process`."""
    with fresh_process(**options) as process:
        return process.submit(function, *args).result()


def peak_memory() -> float:
    """Returns the highest resident memory that this process has had, in MB (Linux only)."""
    # Not getrusage: there a process starts with the peak of the process that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def show(rows: Iterable[Mapping[str, Any]], **settings: Any) -> None:
    """Prints the machine, the settings and a table, each row as soon as it is there.

    Args:
      rows: as in `table`.
      **settings: what was measured.
    """
    print("; ".join([machine(), *(f"{name} {value}" for name, value in settings.items())]) + "\n")
    for line in table(rows):
        print(line, flush=True)
    print()


def table(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yields the lines of a Markdown table.

    Args:
      rows: cells by column; all rows have the columns of the first. Columns whose first cell is
        text are aligned to the left, the others to the right. None makes an empty cell.
    """
    for i, row in enumerate(rows):
        if i == 0:
            rules = ("---" if isinstance(cell, str) else "---:" for cell in row.values())
            yield _line(row)
            yield f"|{'|'.join(rules)}|"
        yield _line(map(_format, row.values()))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _format(cell: Any) -> str:
    """Numbers get three significant digits; integers, and what is above 1000, all of theirs."""
    if cell is None:
        return ""
    if isinstance(cell, int | np.integer) or (isinstance(cell, float) and abs(cell) >= 1000):
        return f"{cell:,.0f}"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def machine() -> str:
    """Returns one line about the machine: cores, processor, versions, and the load it has."""
    packages = [f"{p} {sys.modules[p].__version__}" for p in _PACKAGES if p in sys.modules]
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    python = f"Python {platform.python_version()}"
    return ", ".join([f"{cores} cores of {_processor()}", python, *packages, f"load {load:.1f}"])


def _processor() -> str:
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return names[0] if names else platform.machine()
