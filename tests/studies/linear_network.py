"""A network whose features are known: colours of the visible pixels, summed or averaged by cell."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax import LayerMasking
from lmjax.masking.masked import Masked
from lmjax.models.classifier import Classifier
from tests.studies import fakes

CELL = 8


class Cells(nn.Module):
    """Colours of cells of 8 x 8 pixels, of visible pixels only, and a dense layer.

    Attributes:
      average: divide by the number of visible pixels of the whole image.
      total: add up all cells.
    """

    masking: LayerMasking = LayerMasking()
    average: bool = False
    total: bool = False

    @nn.compact
    def __call__(self, inputs):
        x, mask = inputs
        mask = jnp.ones(x.shape[:3], bool) if mask is None else mask
        x = jnp.where(mask[..., None], x, 0)
        number, height, width, channels = x.shape
        cells = x.reshape(number, height // CELL, CELL, width // CELL, CELL, channels)
        features = cells.sum(axis=(2, 4)).reshape(number, -1)
        if self.total:
            features = features.reshape(number, -1, channels).sum(axis=1)
        if self.average:
            features = features / jnp.maximum(mask.sum(axis=(1, 2)), 1)[:, None]
        return nn.Dense(10, name="fc")(features)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FullSize(Classifier):
    """A classifier whose module takes full-size activations only."""

    sparse = False


@functools.cache
def network(**options) -> Classifier:
    """Ten classes; images of 32 x 32."""
    module = Cells(**options)
    images = jnp.zeros((1, fakes.SIZE, fakes.SIZE, 3))
    variables = module.init(jax.random.key(0), Masked(images))
    return FullSize(variables, module, fakes.AS_IT_IS)
