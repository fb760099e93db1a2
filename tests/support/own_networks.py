"""lmjax's networks as plain functions, with weights whose activations stay of one size."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import Masked, layers
from lmjax.models import registry
from tests.support.compilations import quick_jit


def plain(module):
    """A network of the registry as a function of weights and images."""
    return lambda variables, images: module.apply(variables, Masked(images))


def by_hand(module):
    """The same network under layer masking, as it is written."""
    return lambda variables, images, masks: module.apply(
        variables, Masked(images, jnp.asarray(masks))
    )


def calibrated(module, size, seed=0):
    """Random weights, and the batch statistics of noise.

    With other statistics activations vanish or explode, and errors in early layers with them.
    """
    images = jnp.asarray(np.random.default_rng(seed).normal(size=(4, size, size, 3)), jnp.float32)
    variables = quick_jit(module.init)(jax.random.key(seed), Masked(images))
    if "batch_stats" not in variables:
        return variables
    training = module.clone(train=True)
    _, updated = quick_jit(lambda v, x: training.apply(v, Masked(x), mutable=["batch_stats"]))(
        variables, images
    )
    momentum = 0.9
    statistics = jax.tree.map(
        lambda old, new: (new - momentum * old) / (1 - momentum),
        variables["batch_stats"],
        updated["batch_stats"],
    )
    return {**variables, "batch_stats": statistics}


def size_of(name):
    """An image size at which a network is quick."""
    network = registry.network(name)
    return network.preprocessing.crop if network.fixed_size else 64


@contextlib.contextmanager
def counted_rings():
    """A list that gets the rings of neighbor padding of each convolution that is traced."""
    found, original = [], layers.neighbor_padding

    def counting(x, mask, rings, *args, **options):
        found.append(rings)
        return original(x, mask, rings, *args, **options)

    layers.neighbor_padding = counting
    try:
        yield found
    finally:
        layers.neighbor_padding = original


def rings_of(function, *args):
    """How many rings of neighbor padding a function computes."""
    with counted_rings() as found:
        jax.eval_shape(lambda *a: function(*a), *args)
    return sum(found)
