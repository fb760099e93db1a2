"""`lmjax.layer_mask` of a plain network against the same network written in masked layers.

    python -m benchmarks.transform

Both have the same weights, images and masks, and take turns in one process.
"""

import functools
import time
from collections.abc import Iterator
from typing import Any, get_args

import jax
import numpy as np
import tyro

import lmjax
from benchmarks.harness import ratio, show, take_turns
from benchmarks.subjects import Engine, patches, photograph, random_classifier
from lmjax.masking.masked import Masked
from lmjax.models import Classifier

ENGINES = [engine for engine in get_args(Engine) if engine != "auto"]


def traced(classifier: Classifier) -> Classifier:
    """Returns the classifier as a function that knows nothing of masks, to be transformed."""
    module = classifier.module

    def plain(variables: Any, images: jax.Array) -> jax.Array:
        return module.apply(variables, Masked(images))  # type: ignore[return-value]

    return lmjax.models.from_function(
        plain, classifier.variables, preprocessing=classifier.preprocessing
    )


def compile_seconds(classifier: Classifier, images: np.ndarray, masks: np.ndarray) -> list[float]:
    """Returns the seconds of tracing and lowering, and of XLA, on full-size activations."""
    apply = jax.jit(lambda classifier, images, masks: classifier.apply(images, masks))
    start = time.perf_counter()
    lowered = apply.lower(classifier, images, masks)
    middle = time.perf_counter()
    lowered.compile()
    return [middle - start, time.perf_counter() - middle]


def compare(names: tuple[str, ...], variants: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each network and engine."""
    image = photograph(224)
    coalitions = patches(image, variants, 0.5)
    for name in names:
        written = random_classifier(name)
        compiling = _compiling(written, image, np.asarray(coalitions.masks(slice(0, 8))))
        for engine in ENGINES:
            runs, results = {}, {}
            for kind, classifier in (("written", written), ("traced", traced(written))):
                predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
                evaluator = lmjax.Evaluator(predictor, engine=engine, batch_size=16)
                runs[kind] = functools.partial(evaluator, image, coalitions)
                results[kind] = np.asarray(runs[kind]())
            times = take_turns(runs, rounds)
            error = np.abs(results["traced"] - results["written"]).max()
            yield {
                "network": name,
                "engine": engine,
                "ms a variant": 1e3 * float(np.median(times["traced"].wall)) / variants,
                "time": str(ratio(times["traced"].wall, times["written"].wall)),
                "processor time": str(ratio(times["traced"].cpu, times["written"].cpu)),
                **(compiling if engine == "dense" else dict.fromkeys(compiling)),
                "error": float(error / np.abs(results["written"]).max()),
            }


def _compiling(written: Classifier, image: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """How long it takes the traced network to be traced, and to be compiled too, by the other."""
    images = np.broadcast_to(np.asarray(written.normalise(image)), (len(masks), *image.shape))
    compile_seconds(written, images, masks)  # imports
    took = [
        [compile_seconds(c, images, masks) for c in (written, traced(written))] for _ in range(3)
    ]
    of_written, of_traced = np.median(took, axis=0)
    return {
        "tracing": of_traced[0] / of_written[0],
        "tracing and compiling": of_traced.sum() / of_written.sum(),
    }


def main(
    names: tuple[str, ...] = ("resnet50", "densenet121", "mobilenet_v2"),
    variants: int = 64,
    rounds: int = 5,
) -> None:
    """Prints the table: above 1, the traced network takes longer.

    Args:
      names: networks of the registry.
      variants: masks of 16-pixel patches, half of them visible, 224 x 224.
      rounds: how often each runs.
    """
    show(compare(names, variants, rounds), variants=variants, rounds=rounds)


if __name__ == "__main__":
    tyro.cli(main)
