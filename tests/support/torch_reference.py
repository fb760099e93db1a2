"""torchvision and timm, the oracles of the parity tests: their networks, and comparisons with them.

Import both from here: `from tests.support.torch_reference import timm, torchvision`.
"""

import functools
import importlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch

from lmjax.masking import Masked
from lmjax.models import checkpoints, registry
from tests.support.compilations import full_jit


def _import_torchvision():
    try:
        import torchvision
    except RuntimeError as error:
        # PyPI's torchvision wheel is built for CUDA. Beside a CPU build of torch its compiled
        # operators do not load, and its import fails on the first one it looks up. Networks and
        # transforms use none of them, so declaring them is enough.
        if "torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", signature)
        import torchvision
    return torchvision


torchvision = _import_torchvision()
timm = importlib.import_module("timm")  # which imports torchvision


_NORMS = (torch.nn.BatchNorm2d, torch.nn.LayerNorm, torch.nn.GroupNorm)
_OF_TRANSFORMERS = (
    *("class_token", "pos_embedding", "in_proj_weight", "in_proj_bias"),
    *("cls_token", "pos_embed"),
)


def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Draws weights, biases and statistics at random, in place; evaluation mode.

    Fresh networks have mean 0, variance 1, scale 1 and bias 0: a port that mixes them up, or drops
    them, still gives the right logits. With these it does not. Kernels are drawn so that every
    layer keeps the size of what it is given: else little of the image would reach the logits.
    """
    generator = torch.Generator().manual_seed(seed)
    excited = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Linear):
            inputs = module.weight[0].numel()
            module.weight.data.normal_(0.0, (2 / inputs) ** 0.5, generator=generator)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, _NORMS):
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
        if getattr(module, "bias", None) is not None:
            module.bias.data.normal_(0.0, 0.1, generator=generator)
        if isinstance(module, torchvision.ops.SqueezeExcitation):
            excited.append(module)
        if hasattr(module, "layer_scale"):
            module.layer_scale.data.uniform_(0.5, 1.5, generator=generator)
    for module in excited:  # gates of 0.5, block after block, would leave nothing of an image
        soft = isinstance(module.scale_activation, torch.nn.Sigmoid)
        module.fc2.bias.data += 3.0 if soft else 2.0  # 0.95 and 0.83
    for name, value in model.named_parameters():
        if name.endswith(_OF_TRANSFORMERS):
            value.data.normal_(0.0, value.shape[-1] ** -0.5, generator=generator)
    return model.eval()


# In place of values drawn at random: these take as long as some tests, and are drawn again.
_ZEROS = {
    name: lambda tensor, *args, **options: tensor.detach().zero_()
    for name in ("kaiming_uniform_", "kaiming_normal_", "trunc_normal_", "normal_", "uniform_")
}


def build(name: str, seed: int, **options) -> torch.nn.Module:
    """The original of that name, random and in evaluation mode; the same for one seed."""
    if name == "googlenet":
        options = {"init_weights": False, "aux_logits": False, **options}  # else it warns
    if hasattr(torchvision.models, name):
        return random_network(partial(getattr(torchvision.models, name), **options), seed)
    return random_network(partial(timm.create_model, name, pretrained=False, **options), seed)


def random_network(make: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    """What `make` builds, random and in evaluation mode; the same for one seed."""
    with torch.random.fork_rng(), mock.patch.multiple(torch.nn.init, **_ZEROS):
        torch.manual_seed(seed)
        model = make()
    return randomised(model, seed)


@functools.cache
def blank(name: str):
    """The network of that name here, and shapes and dtypes of its variables."""
    module = registry.network(name).build()
    return module, checkpoints.abstract_variables(module)


def published_parameters(name: str) -> int:
    """How many parameters torchvision says that its network has, or timm's network does have."""
    if hasattr(torchvision.models, name):
        return torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())


def ported(name: str, model: torch.nn.Module):
    """The network of that name here, and the model's weights as its variables."""
    module, target = blank(name)
    state = checkpoints.rename(state_dict(model), registry.network(name).renamed)
    return module, checkpoints.to_variables(state, target)


def state_dict(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The model's state dict as NumPy arrays."""
    return {key: value.detach().numpy() for key, value in model.state_dict().items()}


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Images `[N, H, W, C]` as torch takes them, `[N, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def random_images(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Standard normal images `[N, H, W, C]`, float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


class Parity(NamedTuple):
    """How far a ported network is from torchvision's."""

    parameters: int
    error: float  # largest absolute difference of two logits over the largest absolute logit


def parity(name: str, *, size: tuple[int, int], seed: int = 0) -> Parity:
    """Compares logits of one random network, here and in torchvision, on one random image."""
    model = build(name, seed)
    images = random_images((1, *size, 3), seed)
    with torch.inference_mode():
        expected = model(to_torch(images)).numpy()
    module, variables = ported(name, model)
    logits = full_jit(lambda v, x: module.apply(v, Masked(x)))(variables, images)
    error = np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max()
    return Parity(sum(p.numel() for p in model.parameters()), float(error))
