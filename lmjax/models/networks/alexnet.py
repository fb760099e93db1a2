"""AlexNet, as torchvision defines it, under layer masking.

Source: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks" (arXiv
1404.5997). Submodules carry torchvision's names.
"""

from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import Network, relu, sequence


class AlexNet(Network):
    """AlexNet over `Masked` images; its attributes are those of `Network`.

    For `masking.depth`, the four convolutions behind the first one are the blocks.
    """

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`, H and W at least 63.

        All hidden gives the classifier's answer to zeros.
        """
        conv = partial(self.conv, use_bias=True)
        pool = partial(layers.max_pool, window=3, stride=2)
        x = conv(64, 11, 4, padding=2, name="features.0")(self.begin(inputs))
        blocks = [
            sequence(conv(192, 5, name="features.3"), relu, pool),
            sequence(conv(384, 3, name="features.6"), relu),
            sequence(conv(256, 3, name="features.8"), relu),
            sequence(conv(256, 3, name="features.10"), relu, pool),
        ]
        x = self.run(pool(relu(x)), blocks)
        return self.classify_grid(x, 6, ["classifier.1", "classifier.4", "classifier.6"])


def alexnet(**options) -> AlexNet:
    """Builds AlexNet; `options` are those of `Network`."""
    return AlexNet(**options)
