"""Variants per second of resnet50: torchvision, the published recipe in PyTorch, and lmjax.

Every contender answers the same variants of one image. They take turns in one process, since
machines drift; the table gives medians over rounds, and medians of the ratios within each round.

    python -m benchmarks.speed [--variants 32] [--rounds 9]
"""

import time
from collections.abc import Callable

import jax
import numpy as np
import torch
import tyro

import lmjax
from benchmarks import torch_layer_masking
from benchmarks.memory import random_patches
from lmjax.models import Classifier, checkpoints, registry
from tests.support import torch_reference

PUBLISHED = "PyTorch, layer masking as published"


def contenders(
    variants: int, size: int, visible: float, torch_batch: int
) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that give the logits of all variants, from the same random weights."""
    network = registry.network("resnet50")
    module = network.build()
    model = torch_reference.build("resnet50", 0)
    variables = checkpoints.to_variables(
        torch_reference.state_dict(model), checkpoints.abstract_variables(module)
    )
    variables = jax.tree.map(jax.numpy.asarray, variables)
    classifier = Classifier(variables, module, network.preprocessing)

    rng = np.random.default_rng(0)
    image = rng.random((size, size, 3), np.float32)
    masks = random_patches(rng, variants=variants, size=size, visible=visible)
    painted = np.where(masks[..., None], np.asarray(classifier.normalise(image)), 0)

    nchw = torch_reference.to_torch(painted)
    nhwc = nchw.contiguous(memory_format=torch.channels_last)
    torch_masks = torch.from_numpy(masks)
    model_nhwc = torch_reference.build("resnet50", 0).to(memory_format=torch.channels_last)

    def in_torch(function, *arrays):
        with torch.inference_mode():
            batches = zip(*(array.split(torch_batch) for array in arrays))
            return torch.cat([function(*batch) for batch in batches]).numpy()

    def in_lmjax(removal, masks, engine="dense"):
        predictor = lmjax.Predictor(classifier, removal)
        return lmjax.evaluate(predictor, image, masks, engine=engine)

    return {
        "torchvision, plain, NCHW": lambda: in_torch(model, nchw),
        "torchvision, plain, channels last": lambda: in_torch(model_nhwc, nhwc),
        PUBLISHED: lambda: in_torch(
            lambda x, mask: torch_layer_masking.resnet(model, x, mask), nchw, torch_masks
        ),
        "lmjax, plain network on painted variants": lambda: in_lmjax(lmjax.Replace("grey"), masks),
        "lmjax, layer masking, all visible": lambda: in_lmjax(
            lmjax.LayerMasking(), np.ones_like(masks)
        ),
        "lmjax, layer masking": lambda: in_lmjax(lmjax.LayerMasking(), masks),
        "lmjax, layer masking, visible positions only": lambda: in_lmjax(
            lmjax.LayerMasking(), masks, "visible"
        ),
    }


def main(
    variants: int = 32,
    rounds: int = 9,
    size: int = 224,
    visible: float = 0.5,
    torch_batch: int = 8,
) -> None:
    """Prints a Markdown table.

    Args:
        variants: answered by each contender in each round.
        rounds: of measurement, after one to compile.
        size: side of the image, in pixels.
        visible: share of 16-pixel patches that stay visible.
        torch_batch: batch size in PyTorch; lmjax takes its default.
    """
    functions = contenders(variants, size, visible, torch_batch)
    logits = {name: function() for name, function in functions.items()}
    expected = logits[PUBLISHED]
    error = np.abs(logits["lmjax, layer masking"] - expected).max() / np.abs(expected).max()
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    seconds = {name: np.array(values) for name, values in seconds.items()}

    fastest = min(list(functions)[:2], key=lambda name: np.median(seconds[name]))
    print(f"resnet50, {size}x{size}, float32, {variants} variants, {rounds} rounds,", end=" ")
    print(f"{visible:.0%} of 16-pixel patches visible, {jax.devices()[0].device_kind}")
    print(f"largest error against the published recipe: {error:.1e} of the largest logit\n")
    print("| | variants/s | against torchvision | against the published recipe |")
    print("|---|---:|---:|---:|")
    for name, values in seconds.items():
        rate = variants / np.median(values)
        plain, recipe = (np.median(seconds[other] / values) for other in (fastest, PUBLISHED))
        print(f"| {name} | {rate:.1f} | {plain:.2f} | {recipe:.2f} |")


if __name__ == "__main__":
    tyro.cli(main)
