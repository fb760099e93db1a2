"""SqueezeNet, as torchvision defines it, under layer masking.

Source: Iandola et al. 2016 (arXiv 1602.07360). Submodules carry torchvision's names. Its pools are
in ceil mode: where windows do not reach the end of the image, there is one more.
"""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import Conv, Network, relu, sequence


class Fire(nn.Module):
    """1x1 convolution to few channels, then 1x1 and 3x3 convolutions side by side.

    Attributes:
      squeezed: channels of the first convolution.
      expanded: channels of each of the two others.
      conv: layer constructor, with the network's settings filled in.
    """

    squeezed: int
    expanded: int
    conv: Callable[..., Conv]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        x = relu(self.conv(self.squeezed, 1, name="squeeze")(inputs))
        one = relu(self.conv(self.expanded, 1, name="expand1x1")(x))
        # The concatenation drops the border that the 3x3 convolution alone would know.
        three = relu(self.conv(self.expanded, 3, name="expand3x3")(x, rings=1, keep=x.mask))
        return layers.concatenate(one, three)


_FIRES = (16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)


class SqueezeNet(Network):
    """SqueezeNet over `Masked` images.

    For `masking.depth`, the eight fire modules are the blocks.

    Attributes:
      width, size: channels and kernel size of the first convolution.
      pooled: the fire modules, from 0, that a pool follows.
      The others are those of `Network`.
    """

    width: int
    size: int
    pooled: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`, H and W at least 21.

        All hidden gives zeros: the classifier is a convolution, and its answers are averaged.
        """
        conv = partial(self.conv, use_bias=True)
        pool = partial(layers.max_pool, window=3, stride=2, ceil_mode=True)
        stem = conv(self.width, self.size, 2, padding=0, name="features.0")
        x = pool(relu(stem(self.begin(inputs))))
        blocks, layer = [], 3  # torchvision numbers layers through, pools and activations included
        for i, (squeezed, expanded) in enumerate(_FIRES):
            fire = Fire(squeezed, expanded, conv, name=f"features.{layer}")
            blocks.append(sequence(fire, pool) if i in self.pooled else fire)
            layer += 2 if i in self.pooled else 1
        x = self.run(x, blocks)
        return layers.global_average_pool(relu(conv(self.num_classes, 1, name="classifier.1")(x)))


def squeezenet1_0(**options) -> SqueezeNet:
    """Builds SqueezeNet 1.0; `options` are those of `Network`."""
    return SqueezeNet(96, 7, (2, 6), **options)


def squeezenet1_1(**options) -> SqueezeNet:
    """Builds SqueezeNet 1.1, which costs less; `options` are those of `Network`."""
    return SqueezeNet(64, 3, (1, 3), **options)
