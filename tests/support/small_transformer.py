"""A small vision transformer with random weights, for tests of what token dropping shows."""

import functools

import jax
import numpy as np

from lmjax.models import Classifier, Preprocessing, checkpoints
from lmjax.models.networks.vit import VisionTransformer


@functools.cache  # what is compiled for one serves all tests
def small_transformer(
    patch_size: int = 16, *, image_size: int = 64, num_classes: int = 4, resize: int | None = None
) -> Classifier:
    """Returns a transformer for square images, which by default it takes as they are."""
    sizes = {"patch_size": patch_size, "image_size": image_size, "num_classes": num_classes}
    module = VisionTransformer(layers=1, heads=2, width=16, **sizes)
    rng = np.random.default_rng(0)

    def random(path, leaf):
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return jax.device_put(rng.normal(mean, 0.5, leaf.shape).astype(leaf.dtype))

    shapes = checkpoints.abstract_variables(module)
    variables = jax.tree_util.tree_map_with_path(random, shapes)
    crop = None if resize is None else image_size
    preprocessing = Preprocessing(resize, crop, mean=(0.5,) * 3, std=(0.5,) * 3)
    return Classifier(variables, module, preprocessing)
