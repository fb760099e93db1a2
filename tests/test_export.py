"""Programs for GPU and TPU are built on machines that have neither.

Those of each family are lowered where they are traced anyway, in models/test_networks.py (under
masks, on visible positions; of most families a shallow network) and models/test_parity.py (plain).
"""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.masking import Masked
from lmjax.masking.sparse.positions import Cut, Layout
from lmjax.masking.sparse.rows import Pixels, resume_full
from lmjax.models import checkpoints, registry
from lmjax.models.networks.resnet import BasicBlock, ResNet
from lmjax.removals import LayerMasking, PartialConvolution
from tests.support import lowering, networks
from tests.support.compilations import quick_jit

DTYPES = [
    pytest.param(jnp.float32, id="float32"),
    pytest.param(jnp.bfloat16, id="bfloat16", marks=pytest.mark.slow),
]
MASKS = jax.ShapeDtypeStruct((2, 64, 96), jnp.bool_)


def plain(module, variables, images, masks):
    return module.apply(variables, Masked(images))


def dense(module, variables, images, masks):
    return module.apply(variables, Masked(images, masks))


def visible(module, variables, images, masks):
    layout = Layout((500,) * 300, num_variants=len(masks))
    return module.apply(variables, Pixels(images, masks, layout))


def shared(module, variables, images, masks):
    size = len(masks)
    prefix = Layout((500,) * 50, num_variants=size, sharing=True, stop=2)
    with pytest.raises(Cut) as cut:
        module.apply(variables, Pixels(images, masks, prefix))
    resume = resume_full(cut.value.rows.x)
    suffix = Layout(num_variants=size, start=2, resume=resume)
    return module.apply(variables, Pixels(images, masks, suffix))


def export(module, programs, masks=MASKS):
    """One program for both platforms, of several that have the same arguments."""
    variables = checkpoints.abstract_variables(module)
    images = jax.ShapeDtypeStruct((*masks.shape, 3), jnp.float32)
    program = jax.jit(lambda *arguments: [run(module, *arguments) for run in programs])
    return jax.export.export(program, platforms=lowering.ACCELERATORS)(variables, images, masks)


def check(exported, count):
    assert exported.platforms == lowering.ACCELERATORS
    assert [x.shape for x in exported.out_avals] == [(2, 1000)] * count
    lowering.check_text(exported.mlir_module())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", networks.NAMES)
def test_convolutional_networks_lower_for_accelerators(name, dtype):
    module = registry.network(name).build(masking=LayerMasking(), dtype=dtype)
    check(export(module, [plain, dense, visible]), 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", networks.EVERY_TRANSFORMER)
def test_transformers_lower_for_accelerators(name, dtype):
    module = registry.network(name).build(dtype=dtype)
    masks = jax.ShapeDtypeStruct((2, 224, 224), jnp.bool_)
    check(export(module, [plain, dense], masks), 2)


def test_other_ways_lower_for_accelerators():
    build = partial(ResNet, (1, 1), BasicBlock)  # all that the network of its name is made of
    check(export(build(masking=LayerMasking(), dtype=jnp.bfloat16), [plain, dense, visible]), 3)
    check(export(build(masking=PartialConvolution()), [dense, visible]), 2)
    check(export(build(masking=LayerMasking(padding="none", depth=2)), [dense, visible]), 2)
    check(export(build(masking=LayerMasking()), [shared]), 1)


def test_bfloat16_answers_as_float32_does():
    """Within 2% of the scale of the logits, and the same classes."""
    scenes = lmjax.data.DigitScenes("test", length=16)
    images = np.stack([scene.image for scene in scenes]) / np.float32(255)
    masks = np.random.default_rng(0).random((16, 8, 8)) < 0.7
    masks = np.kron(masks, np.ones((16, 16), bool))
    exact, rough = (
        lmjax.models.load("resnet18_digits", dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16)
    )

    @quick_jit
    def logits(network, images, masks):
        images = network.normalise(images)
        return network.apply(images), network.apply(images, masks)

    for expected, found in zip(logits(exact, images, masks), logits(rough, images, masks)):
        expected, found = np.asarray(expected), np.asarray(found)
        assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
        np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
