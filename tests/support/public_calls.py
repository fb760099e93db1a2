"""An example call of every public function, on small inputs.

Tests change arguments, and settings of JAX.
"""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lmjax
from lmjax import (
    attribution,
    evaluation,
    masking,
    masks,
    metrics,
    objectives,
    removals,
    segments,
    training,
)
from lmjax.attribution import methods
from lmjax.masking import Masked, layers, windows
from lmjax.metrics import Curve
from lmjax.models import Classifier
from lmjax.training import Examples, TrainingConfig
from lmjax.training.loop import initial_variables
from tests.support.any_size_network import any_size_network
from tests.training.small_network import CLASSES, PREPROCESSING, SIZE, Small

RNG = np.random.default_rng(0)
H, W = 8, 6
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
SEGMENTS = (np.arange(H)[:, None] // 2 * 3 + np.arange(W)[None] // 2).astype(np.int32)
S = int(SEGMENTS.max()) + 1
MASKS = RNG.random((3, H, W)) < 0.6
OBJECT = np.pad(np.ones((3, 2), bool), ((2, 3), (1, 3)))
HEATMAP = RNG.normal(size=(H, W)).astype(np.float32)
SCORES = RNG.normal(size=S).astype(np.float32)
KEY = jax.random.key(0)
NETWORK = any_size_network()
PREDICTOR = lmjax.Predictor(NETWORK, lmjax.Replace("black"))
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32)
CURVE = Curve(np.linspace(0, 1, 4), np.array([0.9, 0.5, 0.4, 0.1]), target=0)
LATER = Curve(np.linspace(0, 1, 4), np.array([0.9, 0.8, 0.6, 0.1]), target=0)
ACTIVATIONS = Masked(jnp.asarray(RNG.normal(size=(3, H, W, 4)), jnp.float32), jnp.asarray(MASKS))
KERNEL = jnp.asarray(RNG.normal(size=(3, 3, 4, 2)), jnp.float32)


class Call(NamedTuple):
    """A call, with all arguments by name."""

    function: Callable
    arguments: dict[str, Any]

    def __call__(self, **changed: Any) -> Any:
        signature = inspect.signature(self.function)
        bound = inspect.BoundArguments(signature, {**self.arguments, **changed})
        return self.function(*bound.args, **bound.kwargs)


def call(function: Callable, *args: Any, **options: Any) -> Call:
    return Call(function, dict(inspect.signature(function).bind(*args, **options).arguments))


def brightness(params, images):
    """A network with a convolution, for `layer_mask`."""
    seen = jax.lax.conv_general_dilated(
        images, params, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return seen.mean(axis=(1, 2))


def _masked_brightness(params, images, masks):
    return masking.layer_mask(brightness)(params, images, masks)


def _under(name: str) -> Callable:
    def evaluated(image, masks, *, key, segments):
        removal = removals.make(name, key=key, segments=segments)
        return lmjax.evaluate(lmjax.Predictor(NETWORK, removal), image, masks)

    return evaluated


class Brightest:
    """Half a network, for Grad-CAM: features, and what is made of them."""

    @staticmethod
    def features(image):
        return image - jnp.float32(0.2)

    @staticmethod
    def head(features):
        return features.mean(axis=(0, 1)) * jnp.float32(3)


def _draw(key):
    return jax.random.uniform(key, (2,), jnp.float32)


def _of_image(module: types.ModuleType) -> dict[str, Call]:
    """Calls of attributions and metrics that ask a predictor."""
    given = {
        "predictor": PREDICTOR,
        "image": IMAGE,
        "segments": SEGMENTS,
        "heatmap": HEATMAP,
        "key": KEY,
    }
    few = {"num_samples": 20, "num_permutations": 2, "num_designs": 2, "steps": 3}
    few |= {"num_masks": 20, "num_subsets": 5, "size": 3, "sizes": None, "areas": (0.2, 0.5)}
    few |= {
        "num_orders": 2,
        "step": 8,
        "num_steps": 3,
        "iterations": 3,
        "blur_sigma": 2.0,
        "grid": 3,
    }
    found = {}
    for name in module.__all__:
        function = getattr(module, name)
        if not inspect.isfunction(function):
            continue
        takes = inspect.signature(function).parameters
        if "predictor" in takes:
            known = {**few, **given}
            arguments = {each: known[each] for each in takes if each in known}
            found[name] = Call(function, {k: v for k, v in arguments.items() if v is not None})
    return found


def _attribution() -> dict[str, Call]:
    keep = masks.random_keep(S, 30, key=KEY)
    calls = _of_image(attribution)
    pairs = SEGMENTS // 4  # few segments, of which all coalitions are evaluated
    calls["exact_shapley"] = call(attribution.exact_shapley, PREDICTOR, IMAGE, pairs)
    calls["interactions"] = call(attribution.interactions, PREDICTOR, IMAGE, pairs, key=KEY)
    calls["kernelshap"] = Call(
        attribution.kernelshap, {**calls["kernelshap"].arguments, "num_samples": 40}
    )
    calls["banzhaf"] = Call(attribution.banzhaf, {**calls["banzhaf"].arguments, "num_samples": 40})
    calls["integrated_gradients"] = Call(
        attribution.integrated_gradients,
        {**calls["integrated_gradients"].arguments, "baseline": np.zeros_like(IMAGE)},
    )
    halves = Brightest.features, Brightest.head
    for name in ("gradcam", "gradcam_plus_plus", "hirescam", "layercam"):
        calls[name] = call(getattr(attribution, name), *halves, IMAGE)
    for name in ("scorecam", "ablationcam"):
        given = {**calls[name].arguments, "halves": halves}
        calls[name] = Call(getattr(attribution, name), given)
    layered = lmjax.Predictor(small_network(), lmjax.LayerMasking())
    calls["fullgrad"] = call(attribution.fullgrad, layered, IMAGE)
    outputs = keep @ SCORES
    calls["lime_regression"] = call(attribution.lime_regression, keep, outputs)
    calls["stable_ranking"] = Call(
        _stop, {"top": 2, "scores": SCORES[None], "errors": abs(SCORES[None])}
    )
    return calls


def _stop(top, scores, errors):
    return attribution.stable_ranking(top)(scores, errors)


def _kernel_of(classifier):
    """Weights in the place of a heatmap."""
    return classifier.variables["params"]["conv"]["kernel"]


def _metrics() -> dict[str, Call]:
    calls = _of_image(metrics)
    hidden = np.arange(H * W).reshape(H, W) % np.arange(2, 6)[:, None, None] != 0
    infidelity = {"predictor": PREDICTOR, "image": IMAGE, "heatmap": HEATMAP, "masks": hidden}
    calls["infidelity"] = Call(metrics.infidelity, infidelity)
    classes, others = np.array([0, 1, 2, 1]), np.array([0, 2, 2, 1])
    similar = np.eye(3) * 0.5 + 0.5
    return calls | {
        "accuracy": call(metrics.accuracy, classes, others),
        "alignment": call(metrics.alignment, SCORES, SEGMENTS, OBJECT),
        "aopc": call(metrics.aopc, CURVE),
        "area_between": call(metrics.area_between, LATER, CURVE),
        "bootstrap_mean": call(metrics.bootstrap_mean, SCORES, key=KEY, num_resamples=20),
        "class_entropy": call(metrics.class_entropy, classes),
        "class_similarity": call(metrics.class_similarity, classes, others, similar),
        "cosine_similarity": call(metrics.cosine_similarity, SCORES, SCORES[::-1]),
        "entropy_complexity": call(metrics.entropy_complexity, SCORES),
        "efficient_mprt": call(metrics.efficient_mprt, _kernel_of, small_network(), key=KEY),
        "mprt": call(metrics.mprt, _kernel_of, small_network(), key=KEY),
        "kendall": call(metrics.kendall, SCORES, SCORES[::-1]),
        "local_lipschitz": call(metrics.local_lipschitz, Brightest.head, IMAGE, key=KEY),
        "max_sensitivity": call(metrics.max_sensitivity, Brightest.head, IMAGE, key=KEY),
        "occlusion_area": call(metrics.occlusion_area, CURVE),
        "pointing_game": call(metrics.pointing_game, HEATMAP, OBJECT),
        "random_logit": call(metrics.random_logit, _map_of, 0, num_classes=3, key=KEY),
        "relevance_gain": call(metrics.relevance_gain, LATER, CURVE),
        "relevance_mass_accuracy": call(metrics.relevance_mass_accuracy, HEATMAP, OBJECT),
        "relevance_rank_accuracy": call(metrics.relevance_rank_accuracy, HEATMAP, OBJECT),
        "sparseness": call(metrics.sparseness, SCORES),
        "spearman": call(metrics.spearman, SCORES, SCORES[::-1]),
        "ssim": call(metrics.ssim, HEATMAP, HEATMAP[::-1], window=3),
        "top_k_iou": call(metrics.top_k_iou, HEATMAP, OBJECT),
        "top_k_jaccard": call(metrics.top_k_jaccard, SCORES, SCORES[::-1], k=3),
        "unchanged_predictions": call(metrics.unchanged_predictions, classes, others),
        "win_rates": call(metrics.win_rates, LOGITS, key=KEY, num_resamples=20),
    }


def _map_of(target: int):
    return LOGITS[target % len(LOGITS)]


def _masks() -> dict[str, Call]:
    keep = masks.random_keep(S, 5, key=KEY)
    orders = masks.random_orders(S, 2, key=KEY)
    drawn = {"num_segments": S, "num_samples": 6, "key": KEY}
    return {
        "all_coalitions": call(masks.all_coalitions, 4),
        "bernoulli_keep": Call(masks.bernoulli_keep, drawn),
        "complement_pairs": call(masks.complement_pairs, keep),
        "numbered": call(masks.numbered, _draw, 1, 4, key=KEY),
        "prefixes": call(masks.prefixes, orders),
        "quasi_random": call(masks.quasi_random, 4, 3, key=KEY),
        "quasi_random_keep": Call(masks.quasi_random_keep, drawn),
        "random_keep": Call(masks.random_keep, drawn),
        "random_orders": call(masks.random_orders, S, 2, key=KEY),
        "salience_order": call(masks.salience_order, HEATMAP, SEGMENTS),
        "segment_salience": call(masks.segment_salience, HEATMAP, SEGMENTS),
        "shapley_keep": Call(masks.shapley_keep, drawn),
        "shapley_kernel": call(masks.shapley_kernel, S),
        "Coalitions": call(masks.Coalitions, SEGMENTS, keep),
        "ImageCoalitions": call(masks.ImageCoalitions, SEGMENTS[None], keep),
    }


def _segments() -> dict[str, Call]:
    return {
        "make": call(segments.make, "grid", IMAGE, size=3),
        "grid": call(segments.grid, IMAGE, size=3),
        "even_grid": call(segments.even_grid, (H, W), 3),
        "cells": call(segments.cells, (H, W), 6),
        "slic": call(segments.slic, IMAGE, n_segments=4),
        "slic_near": call(segments.slic_near, IMAGE, n_segments=4),
        "quickshift": call(segments.quickshift, IMAGE, kernel_size=1.0),
        "felzenszwalb": call(segments.felzenszwalb, IMAGE, min_size=4),
        "contours": call(segments.contours, HEATMAP, num_bands=3),
        "boxes": call(segments.boxes, IMAGE, size=2),
        "snap": call(segments.snap, SEGMENTS, 4),
        "merge": call(segments.merge, IMAGE, SEGMENTS, num_segments=4),
        "from_labels": call(segments.from_labels, SEGMENTS * 3),
        "check_segments": call(segments.check_segments, SEGMENTS),
    }


def _objectives() -> dict[str, Call]:
    made = {
        "probability_of": objectives.probability_of([0, 1]),
        "difference": objectives.difference(0, 1),
        "margin": objectives.margin(0),
        "entropy": objectives.entropy(),
        "value": objectives.value(1),
        "cosine": objectives.cosine(np.arange(1, 1 + len(PREDICTOR(IMAGE, MASKS)[0]))),
        "region_mean": lambda x: objectives.region_mean(np.eye(2), 0)(jnp.tile(x, (2, 2, 1))),
        "detection": lambda x: objectives.detection((0, 0, 4, 4), np.eye(len(x))[0])(
            (jnp.float32([[0, 1, 3, 4]]), x[None])
        ),
    }
    explain = functools.partial(attribution.leave_one_out, PREDICTOR, IMAGE, SEGMENTS)
    return {name: call(explain, objective=each) for name, each in made.items()} | {
        "check_objective": call(objectives.check_objective, made["margin"])
    }


def _evaluation() -> dict[str, Call]:
    images, image_of = np.stack([IMAGE, IMAGE[::-1]]), np.array([0, 1, 1])
    evaluator = evaluation.Evaluator(PREDICTOR)
    layered = evaluation.Predictor(small_network(), lmjax.LayerMasking())
    return {
        "as_evaluator": call(evaluation.as_evaluator, PREDICTOR),
        "as_predictor": call(evaluation.as_predictor, PREDICTOR),
        "calibrate": call(evaluation.calibrate, PREDICTOR, images, MASKS, image_of=image_of),
        "compare_engines": call(evaluation.compare_engines, layered, IMAGE, MASKS),
        "evaluate": call(evaluation.evaluate, PREDICTOR, IMAGE, MASKS),
        "resolve_target": call(evaluation.resolve_target, None, LOGITS[0]),
        "Evaluator.images": call(evaluator.images, images, MASKS, image_of=image_of),
        "Predictor": call(PREDICTOR, IMAGE, MASKS),
    }


@functools.cache
def small_network() -> Classifier:
    """A network of one convolution."""
    module = Small(num_classes=CLASSES)
    return Classifier(initial_variables(module, PREPROCESSING, 0), module, PREPROCESSING)


def _removals() -> dict[str, Call]:
    given = {"image": IMAGE, "masks": MASKS, "key": KEY, "segments": SEGMENTS}
    calls = {f"make({name})": Call(_under(name), given) for name in removals.names()}
    whole, classes = LOGITS, LOGITS.argmax(axis=1)
    calls["calibrated"] = call(removals.calibrated, lmjax.Replace("grey"), whole, classes)
    for name in ("canonical", "check_name", "description", "needs_key", "needs_segments"):
        calls[name] = call(getattr(removals, name), "grey")
    for name in ("paints", "soft_masks", "title"):
        calls[name] = call(getattr(removals, name), "grey")
    calls["check_fits"] = call(removals.check_fits, "layer", lmjax.LayerMasking())
    return calls


def _layers() -> dict[str, Call]:
    one = {"inputs": ACTIVATIONS}
    window = {**one, "window": 3, "stride": 2, "padding": 1}
    tokens = jnp.ones((2, 1, 5, 12), jnp.float32)
    tokens = Masked(tokens, jnp.asarray(RNG.random((2, 1, 5)) < 0.7))
    calls = {
        "select": call(layers.select, ACTIVATIONS.mask, ACTIVATIONS.x),
        "wide_type": call(layers.wide_type, ACTIVATIONS.x),
        "pool_mask": call(layers.pool_mask, ACTIVATIONS.mask, window=2, stride=2, padding=0),
        "conv": call(layers.conv, ACTIVATIONS, KERNEL, padding=1),
        "pointwise": call(layers.pointwise, ACTIVATIONS, jax.nn.relu),
        "residual": call(layers.residual, ACTIVATIONS, ACTIVATIONS),
        "concatenate": call(layers.concatenate, ACTIVATIONS, ACTIVATIONS),
        "attention": call(layers.attention, tokens, 2),
        "group_norm": call(layers.group_norm, ACTIVATIONS, 2, epsilon=1e-5),
        "scale_channels": call(layers.scale_channels, ACTIVATIONS, jnp.ones((3, 4), jnp.float32)),
        "adaptive_average_pool": call(layers.adaptive_average_pool, ACTIVATIONS, 2),
    }
    calls |= {
        name: Call(getattr(layers, name), window)
        for name in ("max_pool", "average_pool", "window_sum")
    }
    names = ("mask_input", "full_size", "unmask", "seam", "global_average_pool", "global_max_pool")
    return calls | {name: Call(getattr(layers, name), one) for name in names}


def _masking() -> dict[str, Call]:
    given = {"params": KERNEL[:, :, :3], "images": np.stack([IMAGE] * 3), "masks": MASKS}
    return {
        "neighbor_padding": call(
            masking.neighbor_padding, layers.mask_input(ACTIVATIONS).x, ACTIVATIONS.mask, 2
        ),
        "layer_mask": Call(_masked_brightness, given),
    }


def _training() -> dict[str, Call]:
    classifier, rng = small_network(), np.random.default_rng(0)
    images = rng.integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2, 1], np.int32)
    shown = jnp.asarray(images, jnp.float32) / 255
    objects = jnp.asarray(rng.random((4, SIZE, SIZE)) < 0.3)
    examples = Examples(shown, jnp.eye(4, dtype=jnp.float32), objects=objects)
    config = TrainingConfig(epochs=1, images_per_epoch=4, batch_size=4, learning_rate=0.1)
    state = training.initial_state(classifier.variables, config)
    settings = {"module": classifier.module, "preprocessing": PREPROCESSING, "config": config}
    kinds = ("flip", "patches:grey", "cutmix")
    return {
        "augment": call(training.augment, examples, kinds, (0.5, 0.5, 0.5), key=KEY),
        "initial_state": call(training.initial_state, classifier.variables, config),
        "train_step": call(_step, state, images, labels, **settings),
        "accuracy": call(training.accuracy, classifier, [(images, labels)]),
    }


def _step(state, images, labels, **settings):
    """A step on a copy of the state, as it gives its memory away."""
    return training.train_step(jax.tree.map(jnp.copy, state), images, labels, **settings)


def _methods() -> dict[str, Call]:
    given = {"name": "lime", "evaluator": PREDICTOR, "image": IMAGE, "segments": SEGMENTS}
    return {
        "attribute": Call(
            methods.attribute, {**given, "key": KEY, "num_samples": 150, "target": 1}
        ),
        "check_samples": call(methods.check_samples, ("lime", "kernelshap"), 100, S),
        "check_budget": call(methods.check_budget, ("lime", "kernelshap"), 100, S),
        "check_sampling": call(methods.check_sampling, "budget", ("lime", "occlusion")),
        "check_objective_of": call(methods.check_objective_of, ["lime", "rise"]),
        "check_methods": call(methods.check_methods, ["lime", "rise"]),
        "new_name": call(methods.new_name, "lime"),
        "pairs": call(methods.pairs, ["lime"], {"grey": True}),
    }


def _windows() -> dict[str, Call]:
    return {
        "same_padding": call(windows.same_padding, (H, W), 3, 2),
        "touched": call(windows.touched, MASKS, windows.NEIGHBOURS),
    }


def _top() -> dict[str, Call]:
    options = {"method": ("lime",), "removal": ("grey",), "num_samples": 60, "model": NETWORK}
    explain = call(lmjax.explain, _picture(), **options, segmenter="grid")
    return {"evaluate": call(lmjax.evaluate, PREDICTOR, IMAGE, MASKS), "explain": explain}


def _picture() -> np.ndarray:
    return RNG.integers(0, 256, (40, 36, 3)).astype(np.uint8)


# Functions that register, that list names, or that are called through others here.
NOT_CALLED = {
    *("register", "register_rule", "names", "description", "get"),
    *("black_box", "layer_mask", "make"),  # make functions, which are called here
    "wordnet_similarity",  # reads a database of words, without JAX
    *("train", "measure", "read_metrics"),  # threads and files around what is called here
}

MODULES: dict[str, tuple[types.ModuleType, Callable[[], dict[str, Call]]]] = {
    "lmjax": (lmjax, _top),
    "masking": (masking, _masking),
    "masking.layers": (layers, _layers),
    "masking.windows": (windows, _windows),
    "masks": (masks, _masks),
    "segments": (segments, _segments),
    "removals": (removals, _removals),
    "evaluation": (evaluation, _evaluation),
    "objectives": (objectives, _objectives),
    "attribution": (attribution, _attribution),
    "attribution.methods": (methods, _methods),
    "metrics": (metrics, _metrics),
    "training": (training, _training),
}


def public(module: types.ModuleType) -> set[str]:
    """Names of the public functions of a module."""
    own = [name for name, value in vars(module).items() if _is_own(module, name, value)]
    names = getattr(module, "__all__", own)
    return {name for name in names if inspect.isroutine(getattr(module, name))}


def _is_own(module: types.ModuleType, name: str, value: Any) -> bool:
    return name[0] != "_" and getattr(value, "__module__", None) == module.__name__


@functools.cache
def calls(module: str) -> dict[str, Call]:
    """The example calls of a module's functions, by name."""
    return MODULES[module][1]()
