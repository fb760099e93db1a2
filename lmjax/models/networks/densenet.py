"""DenseNet, as torchvision defines it, under layer masking.

Source: Huang et al. 2017 (arXiv 1608.06993). Submodules carry torchvision's names.

Every layer's channels stand beside all earlier ones, and what an earlier layer does not know is
not known: the mask of a dense block is that of its input. So nothing is computed elsewhere.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import BatchNorm, Conv, Network, relu, sequence


class DenseLayer(nn.Module):
    """1x1 and 3x3 convolutions, each after batch norm and activation: `growth` new channels."""

    growth: int
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        x = self.conv(4 * self.growth, 1, name="conv1")(relu(self.norm(name="norm1")(inputs)))
        # Outputs are kept on the block's mask, so they read one ring beyond the visible region.
        x = relu(self.norm(name="norm2")(x))
        return self.conv(self.growth, 3, name="conv2")(x, rings=1, keep=inputs.mask)


class DenseBlock(nn.Module):
    """Layers, each of which reads the channels of all before it."""

    layers: int
    growth: int
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        x = inputs
        for i in range(self.layers):
            layer = DenseLayer(self.growth, self.conv, self.norm, name=f"denselayer{i + 1}")
            x = layers.concatenate(x, layer(x))
        return x


class Transition(nn.Module):
    """Halves the channels by a 1x1 convolution, and height and width by averages."""

    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        x = relu(self.norm(name="norm")(inputs))
        x = self.conv(x.x.shape[-1] // 2, 1, name="conv")(x)
        return layers.average_pool(x, window=2, stride=2)


class DenseNet(Network):
    """A DenseNet over `Masked` images.

    For `masking.depth`, the four dense blocks, with the transition behind them, are the blocks.

    Attributes:
      stage_sizes: number of layers in each dense block.
      growth: channels that every layer adds.
      width: channels of the first convolution.
      The others are those of `Network`.
    """

    stage_sizes: tuple[int, ...]
    growth: int = 32
    width: int = 64

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`, H and W at least 29.

        All hidden gives `classifier.bias`.
        """
        settings = self.conv, self.norm
        x = self.conv(self.width, 7, 2, name="features.conv0")(self.begin(inputs))
        x = relu(self.norm(name="features.norm0")(x))
        x = layers.max_pool(x, window=3, stride=2, padding=1)
        blocks = []
        for i, count in enumerate(self.stage_sizes, start=1):
            block = DenseBlock(count, self.growth, *settings, name=f"features.denseblock{i}")
            if i < len(self.stage_sizes):
                block = sequence(block, Transition(*settings, name=f"features.transition{i}"))
            blocks.append(block)
        x = relu(self.norm(name="features.norm5")(self.run(x, blocks)))
        return self.classify(layers.global_average_pool(x), "classifier")


def densenet121(**options) -> DenseNet:
    """Builds DenseNet-121; `options` are those of `Network`."""
    return DenseNet((6, 12, 24, 16), **options)


def densenet161(**options) -> DenseNet:
    """Builds DenseNet-161, with more channels; `options` are those of `Network`."""
    return DenseNet((6, 12, 36, 24), 48, 96, **options)


def densenet169(**options) -> DenseNet:
    """Builds DenseNet-169; `options` are those of `Network`."""
    return DenseNet((6, 12, 32, 32), **options)


def densenet201(**options) -> DenseNet:
    """Builds DenseNet-201; `options` are those of `Network`."""
    return DenseNet((6, 12, 48, 32), **options)
