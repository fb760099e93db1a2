"""Peak resident memory of many variants against few: `python -m benchmarks.memory`.

One photograph, random coalitions of 49 cells or about 50 superpixels, layer masking, random
weights. Every row is a process of its own, so that its peak includes imports, weights and
compilation. Linux only.
"""

import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

import lmjax
from benchmarks.harness import measure, peak_memory, run_alone, show
from benchmarks.subjects import Engine, coalitions, photograph, random_classifier, superpixels


class Memory(NamedTuple):
    """What one evaluation took.

    Attributes:
      before: highest resident memory before it, in MB: imports and weights.
      peak: highest resident memory after it, in MB.
      seconds: on the clock, compilation included.
    """

    before: float
    peak: float
    seconds: float


def cells(image: np.ndarray, count: int, share: float) -> lmjax.Coalitions:
    """Draws masks whose cells, seven a side, are visible with probability `share`."""
    return coalitions(lmjax.segments.grid(image, size=max(len(image) // 7, 1)), count, share)


MASKS = {"cells": cells, "superpixels": superpixels}


def evaluate(
    model: str, size: int, masks: str, variants: int, visible: float, options: dict[str, Any]
) -> Memory:
    """Evaluates variants of a photograph in this process, and reads its peak memory."""
    predictor, image = lmjax.Predictor(random_classifier(model)), photograph(size)
    drawn = MASKS[masks](image, variants, visible)
    evaluator = lmjax.Evaluator(predictor, progress=False, **options)
    before = peak_memory()
    took = measure(functools.partial(evaluator, image, drawn))
    return Memory(before, peak_memory(), took.wall)


def main(
    *,
    model: str = "resnet50",
    size: int = 224,
    masks: Literal["cells", "superpixels"] = "cells",
    variants: tuple[int, ...] = (100, 10_000),
    engines: tuple[Engine, ...] = ("dense", "auto"),
    visible: float = 0.5,
    batch_size: int | None = None,
    cores: int | None = None,
) -> None:
    """Measures the peak memory of every engine, by number of variants.

    Args:
        model: a network of the registry.
        size: side of the photograph, in pixels.
        masks: what is visible or hidden as a whole: 49 cells, or about 50 superpixels by SLIC.
        variants: how many are evaluated.
        engines: dense, visible, shared, auto.
        visible: share of them that stays visible. With 0.1 the engines other than dense need
            far less time, but then each batch holds more variants: it is another measurement.
        batch_size: of each engine; by default its own.
        cores: CPU cores of each process; all by default.
    """

    def rows() -> Iterator[dict[str, Any]]:
        for engine in engines:
            for count in variants:
                options = {"engine": engine, "batch_size": batch_size}
                took = run_alone(evaluate, model, size, masks, count, visible, options, cores=cores)
                yield {
                    "engine": engine,
                    "variants": count,
                    "peak, MB": round(took.peak),
                    "before evaluating, MB": round(took.before),
                    "seconds": took.seconds,
                }

    show(rows(), network=model, size=size, masks=masks, visible=visible, batch_size=batch_size)


if __name__ == "__main__":
    tyro.cli(main)
