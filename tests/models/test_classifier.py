"""What `Classifier` checks before its network runs."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import lmjax
from lmjax.attribution.methods import attribute
from lmjax.models import Classifier, Preprocessing, checkpoints, registry
from lmjax.models.networks.resnet import BasicBlock, ResNet


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
        lmjax.models.load("resnet18_digits", masking="layer")
    with pytest.raises(ValueError, match=r"in a convolutional network, got TokenDropping\(\)"):
        lmjax.Predictor(classifier, lmjax.TokenDropping())(IMAGES[0], np.ones((1, 20, 24)))


def test_logits_take_display_colours(classifier):
    colours = np.random.default_rng(2).random((2, 20, 24, 3)).astype(np.float32)
    masks = colours[..., 0] > 0.3
    expected = classifier.apply(classifier.normalise(colours))
    np.testing.assert_allclose(classifier.logits(colours), expected, rtol=1e-5)
    with jax.disable_jit():
        np.testing.assert_array_equal(classifier.logits(colours), expected)
    hidden = np.where(masks[..., None], colours, np.nan)
    expected = classifier.apply(classifier.normalise(colours), masks)
    np.testing.assert_allclose(classifier.logits(hidden, masks), expected, rtol=1e-5)
    with jax.disable_jit():
        eager = classifier.apply(classifier.normalise(colours), masks)
        np.testing.assert_array_equal(classifier.logits(hidden, masks), eager)
    np.testing.assert_allclose(jax.jit(classifier.logits)(colours, masks), expected, rtol=1e-5)
    listed = classifier.logits(hidden, masks.tolist())
    np.testing.assert_allclose(listed, expected, rtol=1e-5)


def test_logits_check_masks_and_masking_before_they_compile(classifier):
    images, half = np.zeros((2, 20, 24, 3), np.float32), np.full((2, 20, 24), 0.5)
    with pytest.raises(ValueError, match=r"got 0\.5"):
        classifier.logits(images, half)
    with pytest.raises(ValueError, match=r"got 0\.5"):
        jax.jit(lambda x: classifier.logits(x, half))(images)
    with pytest.raises(ValueError, match="masking must be"):
        classifier.logits(images, masking=["layer"])


@pytest.mark.parametrize("scale", [255, -1, np.nan])
def test_other_colours_are_errors(classifier, scale):
    with pytest.raises(ValueError, match=r"images (must hold display colours|holds NaN)"):
        classifier.logits(np.full((2, 20, 24, 3), scale, np.float32))


def test_weights_are_leaves_and_the_rest_is_static(classifier):
    assert len(jax.tree.leaves(classifier)) == len(jax.tree.leaves(classifier.variables))
    masks = np.ones((2, 20, 24), bool)
    jitted = jax.jit(lambda c, x, m: c.apply(x, m))(classifier, IMAGES, masks)
    np.testing.assert_allclose(jitted, classifier.apply(IMAGES, masks), rtol=1e-5)


# -- cut in two


@pytest.fixture(scope="module")
def deeper():
    module = ResNet((1, 2), BasicBlock, num_classes=3, width=4)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(abs(rng.normal(size=leaf.shape)) / np.sqrt(leaf.size)),
        checkpoints.abstract_variables(module),
    )
    return Classifier(variables, module, Preprocessing())


@pytest.mark.parametrize("layer", ["bn1", "layer1.0", "layer2.1"])
def test_the_two_parts_of_a_cut_network_make_the_whole(deeper, layer):
    features, head = deeper.cut(layer)
    image = np.random.default_rng(1).random((20, 24, 3)).astype(np.float32)
    activations = jax.jit(lambda part, image: part(image))(features, image)
    size, width = {"bn1": ((10, 12), 4), "layer1.0": ((5, 6), 4), "layer2.1": ((3, 3), 8)}[layer]
    assert activations.shape == (*size, width)
    whole = deeper.apply(deeper.normalise(image)[None])[0]
    logits = jax.jit(lambda part, activations: part(activations))(head, activations)
    np.testing.assert_allclose(logits, whole, rtol=1e-5)
    assert not np.allclose(head(jnp.roll(activations, 1, axis=-1)), whole, rtol=1e-3)


def test_gradcam_behind_the_last_block_is_cam(deeper):
    """Where only a mean and a linear layer follow, the weights of the channels are that layer's."""
    features, head = deeper.cut()
    assert features.layer == head.layer == "layer2.1"
    image = np.random.default_rng(1).random((20, 24, 3)).astype(np.float32)
    found = lmjax.attribution.gradcam(features, head, image, target=[0, 2])
    weights = deeper.variables["params"]["fc"]["kernel"][:, np.array([0, 2])]
    maps = jnp.einsum("hwd,dt->thw", features(image), weights) / 9
    expected = jax.image.resize(jax.nn.relu(maps), (2, 20, 24), "bilinear")
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4, atol=1e-5 * expected.max())
    assert found.predicted_class == deeper.apply(deeper.normalise(image)[None])[0].argmax()
    whole = np.zeros(image.shape[:2], int)
    named = attribute("gradcam", lmjax.Predictor(deeper), image, whole, key=None, target=2)
    np.testing.assert_allclose(named.scores, found.scores[1], rtol=1e-5)


def test_a_layer_that_is_not_there(deeper):
    with pytest.raises(ValueError, match=r"layer must be one of .*layer2\.1.*; got 'layer4'"):
        deeper.cut("layer4")


def test_threads_cut_at_once(deeper):
    with ThreadPoolExecutor(4) as threads:
        layers = [f.result()[0].layer for f in [threads.submit(deeper.cut) for _ in range(8)]]
    assert layers == [deeper.cut()[0].layer] * 8


# -- in words


def test_repr_says_what_it_is_in_few_words(classifier):
    count = sum(leaf.size for leaf in jax.tree.leaves(classifier.variables["params"]))
    assert repr(classifier) == (
        f"Classifier(ResNet, {count:,} parameters, 3 classes, "
        "LayerMasking(padding='neighbor', depth=None), 224 x 224 pixels)"
    )
    bundled = lmjax.models.load("resnet18_digits")
    assert "2,801,450 parameters, 10 classes" in repr(bundled)
    assert len(repr(bundled)) < 300
    features, head = bundled.cut("layer1.0")
    assert max(len(repr(features)), len(repr(head))) < 300


def test_repr_under_tracing_and_of_a_module_of_ones_own(classifier):
    class Plain(nn.Module):
        masking: lmjax.LayerMasking = lmjax.LayerMasking()

    own = Classifier({"params": {"weight": np.zeros(7)}}, Plain(), Preprocessing(crop=None), ("a",))
    assert repr(own).startswith("Classifier(Plain, 7 parameters, 1 classes, LayerMasking")
    assert repr(own).endswith("any size)")
    texts = []
    jax.jit(lambda c: texts.append(repr(c)))(classifier)
    jax.eval_shape(lambda c: texts.append(repr(c)), classifier)
    assert texts == [repr(classifier)] * 2


def test_where_masks_travel_and_whether_visible_positions_are_enough(classifier):
    assert (classifier.where, classifier.sparse) == ("layers", True)
    transformer = registry.network("vit_b_32").build()
    found = Classifier({}, transformer, Preprocessing())
    assert (found.where, found.sparse) == ("tokens", False)
