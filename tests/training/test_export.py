"""Networks in training and trained weights, against torchvision and timm."""

import functools

import jax
import numpy as np
import pytest
import torch
from flax import linen as nn
from safetensors.torch import load_file

from lmjax.models import checkpoints, registry
from lmjax.models.layers import BatchNorm
from tests.support.networks import SMALLEST
from tests.support.torch_reference import timm, torchvision


def original(name, **options):
    """torchvision's network of that name, or timm's, without memory for weights."""
    options |= {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    known = getattr(torchvision.models, name, None)
    make = functools.partial(timm.create_model, name) if known is None else known
    # torchvision reads sizes of a RegNet off a tensor.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return make(**options)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "vgg11" else ())  # half a gigabyte
        for name in (*SMALLEST, "vit_b_32")  # the smaller transformers are timm's
    ],
)
def test_originals_take_what_training_writes_bit_for_bit(name, tmp_path):
    rng = np.random.default_rng(0)
    target = checkpoints.abstract_variables(registry.network(name).build(num_classes=5))
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), target)
    path = tmp_path / "weights.safetensors"
    checkpoints.save_safetensors(path, checkpoints.to_state_dict(variables))
    model = original(name, num_classes=5)
    model.load_state_dict(load_file(path), strict=True, assign=True)
    back = {key: value.numpy() for key, value in model.state_dict().items()}
    found = checkpoints.to_variables(back, target)
    for (where, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(variables), jax.tree.leaves(found)
    ):
        # NumPy's own assertion takes ten times as long, of 90 million numbers.
        assert np.array_equal(leaf, other), jax.tree_util.keystr(where)


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v3_small", "efficientnet_b5"])
def test_batch_norms_have_the_momentum_and_epsilon_of_the_originals(name):
    found = {}

    def note(proceed, args, kwargs, context):
        if isinstance(context.module, BatchNorm):
            module = context.module
            assert not module.use_running_average
            found[".".join(module.path)] = module.momentum, module.epsilon
        return proceed(*args, **kwargs)

    with nn.intercept_methods(note):
        checkpoints.trace_variables(registry.network(name).build(train=True))
    assert found == {
        where: (1 - module.momentum, module.eps)
        for where, module in original(name).named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    }
