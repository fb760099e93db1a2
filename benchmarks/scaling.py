"""Variants per second with more devices, and with larger batches.

    python -m benchmarks.scaling devices [--model resnet18] [--rounds 9]
    python -m benchmarks.scaling batches [--model resnet50] [--batch-sizes 1 4 16 64]

`devices` is strong scaling on one machine: the same variants by one device on one core, by two
devices on two cores, and so on, and by one device that has all the cores. Each is a process of its
own, bound to its cores; they take turns, and ratios are taken within each round. `batches` is for
the device at hand, such as a GPU.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from typing import Annotated, NamedTuple

import jax
import numpy as np
import tyro
from tyro.conf import arg

import lmjax
from benchmarks.memory import random_patches, random_predictor


class Workers(NamedTuple):
    """Devices and the cores that they share."""

    devices: int
    cores: int

    def start(self) -> concurrent.futures.Executor:
        """A process that has them."""
        return concurrent.futures.ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_bind, initargs=self
        )


def _bind(devices: int, cores: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured.

    Args:
        model: a network of the registry; its weights are random.
        size: height and width in pixels.
        variants: of one image.
        visible: share of the 16 x 16 patches that is.
        engines: dense, visible, shared.
        rounds: of measurement, after one that compiles.
    """

    model: str
    size: int = 224
    variants: int = 64
    visible: float = 0.5
    engines: tuple[str, ...] = ("dense", "visible")
    rounds: int = 5

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.size} x {self.size}, {self.variants} variants with "
            f"{self.visible:.0%} of the patches visible, {self.rounds} rounds"
        )

    def in_turns(self, contenders: Iterable, measure: Callable) -> dict[tuple, np.ndarray]:
        """Seconds `[rounds]` of `measure(engine, contender)`, all taking turns in each round."""
        took = {(engine, each): [] for engine in self.engines for each in contenders}
        for _ in range(self.rounds + 1):
            for each, times in took.items():
                times.append(measure(*each))
        return {each: np.array(times[1:]) for each, times in took.items()}


@functools.cache
def _work(setting: Setting):
    rng, size = np.random.default_rng(0), setting.size
    masks = random_patches(rng, variants=setting.variants, size=size, visible=setting.visible)
    return random_predictor(setting.model), rng.random((size, size, 3), np.float32), masks


def seconds(setting: Setting, engine: str, batch_size: int) -> float:
    """Of one evaluation of all variants."""
    predictor, image, masks = _work(setting)
    start = time.perf_counter()
    lmjax.evaluate(predictor, image, masks, engine=engine, batch_size=batch_size, progress=False)
    return time.perf_counter() - start


def devices(
    setting: Annotated[Setting, arg(name="")] = Setting("resnet18", rounds=9),
    *,
    batch_size: int = 4,
) -> None:
    """Prints variants per second of 1, 2, 4, ... devices on as many cores, as Markdown.

    Args:
        setting: what is measured.
        batch_size: of a device.
    """
    cores = len(os.sched_getaffinity(0))
    counts = [2**i for i in range(cores.bit_length())]
    contenders = [Workers(count, count) for count in counts] + [Workers(1, cores)]
    processes = {each: each.start() for each in dict.fromkeys(contenders)}

    def measure(engine: str, workers: Workers) -> float:
        return processes[workers].submit(seconds, setting, engine, batch_size).result()

    took = setting.in_turns(processes, measure)
    print(
        f"{setting}, batches of {batch_size}\n\n"
        "| engine | devices | cores | variants/s | against one device on one core |\n"
        "|---|---:|---:|---:|---:|"
    )
    for (engine, each), times in took.items():
        low, middle, high = np.quantile(took[engine, Workers(1, 1)] / times, [0.25, 0.5, 0.75])
        print(
            f"| {engine} | {each.devices} | {each.cores} | "
            f"{setting.variants / np.median(times):.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    for process in processes.values():
        process.shutdown()


def batches(
    setting: Annotated[Setting, arg(name="")] = Setting("resnet50"),
    *,
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
) -> None:
    """Prints variants per second by batch size on the default device, as Markdown.

    Args:
        setting: what is measured.
        batch_sizes: variants computed together; there are as many as the largest at least.
    """
    setting = dataclasses.replace(setting, variants=max(setting.variants, *batch_sizes))
    took = setting.in_turns(batch_sizes, functools.partial(seconds, setting))
    print(
        f"{setting}, {jax.devices()[0].device_kind}\n\n"
        f"| engine | {' | '.join(map(str, batch_sizes))} |\n|---|{len(batch_sizes) * '---:|'}"
    )
    for engine in setting.engines:
        rates = [setting.variants / np.median(took[engine, batch]) for batch in batch_sizes]
        print(f"| {engine} | {' | '.join(f'{rate:.1f}' for rate in rates)} |")


if __name__ == "__main__":
    app = tyro.extras.SubcommandApp()
    app.command(devices)
    app.command(batches)
    app.cli()
