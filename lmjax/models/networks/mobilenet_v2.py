"""MobileNetV2, as torchvision defines it, under layer masking.

Source: Sandler et al. 2018 (arXiv 1801.04381), table 2. Submodules carry torchvision's names.
"""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import BatchNorm, Conv, ConvNorm, Network

_STAGES = (  # expansion, channels, blocks, stride of the first one
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Widens by a 1x1 convolution, convolves channel by channel, and narrows again.

    Attributes:
      expansion: how many times as many channels there are in between.
      features: channels of the output.
      stride: of the block.
      conv, norm: layer constructors, with the network's settings filled in.
    """

    expansion: int
    features: int
    stride: int
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        unit = partial(ConvNorm, self.conv, self.norm, nn.relu6)
        hidden = self.expansion * inputs.x.shape[-1]
        x, layer = inputs, 0
        if self.expansion > 1:
            x, layer = unit(hidden, 1, name="conv.0")(x), 1
        is_residual = self.stride == 1 and inputs.x.shape[-1] == self.features
        # The sum drops the border that the convolution alone would know.
        kept = {"rings": 1, "keep": inputs.mask} if is_residual else {}
        x = unit(hidden, 3, self.stride, hidden, name=f"conv.{layer}")(x, **kept)
        x = self.conv(self.features, 1, name=f"conv.{layer + 1}")(x)
        x = self.norm(name=f"conv.{layer + 2}")(x)
        return layers.residual(x, inputs) if is_residual else x


class MobileNetV2(Network):
    """MobileNetV2 over `Masked` images; its attributes are those of `Network`.

    For `masking.depth`, the 17 inverted residuals are the blocks.
    """

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`.

        All hidden gives the last bias.
        """
        unit = partial(ConvNorm, self.conv, self.norm, nn.relu6)
        blocks = []
        for expansion, features, size, stride in _STAGES:
            for i in range(size):
                settings = expansion, features, stride if i == 0 else 1, self.conv, self.norm
                blocks.append(InvertedResidual(*settings, name=f"features.{len(blocks) + 1}"))
        x = self.run(unit(32, 3, 2, name="features.0")(self.begin(inputs)), blocks)
        x = unit(1280, 1, name=f"features.{len(blocks) + 1}")(x)
        return self.classify(layers.global_average_pool(x), "classifier.1")


def mobilenet_v2(**options) -> MobileNetV2:
    """Builds MobileNetV2; `options` are those of `Network`."""
    return MobileNetV2(**options)
