"""What an accelerator does with masked variants: at most eight minutes, on the device there is.

    python -m benchmarks.accelerator                    # the default device
    python -m benchmarks.accelerator --network resnet18_digits --size 128 --seconds 120

Prints the rate of a matrix product, variants a second by precision, engine, visible share and batch
size beside the plain network, the five operations that take most of the device's time, memory, and
what the constants of `lmjax.evaluation.plan` would be. What there is no time for is left out, and
said. Needs neither torch nor data.
"""

import contextlib
import dataclasses
import functools
import gzip
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import lmjax
from benchmarks.harness import show
from benchmarks.subjects import patches, photograph, random_classifier
from lmjax.evaluation import programs
from lmjax.evaluation.jobs import Options, job_of_image
from lmjax.models import Classifier

ENGINES = ("dense", "visible", "shared")
# Name -> (type that a network computes in, precision of its products).
PRECISIONS = {
    "float32": (jnp.float32, "highest"),
    "TF32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, "bfloat16"),
}


def main(
    *,
    network: str = "resnet50",
    size: int = 224,
    variants: int = 2048,
    batches: tuple[int, ...] = (64, 256),
    shares: tuple[float, ...] = (0.5, 0.1),
    precisions: tuple[str, ...] = tuple(PRECISIONS),
    seconds: float = 450,
) -> None:
    """Measures for at most about some seconds; a compilation under way is waited for.

    Args:
      network: of the registry, with random weights.
      size: side of the image.
      variants: of each measurement.
      batches: batch sizes; the last one is that of the profile and of the constants.
      shares: of the patches that are visible.
      precisions: of `PRECISIONS`.
      seconds: after which nothing new is begun.
    """
    until = time.monotonic() + seconds
    device = jax.devices()[0]
    settings = {"device": device.device_kind, "network": network, "size": size}
    show(_matrix_rates(precisions), **settings)
    image = photograph(size)
    subjects = {name: _classifier(network, name) for name in precisions}
    rows = _rates(subjects, image, variants, batches, shares, until)
    show(rows, **settings, variants=variants)
    first = precisions[0]
    if _is_time(until, "the profile"):
        family = patches(image, batches[-1], shares[0])
        run = functools.partial(_evaluate, subjects[first], image, family, "dense", batches[-1])
        with _products_in(first):
            show(_profile(run), engine="dense", precision=first)
    if _is_time(until, "the constants of the plan"):
        with _products_in(first):
            constants = _constants(subjects[first], image, variants, batches[-1], shares)
        show([constants], precision=first)
    memory = device.memory_stats() or {}
    print(f"peak memory: {memory.get('peak_bytes_in_use', float('nan')) / 1e9:.2f} GB")


def _is_time(until: float, what: str) -> bool:
    """Returns whether there is time left; says what is left out otherwise."""
    if time.monotonic() < until:
        return True
    print(f"no time left for {what}")
    return False


def _classifier(network: str, precision: str) -> Classifier:
    """Builds a network with random weights that computes in a type."""
    classifier = random_classifier(network)
    module = classifier.module.clone(dtype=PRECISIONS[precision][0])
    return dataclasses.replace(
        classifier, module=module, variables=jax.device_put(classifier.variables)
    )


def _products_in(precision: str) -> contextlib.AbstractContextManager:
    return jax.default_matmul_precision(PRECISIONS[precision][1])


def _matrix_rates(precisions: tuple[str, ...], side: int = 8192) -> Iterator[dict[str, Any]]:
    """Measures a product of square matrices, the most that a device can be expected to do."""
    side = side if jax.default_backend() != "cpu" else 1024
    for precision in precisions:
        dtype = PRECISIONS[precision][0]
        x = jnp.ones((side, side), dtype)
        with _products_in(precision):
            product = jax.jit(lambda x: x @ x)
            took = _seconds(lambda product=product, x=x: product(x).block_until_ready(), rounds=5)
        yield {"precision": precision, "matrix product, TFLOP/s": 2 * side**3 / took / 1e12}


def _seconds(run: Callable[[], Any], *, rounds: int = 3) -> float:
    """Returns the median seconds of a run, after one that compiles."""
    run()
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return float(np.median(took))


def _evaluate(
    classifier: Classifier, image: np.ndarray, family: Any, engine: Any, batch_size: int
) -> np.ndarray:
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    options = {"engine": engine, "batch_size": batch_size, "progress": False}
    return lmjax.evaluate(predictor, image, family, **options)


def _plain(classifier: Classifier, image: np.ndarray, count: int, batch_size: int) -> float:
    """Measures the plain network; returns images a second."""
    images = jax.device_put(np.broadcast_to(image, (batch_size, *image.shape)).copy())
    run = jax.jit(lambda classifier, images: classifier.logits(images))
    calls = max(count // batch_size, 1)

    def every() -> None:
        for _ in range(calls):
            last = run(classifier, images)
        last.block_until_ready()

    return calls * batch_size / _seconds(every)


def _rates(
    subjects: dict[str, Classifier],
    image: np.ndarray,
    variants: int,
    batches: tuple[int, ...],
    shares: tuple[float, ...],
    until: float,
) -> Iterator[dict[str, Any]]:
    """Measures variants a second, by precision, batch size, share and engine."""
    for precision, classifier in subjects.items():
        for batch_size in batches:
            if not _is_time(until, f"{precision} in batches of {batch_size}"):
                continue
            with _products_in(precision):
                plain = _plain(classifier, image, variants, batch_size)
                row = {"precision": precision, "batch": batch_size}
                yield {**row, "engine": "plain", "share": 1.0, "variants/s": plain, "of plain": 1.0}
                for share in shares:
                    for engine in ENGINES:
                        if not _is_time(until, f"{engine}, {precision}, {share:.0%} visible"):
                            continue
                        family = patches(image, variants, share)
                        given = classifier, image, family, engine, batch_size
                        rate = variants / _seconds(functools.partial(_evaluate, *given))
                        found = {"variants/s": rate, "of plain": rate / plain}
                        yield {**row, "engine": engine, "share": share, **found}


def _profile(run: Callable[[], Any]) -> Iterator[dict[str, Any]]:
    """Profiles a run; yields the five operations that take most of the device's time."""
    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        files = list(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(files[0].read_bytes()))["traceEvents"]
    times = _operations(events)
    total = sum(times.values())
    for name, microseconds in times.most_common(5):
        yield {"operation": name, "ms": microseconds / 1e3, "share": microseconds / total}


def _operations(events: list[dict[str, Any]]) -> Counter:
    """Sums the microseconds of operations by name: those that carry the name of a program."""
    times: Counter = Counter()
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            times[event["args"]["hlo_op"].split(".")[0]] += event["dur"]
    return times


def _constants(
    classifier: Classifier,
    image: np.ndarray,
    variants: int,
    batch_size: int,
    shares: tuple[float, ...],
) -> dict[str, Any]:
    """Fits the plan's constants of the visible engine to its time against dense.

    A variant takes `work` times what the plan, whose costs were fitted on CPU, estimates for rows,
    and `variant` beside, in units of a dense one; compiling costs `compiling` multiplications for
    each convolution.
    """
    jax.clear_caches()  # the first runs are to compile
    first, times = {}, {"dense": [], "visible": []}
    for share in shares:
        family = patches(image, variants, share)
        for engine, found in times.items():
            run = functools.partial(_evaluate, classifier, image, family, engine, batch_size)
            start = time.perf_counter()
            run()
            first.setdefault(engine, time.perf_counter() - start)
            found.append(_seconds(run) / variants)
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    kept = [_work_on_rows(predictor, image, patches(image, 32, share)) for share in shares]
    ratios = np.array(times["visible"]) / np.array(times["dense"])
    work, variant = np.polyfit(kept, ratios, 1) if len(shares) > 1 else (ratios[0] / kept[0], 0.0)
    layout = programs.record(_job(predictor, image, patches(image, 1, 1.0)))
    rate = layout.costs_at_full_size().sum() / np.mean(times["dense"])  # the plan's costs a second
    compiling = (first["visible"] - first["dense"]) * rate / layout.convolutions
    return {"work": float(work), "variant": float(variant), "compiling": float(compiling)}


def _job(predictor: Any, image: np.ndarray, family: Any) -> Any:
    return job_of_image(predictor, image, family, Options())


def _work_on_rows(predictor: Any, image: np.ndarray, family: Any) -> float:
    """Returns the work of a variant on rows, on average; a full-size one has 1."""
    job = _job(predictor, image, family)
    layout = programs.record(job)
    counts = programs.count_rows(job, layout, np.arange(job.num_variants))
    work = counts.rows @ counts.costs.sum(axis=0)
    return float(work.mean() / layout.costs_at_full_size().sum())


if __name__ == "__main__":
    tyro.cli(main)
