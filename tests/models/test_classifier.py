"""What `Classifier` checks before its network runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.models import Classifier, Preprocessing, checkpoints
from lmjax.models.resnet import BasicBlock, ResNet


@pytest.fixture(scope="module")
def classifier():
    module = ResNet((1,), BasicBlock, num_classes=3, width=4)
    shapes = checkpoints.abstract_variables(module)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)
    return Classifier(variables, module, Preprocessing())


IMAGES = np.full((2, 20, 24, 3), 0.5, np.float32)


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float64])
def test_masks_of_any_type(classifier, dtype):
    masks = np.random.default_rng(0).random((2, 20, 24)) < 0.5
    expected = classifier.apply(IMAGES, masks)
    np.testing.assert_array_equal(classifier.apply(IMAGES, masks.astype(dtype)), expected)
    assert expected.shape == (2, 3)


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (IMAGES[0], None, r"images must be \[N, H, W, 3\], got shape \(20, 24, 3\)"),
        (IMAGES[..., :1], None, r"images must be \[N, H, W, 3\]"),
        (IMAGES.astype(np.uint8), None, "got dtype uint8"),
        (IMAGES, np.ones((2, 24, 20)), r"masks must be \[2, 20, 24\]"),
        (IMAGES, np.ones((1, 20, 24)), r"masks must be \[2, 20, 24\]"),
        (IMAGES, np.full((2, 20, 24), 0.5), "got 0.5"),
        (IMAGES, np.full((2, 20, 24), np.nan), "got nan"),
    ],
)
def test_bad_input(classifier, images, masks, message):
    with pytest.raises(ValueError, match=message):
        classifier.apply(images, masks)


def test_removals_that_paint_are_no_masking(classifier):
    with pytest.raises(ValueError, match="masking must be"):
        classifier.apply(IMAGES, np.ones((2, 20, 24)), masking=lmjax.Replace("grey"))
    with pytest.raises(ValueError, match="masking must be"):
        lmjax.models.load("resnet18_digits", masking=None)


def test_weights_are_leaves_and_the_rest_is_static(classifier):
    assert len(jax.tree.leaves(classifier)) == len(jax.tree.leaves(classifier.variables))
    masks = np.ones((2, 20, 24), bool)
    jitted = jax.jit(lambda c, x, m: c.apply(x, m))(classifier, IMAGES, masks)
    np.testing.assert_allclose(jitted, classifier.apply(IMAGES, masks), rtol=1e-5)
