"""What a network knows of an image before its last layer makes classes of it."""

import dataclasses
from typing import Any

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import Conv


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Penultimate:
    """A classifier that answers with features instead of logits, under any removal.

    Features are what goes into the last dense or convolutional layer: for most networks the pooled
    activations. Where it is a convolution (SqueezeNet) they are averaged over visible positions.

    Attributes:
      classifier: of `lmjax.models`, or a Flax network with the methods of one.
    """

    classifier: Any

    @property
    def preprocessing(self):
        """The classifier's."""
        return self.classifier.preprocessing

    @property
    def masking(self):
        """The classifier's."""
        return self.classifier.masking

    def normalise(self, images: jax.Array) -> jax.Array:
        """The classifier's."""
        return self.classifier.normalise(images)

    def apply(self, images: jax.Array, masks: jax.Array | None = None, *, masking=None):
        """Features `[N, D]`; arguments as in `lmjax.models.classifier.Classifier.apply`.

        Raises:
          ValueError: a network without such a layer, and what the classifier raises.
        """
        inputs = []

        def keep(proceed, args, kwargs, context):
            if context.method_name == "__call__" and isinstance(context.module, nn.Dense | Conv):
                inputs.append(args[0])
            return proceed(*args, **kwargs)

        with nn.intercept_methods(keep):
            self.classifier.apply(images, masks, masking=masking)
        if not inputs:
            raise ValueError(
                "features need a network whose last layer is a Flax Dense or an "
                f"lmjax.models.layers.Conv; {type(self.classifier).__name__} has neither"
            )
        last = inputs[-1]
        return layers.global_average_pool(last) if isinstance(last, Masked) else last
