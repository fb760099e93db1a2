"""More devices, larger batches, many hosts, and reading beside a study.

python -m benchmarks.scaling devices    # 1, 2, 4, ... devices of this machine
python -m benchmarks.scaling study    # a study on one device, and on one for each core
python -m benchmarks.scaling batches    # batch sizes on the device at hand, such as a GPU
python -m benchmarks.scaling hosts runs/removal    # many processes, simulated
python -m benchmarks.scaling reading    # images from JPEG files against images in memory
"""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from tyro.conf import Positional, arg

import lmjax
from benchmarks.harness import Usage, fresh_process, measure, ratio, show, take_turns
from benchmarks.subjects import Engine, patches, photograph, random_classifier, write_photographs
from lmjax._utils.processes import usable_cores
from lmjax.cli.devices import MOST

HEARTBEAT = 100.0  # seconds until JAX notices that another process is gone, by default
TRIALS = 200


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is evaluated.

    Attributes:
      model: a network of the registry; its weights are random.
      size: height and width in pixels.
      variants: of one photograph.
      visible: share of the 16-pixel patches that stay visible.
      engines: dense, visible, shared, auto.
      rounds: of measurement, after one that compiles.
    """

    model: str
    size: int = 224
    variants: int = 64
    visible: float = 0.5
    engines: tuple[Engine, ...] = ("dense", "visible")
    rounds: int = 5


@functools.cache
def _subject(setting: Setting) -> tuple[lmjax.Predictor, np.ndarray, lmjax.Coalitions]:
    image = photograph(setting.size)
    masks = patches(image, setting.variants, setting.visible)
    return lmjax.Predictor(random_classifier(setting.model)), image, masks


def evaluate(setting: Setting, engine: str, batch_size: int) -> Usage:
    """Evaluates all variants once on the devices of this process."""
    predictor, image, masks = _subject(setting)
    evaluator = lmjax.Evaluator(predictor, engine=engine, batch_size=batch_size, progress=False)
    return measure(functools.partial(evaluator, image, masks))


class Workers(NamedTuple):
    """Devices and the cores that they share."""

    devices: int
    cores: int


def devices(
    setting: Annotated[Setting, arg(name="")] = Setting("resnet18", rounds=9),
    *,
    batch_size: int = 4,
) -> None:
    """Measures 1, 2, 4, ... devices on as many cores, and one device that has all cores.

    Each is a process of its own, bound to its cores.

    Args:
        setting: what is evaluated.
        batch_size: of a device.
    """
    cores = len(os.sched_getaffinity(0))
    counts = [2**i for i in range(cores.bit_length())]
    workers = dict.fromkeys([*(Workers(count, count) for count in counts), Workers(1, cores)])
    processes = {
        each: fresh_process(
            {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(each.devices)}, cores=each.cores
        )
        for each in workers
    }

    def run(engine: str, each: Workers) -> Usage:
        return processes[each].submit(evaluate, setting, engine, batch_size).result()

    def rows() -> Iterator[dict[str, Any]]:
        turns = [(engine, each) for engine in setting.engines for each in workers]
        times = take_turns({t: functools.partial(run, *t) for t in turns}, setting.rounds)
        for (engine, each), took in times.items():
            yield {
                "engine": engine,
                "devices": each.devices,
                "cores": each.cores,
                "variants/s": float(setting.variants / np.median(took.wall)),
                "against one on one core": ratio(times[engine, Workers(1, 1)].wall, took.wall),
            }

    show(rows(), **dataclasses.asdict(setting), batch_size=batch_size)
    for process in processes.values():
        process.shutdown()


def study(
    network: str = "resnet18_digits",
    source: str = "digit-scenes",
    *,
    images: int = 60,
    removals: tuple[str, ...] = ("layer", "grey"),
    rounds: int = 5,
) -> None:
    """Measures a removal study on the CPU as one device, and as those that `lmjax study` takes.

    Each is a process of its own, which has compiled before; as many cores as there are.

    Args:
        network: its name.
        source: of the images.
        images: how many.
        removals: of the study.
        rounds: how often each runs.
    """
    cores = usable_cores()
    processes = {
        count: fresh_process({"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)})
        for count in dict.fromkeys((1, min(cores, MOST)))
    }

    def run(count: int) -> Usage:
        submitted = processes[count].submit(_run_study, network, source, images, removals)
        return submitted.result()

    def rows() -> Iterator[dict[str, Any]]:
        times = take_turns({count: functools.partial(run, count) for count in processes}, rounds)
        for count, took in times.items():
            yield {
                "devices": count,
                "images/s": float(images / np.median(took.wall)),
                "cores busy": float(np.median(took.cpu / took.wall)),
                "against one device": ratio(times[1].wall, took.wall),
            }

    show(rows(), network=network, source=source, images=images, removals=removals, cores=cores)
    for process in processes.values():
        process.shutdown()


def _run_study(network: str, source: str, images: int, removals: tuple[str, ...]) -> Usage:
    """Runs a removal study in an empty folder."""
    settings = lmjax.studies.SegmentRemoval(removals=removals, orders=("random",))
    with tempfile.TemporaryDirectory() as folder:
        options = {"models": (network,), "images": images, "output": folder}
        return measure(lambda: lmjax.studies.run(settings, source, **options))


def batches(
    setting: Annotated[Setting, arg(name="")] = Setting("resnet50"),
    *,
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
) -> None:
    """Measures variants per second by batch size on the default device.

    Args:
        setting: what is evaluated.
        batch_sizes: variants computed together; there are as many as the largest at least.
    """
    setting = dataclasses.replace(setting, variants=max(setting.variants, *batch_sizes))

    def rows() -> Iterator[dict[str, Any]]:
        turns = [(engine, size) for engine in setting.engines for size in batch_sizes]
        runs = {turn: functools.partial(evaluate, setting, *turn) for turn in turns}
        times = take_turns(runs, setting.rounds)
        for engine in setting.engines:
            rates = {
                str(size): float(setting.variants / np.median(times[engine, size].wall))
                for size in batch_sizes
            }
            yield {"engine": engine, **rates}

    show(rows(), device=jax.devices()[0].device_kind, **dataclasses.asdict(setting))


class Costs(NamedTuple):
    """Seconds of a process of a study.

    Attributes:
      shards: of the networks, for each of some measured shards `[n]`.
      host: of reading and writing a shard.
      start: of imports, weights and compilation.
    """

    shards: np.ndarray
    host: float
    start: float


def simulate(
    costs: Costs,
    *,
    shards: int,
    hosts: int,
    hours_between_failures: float,
    meet: bool,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Simulates a study on many processes once.

    Every process does every n-th shard. Processes fail at random. Those that meet
    (`--distributed`) all start again after the heartbeat, and each loses what it had of a shard;
    those that do not (`--shard` of an array of jobs) start again alone.

    Args:
      costs: of the processes; the seconds of a shard are drawn from the measured ones.
      shards: of the study.
      hosts: processes.
      hours_between_failures: of one process, on average; `inf` for none.
      meet: whether a failure ends all processes.
      rng: of NumPy.

    Returns:
      Seconds until all rows are there, and the number of failures.
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


def simulated_hours(costs: Costs, hours_between_failures: float, **options: Any) -> np.ndarray:
    """Returns hours and failures `[2]`, on average over many simulations."""
    options["hours_between_failures"] = hours_between_failures
    seconds, failures = np.mean([simulate(costs, **options) for _ in range(TRIALS)], axis=0)
    return np.array([seconds / 3600, failures])


def read_shards(run: Path, processes: int) -> tuple[np.ndarray, int, float, float]:
    """Reads what the shards of a finished run took.

    Args:
      run: folder of the run.
      processes: how many shared it (`--shard i/n`).

    Returns:
      Seconds between the shards of each process `[n]`; images of a shard; variants of an image;
      bytes of a shard's rows, on average.
    """
    import pyarrow.parquet as pq

    # The last may have fewer images and is left out; a process needs two for one interval.
    *paths, _ = sorted(run.glob("rows-*/*.parquet")) or [None]
    if len(paths) < 2 * processes:
        raise SystemExit(f"{run} must hold more than {2 * processes} shards of a study's rows")
    first, last = map(int, paths[0].stem.split("-"))
    stats = [path.stat() for path in paths]
    times = [np.diff([each.st_mtime for each in stats[i::processes]]) for i in range(processes)]
    variants = pq.read_metadata(paths[0]).num_rows / (last - first)
    return np.concatenate(times), last - first, variants, np.mean([s.st_size for s in stats])


def hosts(
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
    """Simulates a study on many processes, from the shards of one that was run.

    The spread of the shards' seconds is kept; their mean is that of a device which evaluates so
    many variants a second.

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
    seconds, length, variants, size = read_shards(run, processes)
    spread = seconds / seconds.mean()
    shards, rng = -(-images // length), np.random.default_rng(0)

    def row(rate: float, count: int) -> dict[str, Any]:
        per_shard = length * variants / rate
        costs = Costs(spread * per_shard, host_seconds, start_seconds)
        options = {"shards": shards, "hosts": count, "rng": rng}
        sure, _ = simulated_hours(costs, np.inf, meet=False, **options)
        met, failures = simulated_hours(costs, hours_between_failures, meet=True, **options)
        array, _ = simulated_hours(costs, hours_between_failures, meet=False, **options)
        ideal = shards * (per_shard + host_seconds) / 3600 / count
        return {
            "variants/s": rate,
            "processes": count,
            "shards each, at most": -(-shards // count),
            "hours": float(sure),
            "of the ideal": float(ideal / sure),
            "failures": float(failures),
            "hours with failures, met": float(met),
            "hours with failures, not met": float(array),
        }

    low, high = np.quantile(spread, [0.05, 0.95])
    show(
        (row(rate, count) for rate in rates for count in hosts),
        study=f"of {images} images, {variants:.0f} variants of each",
        shards=f"{shards} of {length} images, {shards * size / 1e6:.0f} MB of rows",
        measured=f"{len(spread)} shards of {seconds.mean():.1f} s, "
        f"90% of them {low:.2f} to {high:.2f} times as long",
    )


class InMemory(list):
    """The examples of a source, read already."""

    version = "memory"


def _read(source: Any) -> list:
    return [source[i] for i in range(len(source))]


def reading(
    *,
    model: str = "resnet50",
    photographs: int = 100,
    images: int = 16,
    fractions: tuple[float, ...] = (0.0, 0.25, 0.5),
    engine: Engine = "dense",
    rounds: int = 5,
) -> None:
    """Measures what reading costs a study, on photographs as ImageNet has them (JPEG, 500 x 375).

    The fewer variants a study evaluates, the more reading matters: by default one removal at three
    fractions, of which one is the whole image.

    Args:
        model: a network of the registry, with random weights.
        photographs: written and read.
        images: of them, in the study.
        fractions: of segments to remove.
        engine: of the study.
        rounds: of measurement, after one that compiles.
    """
    networks = {model: random_classifier(model)}
    study = lmjax.studies.SegmentRemoval(
        removals=("layer",), orders=("random",), fractions=fractions
    )

    def run(source: Any) -> None:
        with tempfile.TemporaryDirectory() as out:
            options = {"models": networks, "output": out, "images": images, "engine": engine}
            lmjax.studies.run(study, source, progress=False, **options)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photographs"
        size = write_photographs(folder, photographs)
        source = lmjax.data.from_folder(folder)
        runs = {
            "reading alone": (lambda: _read(source), photographs),
            "study, images in memory": (functools.partial(run, InMemory(_read(source))), images),
            "study, images in a folder": (functools.partial(run, source), images),
        }
        contenders = {
            name: functools.partial(measure, run, per=count) for name, (run, count) in runs.items()
        }
        times = take_turns(contenders, rounds)
    memory = times["study, images in memory"]
    rows = (
        {
            "milliseconds an image": name,
            "wall": 1e3 * float(np.median(took.wall)),
            "CPU": 1e3 * float(np.median(took.cpu)),
            "of the study in memory, wall": ratio(took.wall, memory.wall).median,
            "of the study in memory, CPU": ratio(took.cpu, memory.cpu).median,
        }
        for name, took in times.items()
    )
    files = f"{images} of {photographs} JPEG files of {size / 1e3:.0f} kB"
    show(rows, network=model, images=files, fractions=fractions, engine=engine, rounds=rounds)


if __name__ == "__main__":
    app = tyro.extras.SubcommandApp()
    for command in (devices, study, batches, hosts, reading):
        app.command(command)
    app.cli()
