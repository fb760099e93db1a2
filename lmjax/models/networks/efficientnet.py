"""EfficientNet and EfficientNetV2, as torchvision defines them, under layer masking.

Sources: Tan & Le 2019 (arXiv 1905.11946), table 1; Tan & Le 2021 (arXiv 2104.00298), table 4.
Submodules carry torchvision's names.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import BatchNorm, Conv, ConvNorm, Network, SqueezeExcitation
from lmjax.models.networks.inverted_residual import InvertedResidual, divisible_by_8

_squeeze = partial(SqueezeExcitation, activation=nn.silu)


class FusedInvertedResidual(nn.Module):
    """Widens by a k x k convolution and narrows by a 1x1 one; at expansion 1, k x k alone.

    Attributes:
      expansion: how many times as many channels there are in between.
      features: channels of the output.
      size, stride: of the k x k convolution.
      conv, norm: layer constructors, with the network's settings filled in.
    """

    expansion: int
    features: int
    size: int
    stride: int
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        unit = partial(ConvNorm, self.conv, self.norm)
        channels = inputs.x.shape[-1]
        is_residual = self.stride == 1 and channels == self.features
        # The sum drops the border that the convolution alone would know.
        kept = {"rings": self.size // 2, "keep": inputs.mask} if is_residual else {}
        hidden = self.features if self.expansion == 1 else divisible_by_8(self.expansion * channels)
        x = unit(nn.silu, hidden, self.size, self.stride, name="block.0")(inputs, **kept)
        if self.expansion > 1:
            x = unit(None, self.features, 1, name="block.1")(x)
        return layers.residual(x, inputs) if is_residual else x


class EfficientNet(Network):
    """An EfficientNet over `Masked` images.

    For `masking.depth`, the inverted residuals are the blocks.

    Attributes:
      stages: of each stage: whether its blocks are fused, expansion, kernel size, stride of the
        first block, channels, number of blocks.
      width: channels of the first convolution.
      last: channels of the last convolution.
      epsilon, momentum: of batch norm. Momentum serves training alone, so it is not shown.
      The others are those of `Network`.
    """

    stages: tuple[tuple, ...]
    width: int
    last: int
    epsilon: float = 1e-5
    momentum: float = dataclasses.field(default=0.9, repr=False)

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`.

        All hidden gives the last bias.
        """
        norm = partial(self.norm, epsilon=self.epsilon, momentum=self.momentum)
        settings = self.conv, norm
        unit = partial(ConvNorm, *settings, nn.silu)
        blocks, channels = [], self.width
        for stage, (fused, expansion, size, stride, features, count) in enumerate(self.stages, 1):
            for i in range(count):
                shape = features, size, stride if i == 0 else 1
                name = f"features.{stage}.{i}"
                if fused:
                    block = FusedInvertedResidual(expansion, *shape, *settings, name=name)
                else:
                    hidden, squeezed = divisible_by_8(expansion * channels), max(1, channels // 4)
                    functions = nn.silu, _squeeze
                    block = InvertedResidual(
                        hidden, *shape, squeezed, *functions, *settings, name=name
                    )
                blocks.append(block)
                channels = features
        x = self.run(unit(self.width, 3, 2, name="features.0")(self.begin(inputs)), blocks)
        x = unit(self.last, 1, name=f"features.{len(self.stages) + 1}")(x)
        return self.classify(layers.global_average_pool(x), "classifier.1")


# Of each stage: expansion, kernel size, stride of the first block, channels, number of blocks.
B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_V2_S = (
    (True, 1, 3, 1, 24, 2),
    (True, 4, 3, 2, 48, 4),
    (True, 4, 3, 2, 64, 4),
    (False, 4, 3, 2, 128, 6),
    (False, 6, 3, 1, 160, 9),
    (False, 6, 3, 2, 256, 15),
)


def _scaled(width: float, depth: float, **options) -> EfficientNet:
    """Builds B0 with its channels and blocks multiplied."""
    stages = tuple(
        (False, expansion, size, stride, divisible_by_8(features * width), math.ceil(count * depth))
        for expansion, size, stride, features, count in B0
    )
    return EfficientNet(stages, divisible_by_8(32 * width), 4 * stages[-1][4], **options)


def efficientnet_b0(**options) -> EfficientNet:
    """Builds EfficientNet-B0; `options` are those of `Network`."""
    return _scaled(1.0, 1.0, **options)


def efficientnet_b1(**options) -> EfficientNet:
    """Builds EfficientNet-B1; `options` are those of `Network`."""
    return _scaled(1.0, 1.1, **options)


def efficientnet_b2(**options) -> EfficientNet:
    """Builds EfficientNet-B2; `options` are those of `Network`."""
    return _scaled(1.1, 1.2, **options)


def efficientnet_b3(**options) -> EfficientNet:
    """Builds EfficientNet-B3; `options` are those of `Network`."""
    return _scaled(1.2, 1.4, **options)


def efficientnet_b4(**options) -> EfficientNet:
    """Builds EfficientNet-B4; `options` are those of `Network`."""
    return _scaled(1.4, 1.8, **options)


def efficientnet_b5(**options) -> EfficientNet:
    """Builds EfficientNet-B5; `options` are those of `Network`."""
    return _scaled(1.6, 2.2, epsilon=1e-3, momentum=0.99, **options)


def efficientnet_b6(**options) -> EfficientNet:
    """Builds EfficientNet-B6; `options` are those of `Network`."""
    return _scaled(1.8, 2.6, epsilon=1e-3, momentum=0.99, **options)


def efficientnet_b7(**options) -> EfficientNet:
    """Builds EfficientNet-B7; `options` are those of `Network`."""
    return _scaled(2.0, 3.1, epsilon=1e-3, momentum=0.99, **options)


def efficientnet_v2_s(**options) -> EfficientNet:
    """Builds EfficientNetV2-S; `options` are those of `Network`."""
    return EfficientNet(_V2_S, 24, 1280, epsilon=1e-3, **options)
