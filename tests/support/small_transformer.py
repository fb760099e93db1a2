"""A small vision transformer with random weights, for tests of what token dropping shows."""

import functools

import jax
import jax.numpy as jnp

from lmjax.masking import Masked
from lmjax.models import Classifier, Preprocessing
from lmjax.models.networks.vit import VisionTransformer


@functools.cache  # what is compiled for one serves all tests
def small_transformer(
    patch_size: int = 16, *, image_size: int = 64, num_classes: int = 4, resize: int | None = None
) -> Classifier:
    """Returns a transformer for square images, which by default it takes as they are."""
    sizes = {"patch_size": patch_size, "image_size": image_size, "num_classes": num_classes}
    module = VisionTransformer(layers=1, heads=2, width=16, **sizes)

    @jax.jit  # one program in the place of one for each shape
    def noisy():
        images = jnp.zeros((1, image_size, image_size, 3))
        leaves, tree = jax.tree.flatten(module.init(jax.random.key(0), Masked(images)))
        keys = jax.random.split(jax.random.key(1), len(leaves))
        added = [jax.random.normal(key, leaf.shape) / 2 for leaf, key in zip(leaves, keys)]
        return jax.tree.unflatten(tree, [leaf + more for leaf, more in zip(leaves, added)])

    crop = None if resize is None else image_size
    preprocessing = Preprocessing(resize, crop, mean=(0.5,) * 3, std=(0.5,) * 3)
    return Classifier(noisy(), module, preprocessing)
