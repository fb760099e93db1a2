"""The ported networks give torchvision's numbers, at the end and at every stage."""

from functools import partial

import jax
import numpy as np
import pytest
import torch
from flax import linen as nn

from lmjax.masking import Masked
from lmjax.models import Classifier, checkpoints, registry
from tests.support import lowering, shallow_networks
from tests.support.compilations import quick_jit
from tests.support.networks import NAMES, SMALLEST, every
from tests.support.torch_reference import (
    blank,
    build,
    parity,
    published_parameters,
    random_images,
    state_dict,
    timm,
    to_torch,
    torchvision,
)

TOLERANCE = 1e-4  # of the largest value
CHANNELS_LAST = (torch.nn.Linear, torch.nn.GELU, torch.nn.LayerNorm)


@pytest.mark.parametrize("name", every(NAMES, quick=(*SMALLEST, "resnet50", "wide_resnet50_2")))
def test_parameter_count(name):
    """The registry's counts are those of the originals, as published, and those of the networks."""
    count = sum(leaf.size for leaf in jax.tree.leaves(blank(name)[1]["params"]))
    assert count == published_parameters(name) == registry.network(name).parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_every_network(name):
    assert parity(name, size=(224, 224)).error <= TOLERANCE


OF_BOTH = [
    pytest.param(name, marks=() if name in ("resnet18", "resnet50") else pytest.mark.slow)
    for name in NAMES
    if hasattr(torchvision.models, name) and any("timm/" in tag for tag in registry.tags(name))
]


@pytest.mark.parametrize("name", OF_BOTH)
def test_timms_weights_of_torchvisions_networks(name):
    """The same keys, strictly, and with them the same logits: so what timm publishes loads here."""
    model = build(name, seed=0)
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False).eval()
    theirs.load_state_dict(model.state_dict(), strict=True, assign=True)
    images = to_torch(random_images((1, 96, 80, 3), seed=0))
    with torch.inference_mode():
        expected, logits = model(images), theirs(images)
    np.testing.assert_allclose(logits, expected, atol=1e-6 * expected.abs().max())


def _torch_stages(model: torch.nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """Output of every submodule, channels last."""
    stages = {}

    def keep(name):
        def hook(module, inputs, output):
            # torchvision's ReLU works in place, so what comes out must be copied at once
            output = output.clone().numpy()
            if output.ndim == 4 and type(module) not in CHANNELS_LAST:
                output = output.transpose(0, 2, 3, 1)
            stages.setdefault(name, output)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(keep(name))
    with torch.inference_mode():
        model(to_torch(images))
    return stages


@partial(quick_jit, static_argnames="module")
def _flax_stages(module: nn.Module, variables, images: np.ndarray) -> dict[str, jax.Array]:
    """Output of every submodule."""
    stages = {}

    def keep(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            name = ".".join(context.module.path)
            stages[name] = output.x if isinstance(output, Masked) else output
        return output

    with nn.intercept_methods(keep):
        module.apply(variables, Masked(images))
    return stages


# Groups, and stages as deep as in the most common networks.
@pytest.mark.parametrize("name", [*SMALLEST, "resnext50_32x4d"])
def test_stage_by_stage(name):
    """Every convolution, norm and block; and between them, pools, by what comes next."""
    # Those two are as deep as ever, but narrower: they have 100 million weights to draw.
    make = shallow_networks.pair if name in ("alexnet", "vgg11") else shallow_networks.whole
    with make(name, seed=1) as networks:
        check_stages(name, *networks)


def check_stages(name, model, module, variables):
    images = random_images((1, 96, 80, 3), seed=1)
    traced = _flax_stages.trace(module, variables, images)
    lowering.check(traced)  # the plain network on accelerators; here, as tracing takes the longest
    ours, theirs = traced.lower().compile()(variables, images), _torch_stages(model, images)
    weighted = {key.rpartition(".")[0] for key in state_dict(model)} - {""}
    assert weighted <= ours.keys() & theirs.keys()
    for stage in ours.keys() & theirs.keys():
        value, expected = np.asarray(ours[stage]), theirs[stage]
        if value.size == expected.size:  # squeezes are [N, 1, 1, C] or [N, C]
            expected = expected.reshape(value.shape)
        assert value.shape == expected.shape, stage
        assert np.abs(value - expected).max() <= TOLERANCE * np.abs(expected).max(), stage

    # Cut behind the last layer with positions, what is behind it gives the same logits.
    features, head = Classifier(variables, module, registry.network(name).preprocessing).cut()
    logits = quick_jit(lambda head, x: head(x))(head, ours[features.layer][0])
    np.testing.assert_allclose(logits, theirs[""][0], atol=TOLERANCE * np.abs(theirs[""]).max())


@pytest.mark.parametrize(("in_channels", "num_classes"), [(1, 3), (5, 7)])
def test_other_channels_and_classes(in_channels, num_classes):
    model = build("resnet18", seed=2, num_classes=num_classes)
    model.conv1 = torch.nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    images = random_images((2, 33, 47, in_channels), seed=2)
    with torch.inference_mode():
        expected = model(to_torch(images)).numpy()
    module = registry.network("resnet18").build(num_classes=num_classes)
    target = checkpoints.abstract_variables(module, in_channels=in_channels)
    variables = checkpoints.to_variables(state_dict(model), target)
    logits = quick_jit(module.apply)(variables, Masked(images))
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE * np.abs(expected).max())
