"""GoogLeNet (Inception v1 with batch norm), as torchvision defines it, under layer masking.

Source: Szegedy et al. 2015 (arXiv 1409.4842), table 1. Submodules carry torchvision's names. As in
torchvision, the branch that the paper gives a 5x5 convolution has a 3x3 one; the classifiers in the
middle, which only training uses, are left out; and inputs are normalised to mean and standard
deviation 0.5.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import BatchNorm, Conv, Network, relu, sequence

# Of each inception module: channels of the branches, [first 1x1,] last convolution; and whether a
# pool follows, of which size.
_INCEPTIONS: dict[str, tuple[Any, ...]] = {
    "3a": (64, (96, 128), (16, 32), 32, 0),
    "3b": (128, (128, 192), (32, 96), 64, 3),
    "4a": (192, (96, 208), (16, 48), 64, 0),
    "4b": (160, (112, 224), (24, 64), 64, 0),
    "4c": (128, (128, 256), (24, 64), 64, 0),
    "4d": (112, (144, 288), (32, 64), 64, 0),
    "4e": (256, (160, 320), (32, 128), 128, 2),
    "5a": (256, (160, 320), (32, 128), 128, 0),
    "5b": (384, (192, 384), (48, 128), 128, 0),
}


class BasicConv(nn.Module):
    """Convolution, batch norm and activation.

    Attributes:
      conv, norm: layer constructors, with the network's settings filled in.
      features, size, stride: of the convolution.
    """

    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, inputs: Masked, **kept) -> Masked:
        x = self.conv(self.features, self.size, self.stride, name="conv")(inputs, **kept)
        return relu(self.norm(name="bn")(x))


class Inception(nn.Module):
    """Four branches side by side: 1x1, twice 1x1 and 3x3, max pool and 1x1.

    Attributes:
      unit: constructor of `BasicConv`, with the network's settings filled in.
      first, second, third, fourth: channels of the branches' convolutions.
    """

    unit: Callable[..., BasicConv]
    first: int
    second: tuple[int, int]
    third: tuple[int, int]
    fourth: int

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        # The concatenation drops the border that a branch alone would know.
        keep = inputs.mask
        branches = [self.unit(self.first, 1, name="branch1")(inputs)]
        for name, (before, features) in (("branch2", self.second), ("branch3", self.third)):
            x = self.unit(before, 1, name=f"{name}.0")(inputs)
            branches.append(self.unit(features, 3, name=f"{name}.1")(x, rings=1, keep=keep))
        x = layers.max_pool(inputs, window=3, stride=1, padding=1)
        branches.append(self.unit(self.fourth, 1, name="branch4.1")(x, keep=keep))
        return layers.concatenate(*branches)


class GoogLeNet(Network):
    """GoogLeNet over `Masked` images; its attributes are those of `Network`.

    For `masking.depth`, the nine inception modules are the blocks.
    """

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`.

        All hidden gives `fc.bias`.
        """
        unit = partial(BasicConv, self.conv, partial(self.norm, epsilon=1e-3))
        pool = partial(layers.max_pool, stride=2, ceil_mode=True)
        x = pool(unit(64, 7, 2, name="conv1")(self.begin(inputs)), window=3)
        x = unit(192, 3, name="conv3")(unit(64, 1, name="conv2")(x))
        blocks = []
        for name, (*channels, window) in _INCEPTIONS.items():
            block = Inception(unit, *channels, name=f"inception{name}")
            blocks.append(sequence(block, partial(pool, window=window)) if window else block)
        x = self.run(pool(x, window=3), blocks)
        return self.classify(layers.global_average_pool(x), "fc")


def googlenet(**options) -> GoogLeNet:
    """Builds GoogLeNet; `options` are those of `Network`."""
    return GoogLeNet(**options)
