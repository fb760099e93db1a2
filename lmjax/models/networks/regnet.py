"""RegNetY, as torchvision defines it, under layer masking.

Source: Radosavovic et al. 2020 (arXiv 2003.13678). Submodules carry torchvision's names.
"""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import BatchNorm, Conv, ConvNorm, Network, SqueezeExcitation, relu


class Block(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions with squeeze-and-excitation, beside a shortcut.

    Attributes:
      features: channels of the block.
      group_width: channels of each group of the 3x3 convolution.
      stride: of the block.
      conv, norm: layer constructors, with the network's settings filled in.
    """

    features: int
    group_width: int
    stride: int
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        unit = partial(ConvNorm, self.conv, self.norm)
        channels, skip = inputs.x.shape[-1], inputs
        if self.stride > 1 or channels != self.features:
            skip = unit(None, self.features, 1, self.stride, name="proj")(inputs)
        groups = self.features // self.group_width
        x = unit(nn.relu, self.features, 1, name="f.a")(inputs)
        # The squeeze reads the border that the sum drops: no fewer rings here.
        x = unit(nn.relu, self.features, 3, self.stride, groups, name="f.b")(x)
        x = SqueezeExcitation(round(channels / 4), self.conv, name="f.se")(x)
        x = unit(None, self.features, 1, name="f.c")(x, keep=skip.mask)
        return relu(layers.residual(x, skip))


class RegNet(Network):
    """A RegNetY over `Masked` images.

    For `masking.depth`, all blocks are counted.

    Attributes:
      widths: channels of each stage.
      stage_sizes: number of blocks in each stage; the first one of each has stride 2.
      group_width: channels of each group of 3x3 convolutions.
      The others are those of `Network`.
    """

    widths: tuple[int, ...]
    stage_sizes: tuple[int, ...]
    group_width: int

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`.

        All hidden gives `fc.bias`.
        """
        settings = self.conv, self.norm
        x = ConvNorm(*settings, nn.relu, 32, 3, 2, name="stem")(self.begin(inputs))
        blocks = [
            Block(
                width,
                self.group_width,
                2 if i == 0 else 1,
                *settings,
                name=f"trunk_output.block{stage}.block{stage}-{i}",
            )
            for stage, (width, size) in enumerate(zip(self.widths, self.stage_sizes), start=1)
            for i in range(size)
        ]
        return self.classify(layers.global_average_pool(self.run(x, blocks)), "fc")


def regnet_y_400mf(**options) -> RegNet:
    """Builds RegNetY-400MF; `options` are those of `Network`."""
    return RegNet((48, 104, 208, 440), (1, 3, 6, 6), 8, **options)


def regnet_y_800mf(**options) -> RegNet:
    """Builds RegNetY-800MF; `options` are those of `Network`."""
    return RegNet((64, 144, 320, 784), (1, 3, 8, 2), 16, **options)


def regnet_y_1_6gf(**options) -> RegNet:
    """Builds RegNetY-1.6GF; `options` are those of `Network`."""
    return RegNet((48, 120, 336, 888), (2, 6, 17, 2), 24, **options)


def regnet_y_3_2gf(**options) -> RegNet:
    """Builds RegNetY-3.2GF; `options` are those of `Network`."""
    return RegNet((72, 216, 576, 1512), (2, 5, 13, 1), 24, **options)


def regnet_y_8gf(**options) -> RegNet:
    """Builds RegNetY-8GF; `options` are those of `Network`."""
    return RegNet((224, 448, 896, 2016), (2, 4, 10, 1), 56, **options)
