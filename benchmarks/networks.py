"""Every family of networks on one photograph: `python -m benchmarks.networks`, a Markdown table.

Milliseconds of a variant, plain (hidden pixels painted grey) and under the network's own masking,
by `lmjax.evaluate` with its defaults; contenders take turns, medians count. Beside them the largest
difference from the original's logits, as `benchmarks.parity` has it. Weights are random, but for
those that come with the package. Needs torch, torchvision and timm (the extra `test`).
"""

import statistics
import time

import numpy as np
import tyro

import lmjax
from benchmarks.bench import patches, photograph
from benchmarks.memory import random_predictor
from lmjax.models import registry
from tests.support.networks import SMALLEST, SMALLEST_TRANSFORMER
from tests.support.torch_reference import parity


def milliseconds(
    name: str, *, size: int, variants: int, visible: float, rounds: int
) -> list[float]:
    """Of a variant of one network, plain and masked: medians of rounds, after one that compiles."""
    bundled = registry.network(name).bundled is not None
    classifier = lmjax.models.load(name) if bundled else random_predictor(name).classifier
    image = photograph(size)
    masks = np.asarray(patches(image, variants, visible).masks())
    times = {lmjax.Predictor(classifier, removal): [] for removal in (lmjax.Replace("grey"), None)}
    for _ in range(rounds + 1):
        for predictor, taken in times.items():
            start = time.perf_counter()
            lmjax.evaluate(predictor, image, masks, progress=False)
            taken.append(1e3 * (time.perf_counter() - start) / variants)
    return [statistics.median(taken[1:]) for taken in times.values()]


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    all: bool = False,
    size: int = 224,
    variants: int = 16,
    visible: float = 0.5,
    rounds: int = 5,
) -> None:
    """Prints one row for each network.

    Args:
        names: of networks; by default the smallest of each family, and the bundled one.
        all: every network of the registry.
        size: side of the photograph, in pixels.
        variants: evaluated in each round.
        visible: share of 16-pixel patches that stay visible.
        rounds: of measurement.
    """
    smallest = (*SMALLEST, SMALLEST_TRANSFORMER, "resnet18_digits")
    chosen = names or (registry.names() if all else smallest)
    settings = {"size": size, "variants": variants, "visible": visible, "rounds": rounds}
    print(f"{size} x {size}, {variants} variants, {visible:.0%} visible, {rounds} rounds\n")
    print("| network | parameters | largest error / largest logit | plain, ms | masked, ms |")
    print("|---|---:|---:|---:|---:|")
    for name in chosen:
        bundled = registry.network(name).bundled is not None
        error = "" if bundled else f"{parity(name, size=(size, size)).error:.1e}"
        plain, masked = milliseconds(name, **settings)
        count = registry.network(name).parameters
        print(f"| {name} | {count:,} | {error} | {plain:.1f} | {masked:.1f} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
