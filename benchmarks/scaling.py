"""Variants per second with more devices, and with larger batches.

    python -m benchmarks.scaling devices [--model resnet18] [--rounds 9]
    python -m benchmarks.scaling batches [--model resnet50] [--batch-sizes 1 4 16 64]

`devices` is strong scaling on one machine: the same variants by one device on one core, by two
devices on two cores, and so on, and by one device that has all the cores. Each is a process of its
own, bound to its cores; they take turns, and ratios are taken within each round. `batches` is for
the device at hand, such as a GPU.
"""

import concurrent.futures
import functools
import multiprocessing
import os
import time
from typing import NamedTuple

import jax
import numpy as np
import tyro

import lmjax
from benchmarks.memory import random_predictor


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


@functools.cache
def _work(model: str, size: int, variants: int, visible: float):
    rng = np.random.default_rng(0)
    predictor = random_predictor(model)
    side = -(-size // 16)
    patches = rng.random((variants, side, side)) < visible
    masks = np.kron(patches, np.ones((16, 16), bool))[:, :size, :size]
    return predictor, rng.random((size, size, 3), np.float32), masks


def seconds(model: str, size: int, variants: int, visible: float, engine: str, batch_size) -> float:
    """Of one evaluation of all variants."""
    predictor, image, masks = _work(model, size, variants, visible)
    start = time.perf_counter()
    lmjax.evaluate(predictor, image, masks, engine=engine, batch_size=batch_size, progress=False)
    return time.perf_counter() - start


def devices(
    model: str = "resnet18",
    size: int = 224,
    variants: int = 64,
    visible: float = 0.5,
    batch_size: int = 4,
    engines: tuple[str, ...] = ("dense", "visible"),
    rounds: int = 9,
) -> None:
    """Prints variants per second of 1, 2, 4, ... devices on as many cores, as Markdown.

    Args:
        model: a network of the registry; its weights are random.
        size: height and width in pixels.
        variants: of one image.
        visible: share of the 16 x 16 patches that is.
        batch_size: of a device.
        engines: dense, visible, shared.
        rounds: of measurement, after one that compiles.
    """
    cores = len(os.sched_getaffinity(0))
    counts = [2**i for i in range(cores.bit_length())]
    contenders = [Workers(count, count) for count in counts] + [Workers(1, cores)]
    processes = {each: each.start() for each in dict.fromkeys(contenders)}
    took = {(engine, each): [] for engine in engines for each in processes}
    for _ in range(rounds + 1):
        for engine, each in took:
            arguments = (model, size, variants, visible, engine, batch_size)
            took[engine, each].append(processes[each].submit(seconds, *arguments).result())
    print(
        f"{model}, {size} x {size}, {variants} variants with {visible:.0%} of the patches visible, "
        f"batches of {batch_size}, {rounds} rounds\n\n"
        "| engine | devices | cores | variants/s | against one device on one core |\n"
        "|---|---:|---:|---:|---:|"
    )
    for (engine, each), some in took.items():
        times, alone = np.array(some[1:]), np.array(took[engine, Workers(1, 1)][1:])
        low, middle, high = np.quantile(alone / times, [0.25, 0.5, 0.75])
        print(
            f"| {engine} | {each.devices} | {each.cores} | {variants / np.median(times):.1f} | "
            f"{middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    for process in processes.values():
        process.shutdown()


def batches(
    model: str = "resnet50",
    size: int = 224,
    visible: float = 0.5,
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    variants: int = 64,
    engines: tuple[str, ...] = ("dense", "visible"),
    rounds: int = 5,
) -> None:
    """Prints variants per second by batch size on the default device, as Markdown.

    Args:
        model: a network of the registry; its weights are random.
        size: height and width in pixels.
        visible: share of the 16 x 16 patches that is.
        batch_sizes: variants computed together.
        variants: of one image; at least the largest batch.
        engines: dense, visible, shared.
        rounds: of measurement, after one that compiles.
    """
    variants = max(variants, *batch_sizes)
    contenders = [(engine, batch) for engine in engines for batch in batch_sizes]
    took = {each: [] for each in contenders}
    for _ in range(rounds + 1):
        for each in contenders:
            took[each].append(seconds(model, size, variants, visible, *each))
    device = jax.devices()[0]
    print(
        f"{model}, {size} x {size}, {variants} variants with {visible:.0%} of the patches visible, "
        f"{device.device_kind}, {rounds} rounds\n\n"
        f"| engine | {' | '.join(map(str, batch_sizes))} |\n|---|{len(batch_sizes) * '---:|'}"
    )
    for engine in engines:
        rates = [variants / np.median(took[engine, batch][1:]) for batch in batch_sizes]
        print(f"| {engine} | {' | '.join(f'{rate:.1f}' for rate in rates)} |")


if __name__ == "__main__":
    app = tyro.extras.SubcommandApp()
    app.command(devices)
    app.command(batches)
    app.cli()
