"""Images per second of resnet50: torchvision, the published recipe in PyTorch, and lmjax.

All contenders take turns in one process on the same images and masks (machines drift); the table
gives medians over rounds, and medians of the ratios within each round.

    python -m benchmarks.speed [--batch-size 8] [--rounds 9]
"""

import time
from collections.abc import Callable

import jax
import numpy as np
import torch
import tyro

from benchmarks import torch_layer_masking
from lmjax.masking import Masked
from lmjax.models import checkpoints, registry
from tests import torch_reference


def contenders(batch_size: int, size: int, visible: float) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that give the logits of the same random network on the same random batch."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch_size, size, size, 3), dtype=np.float32)
    patches = rng.random((batch_size, -(-size // 16), -(-size // 16))) < visible
    masks = np.kron(patches, np.ones((16, 16), bool))[:, :size, :size]

    model = torch_reference.build("resnet50", 0)
    module = registry.network("resnet50").build()
    variables = checkpoints.to_variables(
        torch_reference.state_dict(model), checkpoints.abstract_variables(module)
    )
    apply = jax.jit(lambda variables, images, masks: module.apply(variables, Masked(images, masks)))
    x, m, everything = jax.device_put((images, masks, np.ones_like(masks)))

    nchw = torch_reference.to_torch(images)
    nhwc = nchw.contiguous(memory_format=torch.channels_last)
    model_nhwc = torch_reference.build("resnet50", 0).to(memory_format=torch.channels_last)
    torch_masks = torch.from_numpy(masks)

    def plain_torch(network, batch):
        with torch.inference_mode():
            return network(batch).numpy()

    return {
        "torchvision, plain, NCHW": lambda: plain_torch(model, nchw),
        "torchvision, plain, channels last": lambda: plain_torch(model_nhwc, nhwc),
        "PyTorch, layer masking as published": lambda: torch_layer_masking.resnet(
            model, nchw, torch_masks
        ).numpy(),
        "lmjax, plain": lambda: np.asarray(apply(variables, x, None)),
        "lmjax, layer masking, all visible": lambda: np.asarray(apply(variables, x, everything)),
        "lmjax, layer masking": lambda: np.asarray(apply(variables, x, m)),
    }


def main(batch_size: int = 8, rounds: int = 9, size: int = 224, visible: float = 0.5) -> None:
    """Prints a Markdown table."""
    functions = contenders(batch_size, size, visible)
    logits = {name: function() for name, function in functions.items()}
    expected = logits["PyTorch, layer masking as published"]
    error = np.abs(logits["lmjax, layer masking"] - expected).max() / np.abs(expected).max()
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    seconds = {name: np.array(values) for name, values in seconds.items()}

    fastest = min(list(functions)[:2], key=lambda name: np.median(seconds[name]))
    published = seconds["PyTorch, layer masking as published"]
    print(f"resnet50, {size}x{size}, float32, batch {batch_size}, {rounds} rounds,", end=" ")
    print(f"{visible:.0%} of 16-pixel patches visible, {jax.devices()[0].device_kind}")
    print(f"largest error against the published recipe: {error:.1e} of the largest logit\n")
    print("| | images/s | against torchvision | against the published recipe |")
    print("|---|---:|---:|---:|")
    for name, values in seconds.items():
        rate = batch_size / np.median(values)
        plain, recipe = (np.median(other / values) for other in (seconds[fastest], published))
        print(f"| {name} | {rate:.1f} | {plain:.2f} | {recipe:.2f} |")


if __name__ == "__main__":
    tyro.cli(main)
