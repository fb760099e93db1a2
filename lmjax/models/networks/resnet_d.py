"""ResNet-D, as timm defines it, under layer masking.

Source: He et al. 2018, "Bag of Tricks for Image Classification" (arXiv 1812.01187), section 4.2:
three 3x3 convolutions in the stem, and averages before the convolution of a strided shortcut.
Submodules carry timm's names.
"""

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import relu
from lmjax.models.networks import resnet


class Bottleneck(resnet.Bottleneck):
    """A bottleneck whose shortcut averages, then convolves; the attributes are the same."""

    @property
    def rings(self) -> int:
        """A 2x2 window that touches the visible region may begin one ring further from it."""
        return self.stride

    def shortcut(self, inputs: Masked) -> Masked:
        """Returns the identity, or averages and a 1x1 convolution where the shape changes."""
        features = self.planes * self.expansion
        if self.stride == 1 and inputs.x.shape[-1] == features:
            return inputs
        if self.stride > 1:
            inputs = layers.average_pool(inputs, window=2, stride=2, ceil_mode=True)
        x = self.conv(features, 1, name="downsample.1")(inputs)
        return self.norm(name="downsample.2")(x)


class ResNetD(resnet.ResNet):
    """A ResNet-D over `Masked` images; the attributes are those of `ResNet`."""

    def stem(self, x: Masked) -> Masked:
        """Applies three 3x3 convolutions, the first two of half the width."""
        x = relu(self.norm(name="conv1.1")(self.conv(self.width // 2, 3, 2, name="conv1.0")(x)))
        x = relu(self.norm(name="conv1.4")(self.conv(self.width // 2, 3, name="conv1.3")(x)))
        return self.conv(self.width, 3, name="conv1.6")(x)


def resnet26d(**options) -> ResNetD:
    """Builds ResNet-26-D; `options` are those of `ResNet`."""
    return ResNetD((2, 2, 2, 2), Bottleneck, **options)


def resnet50d(**options) -> ResNetD:
    """Builds ResNet-50-D; `options` are those of `ResNet`."""
    return ResNetD((3, 4, 6, 3), Bottleneck, **options)
