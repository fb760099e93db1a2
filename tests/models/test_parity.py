"""The ported networks give torchvision's numbers, at the end and at every stage."""

import jax
import numpy as np
import pytest
import torch
from flax import linen as nn

from lmjax.masking import Masked
from lmjax.models import checkpoints, registry
from tests.torch_reference import build, parity, random_images, state_dict, to_torch

TOLERANCE = 1e-4  # of the largest value
PARAMETERS = {  # as torchvision publishes them with its weights
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    params = checkpoints.abstract_variables(registry.network(name).build())["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_logits(name):
    assert parity(name, size=(96, 80)).error <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_logits_of_the_whole_family(name):
    assert parity(name, size=(224, 224)).error <= TOLERANCE


def _torch_stages(model: torch.nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """Output of every submodule, channels last."""
    stages = {}

    def keep(name):
        def hook(module, inputs, output):
            # torchvision's ReLU works in place, so what comes out must be copied at once
            output = output.clone().numpy()
            stages.setdefault(name, output.transpose(0, 2, 3, 1) if output.ndim == 4 else output)

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(keep(name))
    with torch.inference_mode():
        model(to_torch(images))
    return stages


def _flax_stages(module: nn.Module, variables, images: np.ndarray) -> dict[str, np.ndarray]:
    """Output of every submodule, and what the stages between them hand on."""
    stages = {}

    def keep(call, args, kwargs, context):
        output = call(*args, **kwargs)
        name = ".".join(context.module.path)
        stages[name] = output.x if isinstance(output, Masked) else output
        handed_on = {"layer1.0": "maxpool", "fc": "avgpool"}  # functions here, not modules
        if name in handed_on:
            stages[handed_on[name]] = args[0].x if isinstance(args[0], Masked) else args[0]
        return output

    with nn.intercept_methods(keep):
        module.apply(variables, Masked(images))
    stages["relu"] = nn.relu(stages["bn1"])
    return {name: np.asarray(value) for name, value in stages.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_stage_by_stage(name):
    model = build(name, seed=1)
    images = random_images((2, 64, 80, 3), seed=1)
    module = registry.network(name).build()
    target = checkpoints.abstract_variables(module)
    variables = checkpoints.to_variables(state_dict(model), target)

    ours = _flax_stages(module, variables, images)
    theirs = _torch_stages(model, images)
    blocks = {f"layer{s + 1}.{i}" for s, n in enumerate(module.stage_sizes) for i in range(n)}
    expected_stages = {"conv1", "bn1", "relu", "maxpool", *blocks, "avgpool", "fc"}
    assert expected_stages <= ours.keys() & theirs.keys()
    for stage in ours.keys() & theirs.keys():
        value, expected = ours[stage], theirs[stage]
        expected = expected.reshape(value.shape) if stage == "avgpool" else expected
        assert value.shape == expected.shape, stage
        assert np.abs(value - expected).max() <= TOLERANCE * np.abs(expected).max(), stage


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
    logits = module.apply(variables, Masked(images))
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE * np.abs(expected).max())
