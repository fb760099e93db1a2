"""The identities of layer masking on every family of networks, against the plain reference.

Their programs are lowered for accelerators here, too, and compared with those of networks that are
masked by tracing: so each is traced and compiled once.
"""

from functools import partial

import jax
import numpy as np
import pytest
import torch

from lmjax.masking import Masked
from lmjax.masking.transform import layer_mask
from lmjax.models import registry
from tests.support import graph_reference, lowering, on_rows, shallow_networks
from tests.support.compilations import quick_jit
from tests.support.networks import NAMES, SMALLEST, every
from tests.support.own_networks import counted_rings, plain
from tests.support.torch_reference import random_images, to_torch

# Of families whose smallest network would take long, a shallow one on every run.
SHALLOW = shallow_networks.SHALLOW
WHOLE = every(NAMES, quick=set(SMALLEST) - set(SHALLOW))
SIZE = (75, 67)
LARGER = {"alexnet": (131, 99)}  # ends in one position at 75 x 67
# Group norms over the few positions around one pixel: they make rounding errors larger. In float64
# the network and the reference differ by 1e-13.
ROUNDING = {"resnetv2_50x1_bit": 10}


def random_masks(size, seed=0):
    """Blocks of 9 pixels at random; one pixel at the border; everything; nothing."""
    rng = np.random.default_rng(seed)
    blocks = rng.random((-(-size[0] // 9), -(-size[1] // 9))) < 0.4
    masks = np.zeros((4, *size), bool)
    masks[0] = np.kron(blocks, np.ones((9, 9), bool))[: size[0], : size[1]]
    masks[1, 0, 32] = True  # which every stride keeps, that of windows without padding too
    masks[2] = True
    return masks


def compiled(function, *arguments):
    """The function for arguments of these shapes; accelerators can run it too."""
    traced = quick_jit(function).trace(*arguments)
    lowering.check(traced)
    return traced.lower().compile()


def dense(module, variables, images, masks):
    return module.apply(variables, Masked(images, masks))


def visible_logits(module, variables, images, masks):
    def network(pixels):
        variables, images = pixels.x  # as constants, weights would be folded for seconds
        return module.apply(variables, pixels._replace(x=images))

    def jit(compute):
        return lambda *arguments: compiled(compute, *arguments)(*arguments)

    return on_rows.run(network, (variables, images), masks, spare=1, jit=jit)


@pytest.mark.parametrize("name", WHOLE)
def test_identities(name):
    check_identities(name, shallow_networks.whole)


@pytest.mark.parametrize("name", SHALLOW)
def test_identities_of_shallow_networks(name):
    check_identities(name, shallow_networks.pair)


def check_identities(name, make):
    with make(name, seed=3) as (model, module, variables):
        check_masked(name, model, module, jax.device_put(variables))


def check_masked(name, model, module, variables):
    size = LARGER.get(name, SIZE)
    image, masks = random_images((1, *size, 3), seed=3), random_masks(size)
    images = np.broadcast_to(image, (4, *size, 3))
    with counted_rings() as by_hand:
        dense_logits = compiled(partial(dense, module), variables, images, masks)
    batch = np.asarray(dense_logits(variables, images, masks))
    largest = np.abs(batch).max()
    tolerance = 1e-4 * largest * ROUNDING.get(name, 1)
    assert np.abs(batch[:3] - batch[3]).max(axis=1).min() > 1e-2 * largest  # images are seen

    # 1: everything visible is the plain network, which is torchvision's
    with torch.inference_mode():
        original = model(to_torch(image)).numpy()
    np.testing.assert_allclose(batch[2], original[0], atol=1e-4 * largest)
    # 3: what lies under the mask is never read, bit for bit
    poisoned = np.where(masks[..., None], images, np.float32(np.nan))
    np.testing.assert_array_equal(dense_logits(variables, poisoned, masks), batch)
    # 2 and 6: the full recipe, position by position; nothing visible gives its answer to zeros
    for i in (0, 1, 3):
        expected = graph_reference.logits(model, image[0], masks[i])
        np.testing.assert_allclose(batch[i], expected, atol=tolerance)
    # 4, on visible positions only, hidden ones poisoned: so other variants beside a variant, and
    # the way of computing, change nothing
    order = [1, 3, 0]
    assert "visible" in registry.network(name).engines
    found = visible_logits(module, variables, poisoned[order], masks[order])
    np.testing.assert_allclose(found, batch[order], atol=tolerance / 10)
    # a plain function, masked by tracing, is the same network, and fills no more
    with counted_rings() as by_tracing:
        traced = quick_jit(layer_mask(plain(module)))(variables, poisoned, masks)
    np.testing.assert_allclose(traced, batch, atol=tolerance / 10)
    assert 0 < sum(by_tracing) <= sum(by_hand)
