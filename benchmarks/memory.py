"""Memory of many variants against few: `python -m benchmarks.memory --variants 10000`.

One image, random coalitions, layer masking, random weights. After a run that compiles, the peak of
the process's resident memory is sampled while 100 variants and then `--variants` are evaluated.
Runs with different `--engine` compare the ways to compute.
"""

import contextlib
import threading
import time
from typing import Literal

import jax
import lmjax.perturbation as perturbation
import numpy as np
import psutil
import tyro

from lmjax.models import Classifier, registry
from lmjax.models.checkpoints import abstract_variables

FEW = 100


def random_predictor(name: str) -> perturbation.Predictor:
    """A network of the registry with weights drawn at random; variances are positive."""
    network = registry.network(name)
    module = network.build()
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jax.numpy.asarray(rng.uniform(0.01, 0.02, leaf.shape), leaf.dtype),
        abstract_variables(module),
    )
    return perturbation.Predictor(Classifier(variables, module, network.preprocessing))


def random_patches(rng: np.random.Generator, *, variants: int, size: int, visible: float):
    """Masks `[N, S, S]` whose 16-pixel patches are visible with some probability."""
    side = -(-size // 16)
    patches = rng.random((variants, side, side)) < visible
    return np.kron(patches, np.ones((16, 16), bool))[:, :size, :size]


@contextlib.contextmanager
def peak_memory(result: dict, name: str, interval: float = 0.01):
    """Writes the highest resident memory seen inside the block, in MB, to `result[name]`."""
    process, done = psutil.Process(), threading.Event()
    samples = [process.memory_info().rss]

    def sample():
        while not done.wait(interval):
            samples.append(process.memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        result[name] = max(*samples, process.memory_info().rss) / 1e6


def main(
    variants: int = 10_000,
    model: str = "resnet50",
    size: int = 224,
    batch_size: int | None = None,
    engine: Literal["auto", "dense", "visible", "shared"] = "dense",
) -> None:
    """Prints both peaks, their difference, and the time.

    Args:
        variants: compared with 100.
        model: a network of the registry.
        size: side of the image, in pixels.
        batch_size: the same for both; by default what lmjax takes by itself.
        engine: as in `lmjax.evaluate`.
    """
    predictor = random_predictor(model)
    image = np.random.default_rng(0).random((size, size, 3), np.float32)
    segments = perturbation.segments.grid(image, size=max(size // 7, 1))
    num_segments = int(segments.max()) + 1

    def run(num_variants: int) -> float:
        keep = perturbation.random_keep(num_segments, num_variants, key=jax.random.key(0))
        coalitions = perturbation.Coalitions(segments, keep)
        start = time.perf_counter()
        perturbation.evaluate(predictor, image, coalitions, batch_size=batch_size, engine=engine)
        return time.perf_counter() - start

    run(FEW)  # compiles
    peaks: dict[str, float] = {}
    with peak_memory(peaks, "few"):
        run(FEW)
    with peak_memory(peaks, "many"):
        seconds = run(variants)
    batches = f"batches of {batch_size}" if batch_size else "the default batch size"
    print(f"{model}, {size} x {size}, {jax.default_backend()}, {batches}, engine {engine}")
    print(f"{FEW:>8,} variants: peak {peaks['few']:,.0f} MB")
    print(f"{variants:>8,} variants: peak {peaks['many']:,.0f} MB, {seconds:.0f} s")
    print(f"difference: {peaks['many'] - peaks['few']:+,.0f} MB")


if __name__ == "__main__":
    tyro.cli(main)
