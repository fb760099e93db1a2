"""ResNet, ResNeXt and Wide ResNet, as torchvision defines them, under layer masking.

Sources: He et al. 2016 (arXiv 1512.03385); Xie et al. 2017 (ResNeXt, arXiv 1611.05431); Zagoruyko &
Komodakis 2016 (Wide ResNet, arXiv 1605.07146). As in torchvision, the stride of a bottleneck is in
its 3x3 convolution. Submodules carry torchvision's names.

The residual sum keeps only positions that are visible in both branches, which here are the
shortcut's. So inside a block nothing is computed for positions that the sum drops, and convolutions
fill only the rings of neighbor padding that a kept output can read. Both are exact.
"""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import BatchNorm, Conv, Network, relu


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18 and 34).

    Attributes:
      planes: width of the block; its output has `expansion * planes` channels.
      stride: of the block.
      conv, norm: layer constructors, with the network's settings filled in.
    """

    planes: int
    stride: int
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    expansion = 1

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        skip = shortcut(self, inputs)
        x = self.conv(self.planes, 3, self.stride, name="conv1")(inputs)
        x = relu(self.norm(name="bn1")(x))
        # Outputs are kept on the shortcut's mask. At stride 1, conv1 has already computed all the
        # neighbours of those positions; at stride 2, one ring may be missing.
        rings = 0 if self.stride == 1 else 1
        x = self.conv(self.planes, 3, name="conv2")(x, rings=rings, keep=skip.mask)
        x = self.norm(name="bn2")(x)
        return relu(layers.residual(x, skip))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (ResNet-50 and up).

    Attributes:
      planes: the block's output has `expansion * planes` channels.
      stride: of the block.
      conv, norm: layer constructors, with the network's settings filled in.
      groups, width_per_group: the 3x3 convolution has `planes * width_per_group / 64 * groups`
        channels in `groups` groups.
    """

    planes: int
    stride: int
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    groups: int = 1
    width_per_group: int = 64
    expansion = 4
    rings = 1  # outputs are kept on the shortcut's mask: they read one beyond the visible region

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        skip = self.shortcut(inputs)
        width = int(self.planes * (self.width_per_group / 64)) * self.groups
        x = self.conv(width, 1, name="conv1")(inputs)
        x = relu(self.norm(name="bn1")(x))
        conv2 = self.conv(width, 3, self.stride, groups=self.groups, name="conv2")
        x = conv2(x, rings=self.rings, keep=skip.mask)
        x = relu(self.norm(name="bn2")(x))
        x = self.conv(self.planes * self.expansion, 1, name="conv3")(x)
        x = self.norm(name="bn3")(x)
        return relu(layers.residual(x, skip))

    def shortcut(self, inputs: Masked) -> Masked:
        """Computes the branch beside the convolutions."""
        return shortcut(self, inputs)


def shortcut(block: BasicBlock | Bottleneck, inputs: Masked) -> Masked:
    """Applies the identity, or a strided 1x1 convolution where the shape changes, in `block`."""
    features = block.planes * block.expansion
    if block.stride == 1 and inputs.x.shape[-1] == features:
        return inputs
    x = block.conv(features, 1, block.stride, name="downsample.0")(inputs)
    return block.norm(name="downsample.1")(x)


class ResNet(Network):
    """A residual network over `Masked` images.

    Attributes:
      stage_sizes: number of blocks in each stage.
      block: `BasicBlock` or `Bottleneck` (for ResNeXt and Wide ResNet a partial of it).
      width: channels of the stem and planes of the first stage; doubles each stage.
      The others are those of `Network`.
    """

    stage_sizes: tuple[int, ...]
    block: Callable[..., nn.Module]
    width: int = 64

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`.

        All hidden gives `fc.bias`.

        Args:
          inputs: normalised images, and masks `[N, H, W]` or None. Any H and W.
        """
        x = relu(self.norm(name="bn1")(self.stem(self.begin(inputs))))
        x = layers.max_pool(x, window=3, stride=2, padding=1)
        blocks = [
            self.block(
                self.width * 2**stage,
                2 if stage > 0 and i == 0 else 1,
                self.conv,
                self.norm,
                name=f"layer{stage + 1}.{i}",
            )
            for stage, size in enumerate(self.stage_sizes)
            for i in range(size)
        ]
        return self.classify(layers.global_average_pool(self.run(x, blocks)), "fc")

    def stem(self, x: Masked) -> Masked:
        """Applies the layers before `bn1`."""
        return self.conv(self.width, 7, 2, name="conv1")(x)


def resnet18(**options) -> ResNet:
    """Builds ResNet-18; `options` are those of `ResNet`."""
    return ResNet((2, 2, 2, 2), BasicBlock, **options)


def resnet34(**options) -> ResNet:
    """Builds ResNet-34; `options` are those of `ResNet`."""
    return ResNet((3, 4, 6, 3), BasicBlock, **options)


def resnet50(**options) -> ResNet:
    """Builds ResNet-50; `options` are those of `ResNet`."""
    return ResNet((3, 4, 6, 3), Bottleneck, **options)


def resnet101(**options) -> ResNet:
    """Builds ResNet-101; `options` are those of `ResNet`."""
    return ResNet((3, 4, 23, 3), Bottleneck, **options)


def resnet152(**options) -> ResNet:
    """Builds ResNet-152; `options` are those of `ResNet`."""
    return ResNet((3, 8, 36, 3), Bottleneck, **options)


_resnext_32x4d = partial(Bottleneck, groups=32, width_per_group=4)
_resnext_32x8d = partial(Bottleneck, groups=32, width_per_group=8)
_resnext_64x4d = partial(Bottleneck, groups=64, width_per_group=4)
_twice_as_wide = partial(Bottleneck, width_per_group=128)


def resnext50_32x4d(**options) -> ResNet:
    """Builds ResNeXt-50, 32 groups of width 4; `options` are those of `ResNet`."""
    return ResNet((3, 4, 6, 3), _resnext_32x4d, **options)


def resnext101_32x8d(**options) -> ResNet:
    """Builds ResNeXt-101, 32 groups of width 8; `options` are those of `ResNet`."""
    return ResNet((3, 4, 23, 3), _resnext_32x8d, **options)


def resnext101_64x4d(**options) -> ResNet:
    """Builds ResNeXt-101, 64 groups of width 4; `options` are those of `ResNet`."""
    return ResNet((3, 4, 23, 3), _resnext_64x4d, **options)


def wide_resnet50_2(**options) -> ResNet:
    """Builds Wide ResNet-50-2: bottlenecks of twice the width; `options` are those of `ResNet`."""
    return ResNet((3, 4, 6, 3), _twice_as_wide, **options)


def wide_resnet101_2(**options) -> ResNet:
    """Builds Wide ResNet-101-2: bottlenecks of twice the width; `options` are those of `ResNet`."""
    return ResNet((3, 4, 23, 3), _twice_as_wide, **options)


def resnet18_digits(**options) -> ResNet:
    """Builds the bundled ResNet-18 of half the width; `options` are those of `ResNet`."""
    return ResNet((2, 2, 2, 2), BasicBlock, **{"num_classes": 10, "width": 32, **options})
