"""The identities of layer masking on every network of the registry, against the plain reference."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lmjax.masking import Masked
from lmjax.masking.sparse import rows
from lmjax.models import registry
from tests.support import graph_reference
from tests.support.compilations import quick_jit
from tests.support.networks import EVERY
from tests.support.torch_reference import build, ported, random_images, to_torch

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


@partial(quick_jit, static_argnames="module")
def dense_logits(module, variables, images, masks):
    return module.apply(variables, Masked(images, masks))


def visible_logits(module, variables, images, masks):
    return rows.run(partial(module.apply, variables), images, masks, spare=1, jit=quick_jit)


@pytest.mark.parametrize("name", EVERY)
def test_identities(name):
    size = LARGER.get(name, SIZE)
    model = build(name, seed=3)
    module, variables = ported(name, model)
    variables = jax.tree.map(jnp.asarray, variables)
    image, masks = random_images((1, *size, 3), seed=3), random_masks(size)
    images = np.broadcast_to(image, (4, *size, 3))
    batch = np.asarray(dense_logits(module, variables, images, masks))
    largest = np.abs(batch).max()
    tolerance = 1e-4 * largest * ROUNDING.get(name, 1)
    assert np.abs(batch[:3] - batch[3]).max(axis=1).min() > 1e-2 * largest  # images are seen

    # 1: everything visible is the plain network, which is torchvision's
    with torch.inference_mode():
        plain = model(to_torch(image)).numpy()
    np.testing.assert_allclose(batch[2], plain[0], atol=1e-4 * largest)
    # 3: what lies under the mask is never read, bit for bit
    poisoned = np.where(masks[..., None], images, np.float32(np.nan))
    np.testing.assert_array_equal(dense_logits(module, variables, poisoned, masks), batch)
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
