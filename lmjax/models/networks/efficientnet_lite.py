"""EfficientNet-Lite, as TensorFlow's builder and timm define it, under layer masking.

Source: Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow blog): the
networks of Tan & Le 2019 (arXiv 1905.11946) without squeeze-and-excitation, with ReLU6, and with
stem and head of one size throughout. Submodules carry timm's names.

There are two networks of the same shapes. TensorFlow's pads as its `"SAME"` does, more behind than
in front where the stride is 2, and has batch norms with epsilon 1e-3. timm's own network of that
name pads alike on all sides, with epsilon 1e-5. Weights of one fit the other without an error, and
give wrong answers there.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import BatchNorm, Conv, Network
from lmjax.models.networks.efficientnet import B0
from lmjax.models.networks.inverted_residual import divisible_by_8

_STEM, _HEAD = 32, 1280


class ActivatedBatchNorm(BatchNorm):
    """Batch norm and ReLU6; timm's `BatchNormAct2d`."""

    def __call__(self, inputs: Masked) -> Masked:
        return layers.pointwise(super().__call__(inputs), nn.relu6)


class Block(nn.Module):
    """Widens by a 1x1 convolution, convolves channel by channel, and narrows again.

    Attributes:
      expansion: how many times as many channels there are in between; 1 does not widen.
      features: channels of the output.
      size, stride: of the convolution channel by channel.
      conv, norm, activated: layer constructors, with the network's settings filled in; the last is
        of norms with an activation.
    """

    expansion: int
    features: int
    size: int
    stride: int
    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    activated: Callable[..., ActivatedBatchNorm]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        channels = inputs.x.shape[-1]
        is_residual = self.stride == 1 and channels == self.features
        # The sum drops the border that the convolution alone would know.
        kept = {"rings": self.size // 2, "keep": inputs.mask} if is_residual else {}
        hidden = self.expansion * channels
        x, norms, last = inputs, iter(("bn1", "bn2", "bn3")), "conv_pw"
        if self.expansion > 1:
            x, last = self.conv(hidden, 1, name="conv_pw")(x), "conv_pwl"
            x = self.activated(name=next(norms))(x)
        x = self.conv(hidden, self.size, self.stride, groups=hidden, name="conv_dw")(x, **kept)
        x = self.activated(name=next(norms))(x)
        x = self.norm(name=next(norms))(self.conv(self.features, 1, name=last)(x))
        return layers.residual(x, inputs) if is_residual else x


class EfficientNetLite(Network):
    """An EfficientNet-Lite over `Masked` images.

    For `masking.depth`, the inverted residuals are the blocks.

    Attributes:
      width, depth: what the channels and the blocks of B0 are multiplied by.
      same: whether convolutions pad as TensorFlow's `"SAME"` does, or alike on all sides.
      epsilon: of batch norm.
      The others are those of `Network`.
    """

    width: float
    depth: float
    same: bool
    epsilon: float

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`.

        All hidden gives `classifier.bias`.
        """
        norm = partial(self.norm, epsilon=self.epsilon)
        activated = partial(ActivatedBatchNorm, *norm.args, **norm.keywords)
        conv = partial(self.conv, padding="same") if self.same else self.conv
        blocks = [
            Block(
                expansion,
                divisible_by_8(features * self.width),
                size,
                stride if i == 0 else 1,
                conv,
                norm,
                activated,
                name=f"blocks.{stage}.{i}",
            )
            for stage, (expansion, size, stride, features, count) in enumerate(B0)
            for i in range(self._blocks(stage, count))
        ]
        x = conv(_STEM, 3, 2, name="conv_stem")(self.begin(inputs))
        x = self.run(activated(name="bn1")(x), blocks)
        x = activated(name="bn2")(self.conv(_HEAD, 1, name="conv_head")(x))
        return self.classify(layers.global_average_pool(x), "classifier")

    def _blocks(self, stage: int, count: int) -> int:
        """How many blocks a stage has; the first and the last have one throughout."""
        return count if stage in (0, len(B0) - 1) else math.ceil(count * self.depth)


_tf = partial(EfficientNetLite, same=True, epsilon=1e-3)


def tf_efficientnet_lite0(**options) -> EfficientNetLite:
    """Builds TensorFlow's EfficientNet-Lite0; `options` are those of `Network`."""
    return _tf(1.0, 1.0, **options)


def tf_efficientnet_lite1(**options) -> EfficientNetLite:
    """Builds TensorFlow's EfficientNet-Lite1; `options` are those of `Network`."""
    return _tf(1.0, 1.1, **options)


def tf_efficientnet_lite2(**options) -> EfficientNetLite:
    """Builds TensorFlow's EfficientNet-Lite2; `options` are those of `Network`."""
    return _tf(1.1, 1.2, **options)


def tf_efficientnet_lite3(**options) -> EfficientNetLite:
    """Builds TensorFlow's EfficientNet-Lite3; `options` are those of `Network`."""
    return _tf(1.2, 1.4, **options)


def tf_efficientnet_lite4(**options) -> EfficientNetLite:
    """Builds TensorFlow's EfficientNet-Lite4; `options` are those of `Network`."""
    return _tf(1.4, 1.8, **options)


def efficientnet_lite0(**options) -> EfficientNetLite:
    """Builds timm's own EfficientNet-Lite0; `options` are those of `Network`."""
    return EfficientNetLite(1.0, 1.0, same=False, epsilon=1e-5, **options)
