"""A study on many hosts, on paper: `python -m benchmarks.simulation runs/removal --processes 2`.

What a shard took is measured: the times between the shards of a finished run. The rest is counted:
every process starts, does every n-th shard, and is at its end when its last one is written; the
study is when the last process is. Stragglers are what is drawn from the shards that were measured,
whose spread is kept while their mean is that of a device which answers so many variants a second.

Processes fail at random. Where they meet (`--distributed`), one that fails ends all: after the
heartbeat all start again, and each has lost what it had of a shard. Where they do not (`--shard` of
an array of jobs), it alone starts again.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from tyro.conf import Positional

from lmjax.studies.run_folder import Results, ranges
from lmjax.studies.runner import open_run

HEARTBEAT = 100.0  # seconds; JAX's default
TRIALS = 200


class Costs(NamedTuple):
    """Seconds.

    Attributes:
      shards: of the networks, for each of some measured shards `[n]`.
      host: of reading and writing a shard.
      start: of a process: imports, weights, compilation.
    """

    shards: np.ndarray
    host: float
    start: float


def shard_times(run: Path, manifest: dict[str, Any], processes: int) -> tuple[np.ndarray, float]:
    """Seconds between the shards of each process of a finished run; bytes of a shard on average."""
    results = Results(run, manifest["identity"])
    shards = ranges(manifest["images"], manifest["identity"]["images_per_shard"])
    whole = [results.path(each).stat() for each in shards[:-1]]  # the last may have fewer images
    times = [np.diff([each.st_mtime for each in whole[i::processes]]) for i in range(processes)]
    return np.concatenate(times), float(np.mean([each.st_size for each in whole]))


def simulate(
    costs: Costs, *, shards: int, hosts: int, hours_between_failures: float, meet: bool, rng
) -> tuple[float, float]:
    """Seconds until all rows are there, and how many failures there were.

    Args:
      costs: of the processes.
      shards: of the study.
      hosts: processes.
      hours_between_failures: of one process, on average; `inf` for none.
      meet: whether a failure ends all processes.
      rng: of NumPy.
    """
    drawn = rng.choice(costs.shards, shards) + costs.host
    work = [list(drawn[i::hosts]) for i in range(hosts)]
    mean = 3600 * hours_between_failures
    if not meet:
        ends, failures = zip(*(_alone(each, costs.start, mean, rng) for each in work))
        return max(ends), sum(failures)
    # One clock: the next failure of any process; all go on from the shards they have finished.
    clock, failures = 0.0, 0
    while any(work):
        until = rng.exponential(mean / hosts)
        left = max(costs.start + sum(each) for each in work)
        if until >= left:
            return clock + left, failures
        clock, failures = clock + until + HEARTBEAT, failures + 1
        work = [_unfinished(each, until - costs.start) for each in work]
    return clock, failures


def _alone(work: list[float], start: float, mean: float, rng) -> tuple[float, int]:
    clock, failures = 0.0, 0
    while (until := rng.exponential(mean)) < start + sum(work):
        work = _unfinished(work, until - start)
        clock, failures = clock + until, failures + 1
    return clock + start + sum(work), failures


def _unfinished(work: list[float], seconds: float) -> list[float]:
    return work[int(np.searchsorted(np.cumsum(work), seconds, side="right")) :]


def main(
    run: Positional[Path],
    /,
    processes: int = 1,
    images: int = 50_000,
    hosts: tuple[int, ...] = (1, 8, 64, 512),
    rates: tuple[float, ...] = (16.0, 1000.0),
    host_seconds: float = 0.1,
    start_seconds: float = 30.0,
    hours_between_failures: float = 24.0,
) -> None:
    """Prints how long a study takes on so many processes, as Markdown.

    Args:
        run: folder of a finished run, whose shards are measured.
        processes: how many shared it (`--shard i/n`).
        images: of the study.
        hosts: numbers of processes, of one device each.
        rates: variants per second of a device.
        host_seconds: reading and writing a shard.
        start_seconds: starting a process: imports, weights, compilation.
        hours_between_failures: of one process, on average; a day is about what machines live that
            may be taken back at any time.
    """
    manifest, rows, _ = open_run(run)
    times, size = shard_times(run, manifest, processes)
    per_shard = manifest["identity"]["images_per_shard"]
    variants = rows.num_rows / len(rows.column("image").unique())
    shards = len(ranges(images, per_shard))
    spread = times / times.mean()
    low, high = np.quantile(spread, [0.05, 0.95])
    print(
        f"{images} images, {variants:.0f} variants of each: {shards} shards of {per_shard}, "
        f"{shards * size / 1e6:.0f} MB of rows. {len(times)} shards were measured: "
        f"{times.mean():.1f} s, of which 90% took {low:.2f} to {high:.2f} times as long.\n\n"
        "| variants/s | processes | shards each, at most | hours | of ideal | failures | "
        "hours with them, met | not met |\n|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    rng = np.random.default_rng(0)
    for rate in rates:
        costs = Costs(spread * per_shard * variants / rate, host_seconds, start_seconds)
        whole = shards * (costs.shards.mean() + host_seconds) / 3600
        for count in hosts:
            options = {"shards": shards, "hosts": count, "rng": rng}
            sure, _ = _hours(costs, np.inf, meet=False, **options)
            met, failures = _hours(costs, hours_between_failures, meet=True, **options)
            array, _ = _hours(costs, hours_between_failures, meet=False, **options)
            print(
                f"| {rate:g} | {count} | {-(-shards // count)} | {sure:.3g} | "
                f"{whole / count / sure:.2f} | {failures:.2g} | {met:.3g} | {array:.3g} |"
            )


def _hours(costs: Costs, hours_between_failures: float, **options) -> np.ndarray:
    """Hours, and failures, on average."""
    options["hours_between_failures"] = hours_between_failures
    seconds, failures = np.mean([simulate(costs, **options) for _ in range(TRIALS)], axis=0)
    return np.array([seconds / 3600, failures])


if __name__ == "__main__":
    tyro.cli(main)
