"""Whole tasks, from an image or a command to the result.

    python -m benchmarks.tasks engines      # engine="auto" against engine="dense", cold and warm
    python -m benchmarks.tasks libraries    # LIME and sliding occlusion against other libraries
    python -m benchmarks.tasks overhead     # what attributions cost besides the network
    python -m benchmarks.tasks pairs        # interactions from coalitions that were evaluated
    python -m benchmarks.tasks images       # LIME of many images in one call, beside the network

`libraries` needs torch, torchvision, lime and captum (the extra `test`).
"""

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tyro.conf import Positional, arg

import lmjax
from benchmarks.harness import Usage, measure, ratio, run_alone, show, take_turns
from benchmarks.subjects import photograph, random_classifier, write_photographs

KEY = jax.random.key(0)
SIDES = ("dense", "auto")
# JAX's persistent compilation cache, as lmjax's commands set it: programs of any size are kept.
_CACHE = {
    "JAX_COMPILATION_CACHE_DIR": "",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the tasks are.

    Attributes:
      model: network with random weights, of the tasks on photographs.
      scenes: images of the study on digit scenes.
      photographs: images of the study on photographs.
      samples: variants of LIME.
    """

    model: str = "resnet50"
    scenes: int = 60
    photographs: int = 8
    samples: int = 1000


def study_of_scenes(engine: str, sizes: Sizes) -> Usage:
    """Runs the removal study on digit scenes with the bundled network."""
    source = lmjax.data.DigitScenes("test", length=sizes.scenes)
    return _run(engine, lmjax.studies.SegmentRemoval(), source, models=("resnet18_digits",))


def study_of_photographs(engine: str, sizes: Sizes) -> Usage:
    """Runs the removal study on photographs with a network of random weights."""
    networks = {sizes.model: random_classifier(sizes.model)}
    study = lmjax.studies.SegmentRemoval(saliency=sizes.model)  # photographs have no object mask
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photographs"
        write_photographs(folder, sizes.photographs)
        return _run(engine, study, lmjax.data.from_folder(folder), models=networks)


def _run(engine: str, study: Any, source: Any, **options: Any) -> Usage:
    with tempfile.TemporaryDirectory() as out:
        options |= {"out": out, "engine": engine, "progress": False}
        return measure(lambda: lmjax.studies.run(study, source, **options))


def lime(engine: str, sizes: Sizes) -> Usage:
    """Explains a photograph by LIME with a network of random weights."""
    predictor = lmjax.Predictor(random_classifier(sizes.model))
    image = photograph(predictor.classifier.preprocessing.crop)
    return measure(functools.partial(_lime, predictor, image, engine, sizes.samples))


def _lime(predictor: lmjax.Predictor, image: np.ndarray, engine: str, samples: int) -> None:
    evaluator = lmjax.Evaluator(predictor, engine=engine, progress=False)
    segments = lmjax.segments.slic(image, n_segments=50)
    lmjax.attribution.lime(evaluator, image, segments, key=KEY, num_samples=samples)


def explain_command(engine: str, sizes: Sizes) -> Usage:
    """Runs `lmjax explain` from its start to its end, with the cache that it makes itself."""
    environment = {name: value for name, value in os.environ.items() if name not in _CACHE}
    run_main = "import sys; from lmjax.cli.main import main; main(sys.argv[1:])"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", run_main, "explain", "--engine", engine]
        command += ["--output", f"{folder}/explanation.png"]
        options = {"env": environment, "check": True, "stdout": subprocess.DEVNULL}
        return measure(lambda: subprocess.run(command, **options))


TASKS: dict[str, Callable[[str, Sizes], Usage]] = {
    "removal study, digit scenes": study_of_scenes,
    "removal study, photographs": study_of_photographs,
    "LIME": lime,
    "lmjax explain": explain_command,
}


def compare_engines(
    task: str, sizes: Sizes, *, rounds: int, cores: int | None
) -> Iterator[dict[str, Any]]:
    """Yields a row for a cold compilation cache, and one for a warm one.

    Every run is a fresh process. In each round both engines run with an empty cache, and then both
    again, each with the cache that it has just left.
    """

    def run(engine: str, cache: str) -> Usage:
        folder = f"{caches}/{engine}"
        if cache == "cold":
            shutil.rmtree(folder, ignore_errors=True)
        environment = _CACHE | {"JAX_COMPILATION_CACHE_DIR": folder, "LMJAX_CACHE": folder}
        return run_alone(TASKS[task], engine, sizes, environment=environment, cores=cores)

    with tempfile.TemporaryDirectory() as caches:
        turns = [(engine, cache) for cache in ("cold", "warm") for engine in SIDES]
        runs = {turn: functools.partial(run, *turn) for turn in turns}
        times = take_turns(runs, rounds, warm_up=False)
    for cache in ("cold", "warm"):
        dense, auto = (times[engine, cache] for engine in SIDES)
        yield {
            "task": task,
            "cache": cache,
            "dense, s": float(np.median(dense.wall)),
            "auto, s": float(np.median(auto.wall)),
            "dense / auto": ratio(dense.wall, auto.wall),
            "dense, CPU s": float(np.median(dense.cpu)),
            "auto, CPU s": float(np.median(auto.cpu)),
            "dense / auto, CPU": ratio(dense.cpu, auto.cpu),
        }


def engines(
    tasks: Positional[tuple[str, ...]] = (),
    *,
    sizes: Annotated[Sizes, arg(name="")] = Sizes(),
    rounds: int = 3,
    cores: int | None = 2,
) -> None:
    """Measures tasks with engine="auto" against engine="dense", compilation included.

    Seconds are those of the call: imports and weights are there before it begins. The command is
    measured whole.

    Args:
        tasks: only those whose name holds one of these, such as LIME.
        sizes: of the tasks.
        rounds: of four runs each: both engines, with a cold cache and with a warm one.
        cores: CPU cores of each process.
    """
    chosen = [task for task in TASKS if not tasks or any(each in task for each in tasks)]
    rows = (
        row for task in chosen for row in compare_engines(task, sizes, rounds=rounds, cores=cores)
    )
    show(rows, **dataclasses.asdict(sizes), rounds=rounds, cores=cores)


def libraries(
    *, model: str = "resnet50", size: int = 224, samples: int = 1000, rounds: int = 1
) -> None:
    """Measures LIME and sliding occlusion, and what other libraries take for as many variants.

    The seconds of PyTorch alone are those of a few variants, times all. The lime package and Captum
    run loops of their own around the unmasked network, once.

    Args:
        model: a ResNet of torchvision; weights are random.
        size: side of the photograph, in pixels.
        samples: variants of LIME.
        rounds: of measurement.
    """
    from benchmarks import engines

    network, image = engines.Network.make(model), photograph(size)
    predictor, sweep = lmjax.Predictor(network.classifier), engines.sweep(image)
    occlude = functools.partial(lmjax.Evaluator(predictor, progress=False), image, sweep)
    tasks = {
        "LIME": (functools.partial(_lime, predictor, image, "auto", samples), samples),
        "sliding occlusion": (occlude, len(sweep)),
    }
    loops = {"lime package": _lime_package, "Captum": _captum}

    def rows() -> Iterator[dict[str, Any]]:
        few = np.array(sweep.masks(slice(16)))  # PyTorch's time does not depend on the masks
        others = engines.torch_contenders(network, image, few)
        for task, (run, variants) in tasks.items():
            runs = {"lmjax": run} | {name: each.run for name, each in others.items()}
            times = take_turns(runs, rounds)
            seconds = {
                name: times[name].wall * variants / each.variants for name, each in others.items()
            }
            seconds |= {"lmjax": times["lmjax"].wall, "lmjax, compiling": times["lmjax"].first[:1]}
            if task == "LIME":
                for name, loop in loops.items():
                    took = measure(functools.partial(loop, network, image, samples))
                    seconds[f"{name}, unmasked"] = np.array([took.wall])
            for name, each in seconds.items():
                yield {
                    "task": task,
                    "variants": variants,
                    "contender": name,
                    "seconds": float(np.median(each)),
                    "against the recipe": ratio(np.median(seconds[engines.RECIPE]), each),
                }

    show(rows(), network=model, size=size, rounds=rounds)


def _lime_package(network: Any, image: np.ndarray, samples: int) -> None:
    """Explains by the lime package's own loop, with its default batches of 10."""
    import torch
    from lime.lime_image import LimeImageExplainer

    from benchmarks.subjects import to_torch

    def probabilities(images: np.ndarray) -> np.ndarray:
        batch = to_torch(np.asarray(network.classifier.normalise(images.astype(np.float32))))
        with torch.inference_mode():
            logits = network.nhwc(batch.contiguous(memory_format=torch.channels_last))
            return logits.softmax(-1).numpy()

    LimeImageExplainer(random_state=0).explain_instance(
        image.astype(float),
        probabilities,
        top_labels=1,
        num_samples=samples,
        segmentation_fn=lambda x: lmjax.segments.slic(x.astype(np.float32), n_segments=50),
    )


def _captum(network: Any, image: np.ndarray, samples: int) -> None:
    """Explains by Captum's own loop, in batches of 8."""
    import torch
    from captum.attr import Lime

    from benchmarks.subjects import to_torch

    segments = torch.from_numpy(lmjax.segments.slic(image, n_segments=50)).long()[None]
    inputs = to_torch(np.asarray(network.classifier.normalise(image))[None])
    with torch.no_grad():
        Lime(network.nhwc).attribute(
            inputs.contiguous(memory_format=torch.channels_last),
            target=0,
            feature_mask=segments,
            n_samples=samples,
            perturbations_per_eval=8,
        )


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["soft_masks"])
@dataclasses.dataclass(frozen=True)
class Cheap:
    """Predictor that reads every pixel of its masks and does nothing else."""

    soft_masks: bool

    def __call__(self, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns logits of 10 classes."""
        return masks.astype(jnp.float32).mean(axis=(1, 2))[:, None] * jnp.arange(1.0, 11.0)[None]


def methods(image: np.ndarray, segments: np.ndarray, variants: int) -> dict[str, Callable]:
    """Returns functions that explain or score with `Cheap`, evaluating about `variants` each."""
    attribution, metrics = lmjax.attribution, lmjax.metrics
    num_segments = int(segments.max()) + 1
    heatmap = np.random.default_rng(0).random(image.shape[:2])
    samples, on_segments = {"key": KEY, "num_samples": variants}, {"segments": segments}
    permutations = {"key": KEY, "num_permutations": max(variants // (2 * num_segments - 2), 2)}
    designs = {"key": KEY, "num_designs": max(variants // (num_segments + 1), 2)}
    options = {
        "occlusion": (attribution.occlusion, {}),
        "leave_one_out": (attribution.leave_one_out, on_segments),
        "leave_one_in": (attribution.leave_one_in, on_segments),
        "rise": (attribution.rise, samples),
        "rise, soft masks": (attribution.rise, samples),
        "lime": (attribution.lime, on_segments | samples),
        "kernelshap": (attribution.kernelshap, on_segments | samples),
        "permutation_shapley": (attribution.permutation_shapley, on_segments | permutations),
        "banzhaf": (attribution.banzhaf, on_segments | samples),
        "sobol": (attribution.sobol, on_segments | designs),
        "sobol, soft masks": (attribution.sobol, on_segments | designs),
        "hsic": (attribution.hsic, on_segments | samples),
        "deletion": (metrics.deletion, {"heatmap": heatmap}),
        "insertion": (metrics.insertion, {"heatmap": heatmap}),
    }
    return {
        name: functools.partial(function, Cheap("soft" in name), image, **arguments)
        for name, (function, arguments) in options.items()
    }


def overhead(
    *,
    model: str = "resnet50",
    size: int = 224,
    variants: int = 1000,
    cells: int = 7,
    network_variants: int = 32,
    rounds: int = 3,
) -> None:
    """Measures what attributions and curves cost besides the network.

    Each method runs with a predictor that costs next to nothing: what is left is drawing samples,
    making masks, calling programs and the arithmetic behind. The network's time for as many
    variants, by the engine "dense", is that of a few, times all.

    Args:
        model: network of the registry, with random weights.
        size: side of the image, in pixels.
        variants: about how many each method evaluates.
        cells: segments along each side.
        network_variants: how many are evaluated to know the network's time.
        rounds: of measurement, after one that compiles.
    """
    image = np.random.default_rng(0).random((size, size, 3), np.float32)
    segments = lmjax.segments.grid(image, size=-(-size // cells))
    keep = np.random.default_rng(0).random((network_variants, int(segments.max()) + 1)) < 0.5
    predictor = lmjax.Predictor(random_classifier(model))
    evaluator = lmjax.Evaluator(predictor, engine="dense", progress=False)
    network = functools.partial(evaluator, image, lmjax.Coalitions(segments, keep))

    def rows() -> Iterator[dict[str, Any]]:
        each = np.median(take_turns({"": network}, rounds)[""].wall) / network_variants
        for name, run in methods(image, segments, variants).items():
            count, besides = _num_variants(run()), np.median(take_turns({"": run}, rounds)[""].wall)
            yield {
                "method": name,
                "variants": count,
                "besides the network, s": float(besides),
                "the network, s": float(count * each),
                "share": float(besides / (count * each)),
            }

    show(rows(), network=model, size=size, rounds=rounds)


def images(*, count: int = 32, samples: int = 500, rounds: int = 5) -> None:
    """Measures LIME of many images in one call against the network alone.

    The bundled network, digit scenes, squares of 16 pixels. The network alone is given the same
    number of variants of the same images, as one pool.

    Args:
        count: images.
        samples: variants of each.
        rounds: of measurement, after one that compiles.
    """
    classifier = lmjax.models.load("resnet18_digits")
    scenes = lmjax.data.DigitScenes("test", length=count)
    pictures = np.stack([classifier.preprocessing(scene.image) for scene in scenes])
    segments = lmjax.segments.grid(pictures[0])
    evaluator = lmjax.Evaluator(lmjax.Predictor(classifier), engine="dense", progress=False)
    keep = np.random.default_rng(0).random((count * samples, int(segments.max()) + 1)) < 0.5
    pool = lmjax.masks.ImageCoalitions(np.stack([segments] * count), keep)
    image_of = np.repeat(np.arange(count), samples)
    options = {"key": KEY, "num_samples": samples}
    times = take_turns(
        {
            "the network": lambda: evaluator.images(pictures, pool, image_of=image_of),
            "lime, all images in one call": lambda: lmjax.attribution.lime(
                evaluator, pictures, segments, **options
            ),
        },
        rounds,
    )
    network = times["the network"]
    show(
        (
            {"": name, "wall, s": float(np.median(each.wall))}
            | {"processor, s": float(np.median(each.cpu))}
            | {"processor, of the network's": float(np.median(each.cpu / network.cpu))}
            for name, each in times.items()
        ),
        images=count,
        variants=samples,
        rounds=rounds,
    )


def pairs(*, cells: tuple[int, int] = (5, 10), samples: int = 5000, rounds: int = 5) -> None:
    """Measures interactions of segments, from coalitions that a method has evaluated.

    Args:
        cells: segments along each side.
        samples: coalitions.
        rounds: of measurement, after one that compiles.
    """
    image = np.zeros((8 * cells[0], 8 * cells[1], 3), np.float32)
    segments = lmjax.segments.grid(image, size=8)
    given = {"predictor": Cheap(False), "image": image, "segments": segments, "key": KEY}
    contenders = {}
    for name in ("kernelshap", "lime", "banzhaf"):
        sampled = getattr(lmjax.attribution, name)(**given, num_samples=samples, target=0)
        for index in lmjax.attribution.interaction_indices.INDICES:
            if name == "kernelshap" or index == "Banzhaf":
                options = {"index": index, "previous": sampled}
                run = functools.partial(lmjax.attribution.interactions, **given, **options)
                contenders[name, index] = run
    times = take_turns(contenders, rounds)
    show(
        (
            {"samples of": name, "index": index}
            | {"wall, s": float(np.median(each.wall)), "processor, s": float(np.median(each.cpu))}
            for (name, index), each in times.items()
        ),
        segments=int(segments.max()) + 1,
        samples=samples,
        rounds=rounds,
    )


def _num_variants(result: Any) -> int:
    """Returns how many variants an attribution or a curve has evaluated."""
    if isinstance(result, lmjax.metrics.Curve):
        return result.values.shape[-1]
    return result.num_variants


if __name__ == "__main__":
    app = tyro.extras.SubcommandApp()
    for command in (engines, libraries, overhead, pairs, images):
        app.command(command)
    app.cli()
