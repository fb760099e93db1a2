"""What attributions and curves cost besides the network: `python -m benchmarks.attribution`.

Each method runs with a predictor that costs next to nothing, in the batches it would have with the
network: what is left is drawing samples, making masks, calling programs and the arithmetic behind.
That is compared with what `lmjax.evaluate` takes for as many variants under layer masking; its time
is that of a few variants, times all.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import lmjax
from benchmarks.memory import random_predictor
from lmjax.attribution.banzhaf import reuse_all
from lmjax.attribution.kernelshap import estimate_from_pairs
from lmjax.attribution.lime import surrogate
from lmjax.masks import random_keep, samplers

TARGETS = 10
KEY = jax.random.key(0)


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["soft"])
@dataclasses.dataclass(frozen=True)
class Cheap:
    """Predictor that reads every pixel of its masks and does nothing else."""

    soft: bool

    @property
    def soft_masks(self) -> bool:
        return self.soft

    def __call__(self, image, masks):
        shown = masks.astype(jnp.float32).mean(axis=(1, 2))
        return shown[:, None] * jnp.arange(1, TARGETS + 1)[None]


def methods(image: np.ndarray, segments: np.ndarray, variants: int) -> dict[str, Callable]:
    """Functions of a predictor, by what they are; each evaluates about so many variants."""
    attribution, metrics = lmjax.attribution, lmjax.metrics
    num_segments = int(segments.max()) + 1
    heatmap = np.random.default_rng(0).random(image.shape[:2])
    keyed, on_segments = {"key": KEY}, {"key": KEY, "segments": segments}
    permutations = {"num_permutations": max(variants // (2 * num_segments - 2), 2)}
    designs = {"num_designs": max(variants // (num_segments + 1), 2)}
    options = {
        "occlusion": (attribution.occlusion, {}),
        "leave_one_out": (attribution.leave_one_out, {"segments": segments}),
        "leave_one_in": (attribution.leave_one_in, {"segments": segments}),
        "rise": (attribution.rise, {**keyed, "num_samples": variants}),
        "rise, soft masks": (attribution.rise, {**keyed, "num_samples": variants}),
        "lime": (attribution.lime, {**on_segments, "num_samples": variants}),
        "kernelshap": (attribution.kernelshap, {**on_segments, "num_samples": variants}),
        "permutation_shapley": (attribution.permutation_shapley, {**on_segments, **permutations}),
        "banzhaf": (attribution.banzhaf, {**on_segments, "num_samples": variants}),
        "sobol": (attribution.sobol, {**on_segments, **designs}),
        "sobol, soft masks": (attribution.sobol, {**on_segments, **designs}),
        "hsic": (attribution.hsic, {**on_segments, "num_samples": variants}),
        "deletion": (metrics.deletion, {"heatmap": heatmap}),
        "insertion": (metrics.insertion, {"heatmap": heatmap}),
    }
    return {
        name: functools.partial(function, Cheap("soft" in name), image, progress=False, **arguments)
        for name, (function, arguments) in options.items()
    }


def regressions(samples: int, num_segments: int) -> dict[str, Callable]:
    """The arithmetic behind the evaluations, for `TARGETS` targets."""
    rng = np.random.default_rng(0)
    values = rng.random((samples, TARGETS), np.float32)
    keep = np.asarray(random_keep(num_segments, samples, key=KEY))
    pairs = (samples - 2 * num_segments) // 2
    drawn = samplers.shapley_keep(num_segments, pairs, key=KEY, smallest=2)
    paired = rng.random((1 + 2 * (num_segments + pairs), TARGETS), np.float32)
    options = {"kernel_width": 0.25, "alpha": 1.0, "distance": "cosine"}
    return {
        "lime": lambda: surrogate(keep, values, "none", None, **options),
        "kernelshap": lambda: estimate_from_pairs(drawn, paired, np.ones(TARGETS)),
        "banzhaf": lambda: reuse_all(keep, values),
    }


def seconds(run: Callable, rounds: int) -> float:
    """Median time, after a run that compiles."""
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def num_variants(found: lmjax.attribution.Attribution | lmjax.metrics.Curve) -> int:
    """How many variants a method has evaluated."""
    if isinstance(found, lmjax.metrics.Curve):
        return found.values.shape[-1]
    return found.num_variants


def main(
    variants: int = 1000,
    size: int = 224,
    model: str = "resnet50",
    cells: int = 7,
    network_variants: int = 32,
    rounds: int = 3,
) -> None:
    """Prints Markdown tables.

    Args:
        variants: about so many for each method.
        size: side of the image, in pixels.
        model: network of the registry, with random weights.
        cells: segments along each side.
        network_variants: so many are evaluated to know the network's time.
        rounds: of measurement, after one that compiles; medians count.
    """
    image = np.random.default_rng(0).random((size, size, 3), np.float32)
    labels = lmjax.segments.grid(image, size=-(-size // cells))
    num_segments = int(labels.max()) + 1
    keep = np.asarray(random_keep(num_segments, network_variants, key=KEY))
    predictor, masks = random_predictor(model), lmjax.Coalitions(labels, keep)
    evaluated = seconds(lambda: lmjax.evaluate(predictor, image, masks, progress=False), rounds)
    each = evaluated / network_variants
    print(f"{model}, layer masking, {size} x {size}: {1000 * each:.1f} ms a variant,", end=" ")
    print(f"from {network_variants}; {num_segments} segments; medians of {rounds} rounds\n")
    print("| method | variants | besides the network | the network | share |")
    print("|---|---:|---:|---:|---:|")
    for name, run in methods(image, labels, variants).items():
        count, besides = num_variants(run()), seconds(run, rounds)
        share = besides / (count * each)
        print(f"| {name} | {count} | {besides:.2f} s | {count * each:.1f} s | {share:.1%} |")

    print(f"\n| regression, {variants} x {num_segments}, {TARGETS} targets | ms |")
    print("|---|---:|")
    for name, run in regressions(variants, num_segments).items():
        print(f"| {name} | {1000 * seconds(run, 10 * rounds):.1f} |")


if __name__ == "__main__":
    tyro.cli(main)
