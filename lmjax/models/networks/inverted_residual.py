"""The block of MobileNetV3 and EfficientNet, as torchvision defines it, under layer masking."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import BatchNorm, Conv, ConvNorm, SqueezeExcitation


def divisible_by_8(channels: float) -> int:
    """Returns the nearest multiple of 8 that is not less by more than a tenth; at least 8."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class InvertedResidual(nn.Module):
    """Widens by a 1x1 convolution, convolves channel by channel, squeezes, and narrows again.

    Sources: Howard et al. 2019 (arXiv 1905.02244); Tan & Le 2019 (arXiv 1905.11946).

    Attributes:
      hidden: channels in between.
      features: channels of the output.
      size, stride: of the convolution channel by channel.
      squeezed: channels of squeeze-and-excitation; 0 for none.
      activation: of the block.
      squeeze: constructor of `SqueezeExcitation`, its functions filled in.
      conv, norm: layer constructors, with the network's settings filled in.
    """

    hidden: int
    features: int
    size: int
    stride: int
    squeezed: int
    activation: Callable[[jax.Array], jax.Array]
    squeeze: Callable[..., SqueezeExcitation]
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        unit = partial(ConvNorm, self.conv, self.norm)
        is_residual = self.stride == 1 and inputs.x.shape[-1] == self.features
        # The sum drops the border that the convolution alone would know; the squeeze reads it.
        kept: dict[str, Any] = {"keep": inputs.mask} if is_residual else {}
        early: dict[str, Any] = {}
        if is_residual and not self.squeezed:
            early = {"rings": self.size // 2, **kept}
        x, layer = inputs, 0
        if self.hidden != inputs.x.shape[-1]:
            x, layer = unit(self.activation, self.hidden, 1, name="block.0")(x), 1
        spatial = self.activation, self.hidden, self.size, self.stride, self.hidden
        x = unit(*spatial, name=f"block.{layer}")(x, **early)
        if self.squeezed:
            layer += 1
            x = self.squeeze(self.squeezed, self.conv, name=f"block.{layer}")(x)
        x = unit(None, self.features, 1, name=f"block.{layer + 1}")(x, **kept)
        return layers.residual(x, inputs) if is_residual else x
