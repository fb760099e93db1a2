"""Programs for GPU and TPU are built on machines that have neither."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from lmjax.masking import LayerMasking, Masked, PartialConvolution
from lmjax.masking.shared import Prefix, Suffix, full_size
from lmjax.masking.visible import Capacities, Pixels
from lmjax.models import checkpoints, registry


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("masking", [LayerMasking(), PartialConvolution()], ids=str)
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_lowers_for_accelerators(name, masking, dtype, platform):
    module = registry.network(name).build(masking=masking, dtype=dtype)
    variables = checkpoints.abstract_variables(module)
    images = jax.ShapeDtypeStruct((4, 64, 96, 3), jnp.float32)
    masks = jax.ShapeDtypeStruct((4, 64, 96), jnp.bool_)
    program = jax.jit(lambda v, x, m: module.apply(v, Masked(x, m)))
    exported = jax.export.export(program, platforms=[platform])(variables, images, masks)
    assert exported.platforms == (platform,)
    assert exported.out_avals[0].shape == (4, 1000)
    assert "callback" not in exported.mlir_module()


def on_visible(module, variables, images, masks):
    return module.apply(variables, Pixels(images, masks, Capacities((500,) * 50)))


def in_two_parts(module, variables, images, masks):
    prefix = Prefix(2, (500,) * 50)
    module.apply(variables, Pixels(images, masks, prefix))
    x, positions = prefix.cut
    suffix = Suffix(2, lambda at: full_size(x, positions.index, at))
    return module.apply(variables, Pixels(images, masks, suffix))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("run", [on_visible, in_two_parts], ids=["visible", "shared"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_visible_positions_lower_for_accelerators(name, run, platform):
    module = registry.network(name).build(masking=LayerMasking())
    variables = checkpoints.abstract_variables(module)
    images = jax.ShapeDtypeStruct((4, 64, 96, 3), jnp.float32)
    masks = jax.ShapeDtypeStruct((4, 64, 96), jnp.bool_)
    program = jax.jit(partial(run, module))
    exported = jax.export.export(program, platforms=[platform])(variables, images, masks)
    assert exported.out_avals[0].shape == (4, 1000)
    assert "callback" not in exported.mlir_module()
