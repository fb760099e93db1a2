"""Networks that are functions, cut in two at a layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.attribution import gradcam, scorecam
from lmjax.models import from_function
from tests.support import cam_network

SIZE = 14
IMAGE = np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)


def conv(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)


def plain(params, images):
    """A convolution, a block with a shortcut, and a classifier, with inner functions."""
    with jax.named_scope("stem"):
        x = jax.nn.relu(conv(images, params["stem"]))
    with jax.named_scope("body"):
        with jax.named_scope("branch"):
            y = jax.jit(conv)(x, params["branch"])
        x = jax.nn.silu(jnp.concatenate([x, y], axis=-1))
    with jax.named_scope("head"):
        return x.mean((1, 2)) @ params["head"]


@functools.cache
def network(layout="NHWC"):
    draw = np.random.default_rng(1).normal
    shapes = {"stem": (3, 3, 3, 4), "branch": (3, 3, 4, 5), "head": (9, 6)}
    params = {name: draw(size=shape).astype(np.float32) / 2 for name, shape in shapes.items()}

    def channels_first(params, images):
        return plain(params, jnp.moveaxis(images, 1, -1))  # and last inside

    apply = plain if layout == "NHWC" else channels_first
    return from_function(apply, params, image_size=SIZE, layout=layout)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(("layer", "width"), [(None, 9), ("body", 9), ("stem", 4)])
def test_the_two_parts_make_the_whole(layout, layer, width):
    classifier = network(layout)
    features, head = classifier.cut(layer)
    activations = jax.jit(lambda part, image: part(image))(features, IMAGE)
    assert activations.shape == (SIZE, SIZE, width)
    whole = classifier.logits(IMAGE[None])[0]
    logits = jax.jit(lambda part, activations: part(activations))(head, activations)
    np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=1e-6)
    assert not np.allclose(head(jnp.roll(activations, 1, axis=-1)), whole, rtol=1e-3)


def test_parts_hold_the_weights_as_leaves():
    features, head = network().cut()
    for part in (features, head):
        assert len(jax.tree.leaves(part)) == len(jax.tree.leaves(network()))


def test_a_network_of_torch_is_cut_as_the_same_one_in_layers():
    torch_network = pytest.importorskip("torch") and cam_network.torch_network(4)
    own = cam_network.ported(torch_network)
    preprocessing = cam_network.PREPROCESSING
    foreign = lmjax.models.from_torch(
        torch_network, (1, 3, SIZE, SIZE), mean=preprocessing.mean, std=preprocessing.std
    )
    parts, expected = foreign.cut(cam_network.LAYER), own.cut(cam_network.LAYER)
    np.testing.assert_allclose(parts[0](IMAGE), expected[0](IMAGE), atol=1e-5)
    found = gradcam(*parts, IMAGE, target=1)
    np.testing.assert_allclose(found.scores, gradcam(*expected, IMAGE, target=1).scores, atol=1e-5)
    maps = [
        scorecam(lmjax.Predictor(each, "black"), IMAGE, halves=each.cut(cam_network.LAYER))
        for each in (foreign, own)
    ]
    np.testing.assert_allclose(maps[0].scores, maps[1].scores, atol=1e-4)


def test_where_a_network_cannot_be_cut():
    with pytest.raises(ValueError, match=r"layer must be a module .*'neck'; it has stem, body"):
        network().cut("neck")
    with pytest.raises(ValueError, match=r"layer 'branch' has no value .*take the end"):
        network().cut("branch")

    def flat(params, images):
        return jnp.tanh(images.reshape(len(images), -1)) @ params

    weights = np.ones((SIZE * SIZE * 3, 2), np.float32)
    with pytest.raises(ValueError, match="the network has no value"):
        from_function(flat, weights, image_size=SIZE).cut()


def test_parts_are_for_one_size_of_image():
    features, head = network().cut()
    with pytest.raises(ValueError, match=r"image must be 14 x 14 pixels, .* was cut; got 13 x 14"):
        features(IMAGE[1:])
    with pytest.raises(ValueError, match=r"activations must be .* \[1, 14, 14, 9\]"):
        head(jnp.zeros((7, 7, 9)))


def test_biases_of_a_function_are_not_known():
    with pytest.raises(ValueError, match="biases of a network that is a function cannot be had"):
        lmjax.attribution.fullgrad(lmjax.Predictor(network()), IMAGE)
