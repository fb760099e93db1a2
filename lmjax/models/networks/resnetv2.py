"""ResNet-V2 (pre-activation), as timm defines it, under layer masking.

Sources: He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027);
Kolesnikov et al. 2020 (BiT, arXiv 1912.11370), with group norm and weight standardisation.
Submodules carry timm's names.

Group norm's statistics are over all positions that are visible, those that a residual sum drops
behind it included: where it is, nothing of a block's border may be left out.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import BatchNorm, Conv, GroupNorm, Network, relu


class ActivatedBatchNorm(BatchNorm):
    """Batch norm and activation; timm's `BatchNormAct2d`."""

    def __call__(self, inputs: Masked) -> Masked:
        return relu(super().__call__(inputs))


class ActivatedGroupNorm(GroupNorm):
    """Group norm and activation; timm's `GroupNormAct`."""

    def __call__(self, inputs: Masked) -> Masked:
        return relu(super().__call__(inputs))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each behind a norm and an activation, beside a shortcut.

    Attributes:
      features: channels of the output.
      stride: of the block.
      project: whether the shortcut is a convolution, of the activated input.
      average: whether a strided shortcut averages before its convolution, as in ResNet-D.
      conv, norm: layer constructors, with the network's settings filled in; the norm's with an
        activation.
    """

    features: int
    stride: int
    project: bool
    average: bool
    conv: Callable[..., Conv]
    norm: Callable[..., ActivatedBatchNorm | ActivatedGroupNorm]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        width, norm3 = self.features // 4, self.norm(name="norm3")
        x = self.norm(name="norm1")(inputs)
        skip = self.shortcut(x) if self.project else inputs
        x = self.norm(name="norm2")(self.conv(width, 1, name="conv1")(x))
        border = {}
        if isinstance(norm3, BatchNorm):  # which treats positions alone; see `resnet.Bottleneck`
            border = {"rings": self.stride if self.average else 1, "keep": skip.mask}
        x = norm3(self.conv(width, 3, self.stride, name="conv2")(x, **border))
        x = self.conv(self.features, 1, name="conv3")(x, keep=skip.mask)
        return layers.residual(x, skip)

    def shortcut(self, x: Masked) -> Masked:
        """Returns a 1x1 convolution of the activated input."""
        stride = self.stride
        if self.average and stride > 1:
            x, stride = layers.average_pool(x, window=2, stride=2, ceil_mode=True), 1
        return self.conv(self.features, 1, stride, name="downsample.conv")(x)


class ResNetV2(Network, kw_only=True):
    """A pre-activation residual network over `Masked` images.

    Attributes:
      stage_sizes: number of blocks in each stage.
      groups: of group norm; None for batch norm.
      standardise: epsilon of weight standardisation in all convolutions but the classifier's, or
        None.
      deep: whether the stem is three 3x3 convolutions and shortcuts average, as in ResNet-D.
      zeros_around_pool: whether the stem's max pool finds zeros around the image, as in BiT.
      The others are those of `Network`.
    """

    stage_sizes: tuple[int, ...]
    groups: int | None = None
    standardise: float | None = None
    deep: bool = False
    zeros_around_pool: bool = False

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`.

        All hidden gives `head.fc.bias`.

        Args:
          inputs: normalised images, and masks `[N, H, W]` or None. Any H and W.
        """
        conv = partial(self.conv, standardise=self.standardise)
        norm = partial(ActivatedBatchNorm, use_running_average=not self.train, dtype=self.dtype)
        if self.groups is not None:
            norm = partial(ActivatedGroupNorm, self.groups, dtype=self.dtype)
        x = self.stem(self.begin(inputs), conv, norm)
        outside = 0.0 if self.zeros_around_pool else -jnp.inf
        x = layers.max_pool(x, window=3, stride=2, padding=1, outside=outside)
        blocks = [
            Bottleneck(
                256 * 2**stage,
                2 if stage > 0 and i == 0 else 1,
                i == 0,
                self.deep,
                conv,
                norm,
                name=f"stages.{stage}.blocks.{i}",
            )
            for stage, size in enumerate(self.stage_sizes)
            for i in range(size)
        ]
        x = norm(name="norm")(self.run(x, blocks))
        means = layers.global_average_pool(x).astype(self.dtype)
        classifier = self.conv(self.num_classes, 1, use_bias=True, name="head.fc")
        return classifier(Masked(means[:, None, None])).x[:, 0, 0].astype(jnp.float32)

    def stem(self, x: Masked, conv: Callable[..., Conv], norm: Callable) -> Masked:
        """Applies a 7x7 convolution, or three 3x3 ones."""
        if not self.deep:
            return conv(64, 7, 2, name="stem.conv")(x)
        x = layers.seam(
            conv(32, 3, 2, name="stem.conv1")(x)
        )  # group norm mixes positions behind it
        x = norm(name="stem.norm1")(x)
        x = norm(name="stem.norm2")(conv(32, 3, name="stem.conv2")(x))
        return conv(64, 3, name="stem.conv3")(x)


def resnetv2_50(**options) -> ResNetV2:
    """Builds ResNet-V2-50 with batch norm; `options` are those of `Network`."""
    return ResNetV2(stage_sizes=(3, 4, 6, 3), **options)


def resnetv2_50d_gn(**options) -> ResNetV2:
    """Builds ResNet-V2-50-D with group norm; `options` are those of `Network`."""
    return ResNetV2(stage_sizes=(3, 4, 6, 3), groups=32, deep=True, **options)


def resnetv2_50x1_bit(**options) -> ResNetV2:
    """Builds BiT's ResNet-V2-50, with group norm; `options` are those of `Network`."""
    bit = {"groups": 32, "standardise": 1e-8, "zeros_around_pool": True}
    return ResNetV2(stage_sizes=(3, 4, 6, 3), **bit, **options)
