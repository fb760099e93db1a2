"""MobileNetV3, as torchvision defines it, under layer masking.

Source: Howard et al. 2019 (arXiv 1905.02244), tables 1 and 2. Submodules carry torchvision's names.
"""

from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import ConvNorm, Network, SqueezeExcitation
from lmjax.models.networks.inverted_residual import InvertedResidual, divisible_by_8

_squeeze = partial(SqueezeExcitation, gate=nn.hard_sigmoid)

# Of every block: kernel size, channels in between and out, whether it squeezes, activation, stride.
_LARGE = (
    (3, 16, 16, False, nn.relu, 1),
    (3, 64, 24, False, nn.relu, 2),
    (3, 72, 24, False, nn.relu, 1),
    (5, 72, 40, True, nn.relu, 2),
    (5, 120, 40, True, nn.relu, 1),
    (5, 120, 40, True, nn.relu, 1),
    (3, 240, 80, False, nn.hard_swish, 2),
    (3, 200, 80, False, nn.hard_swish, 1),
    (3, 184, 80, False, nn.hard_swish, 1),
    (3, 184, 80, False, nn.hard_swish, 1),
    (3, 480, 112, True, nn.hard_swish, 1),
    (3, 672, 112, True, nn.hard_swish, 1),
    (5, 672, 160, True, nn.hard_swish, 2),
    (5, 960, 160, True, nn.hard_swish, 1),
    (5, 960, 160, True, nn.hard_swish, 1),
)
_SMALL = (
    (3, 16, 16, True, nn.relu, 2),
    (3, 72, 24, False, nn.relu, 2),
    (3, 88, 24, False, nn.relu, 1),
    (5, 96, 40, True, nn.hard_swish, 2),
    (5, 240, 40, True, nn.hard_swish, 1),
    (5, 240, 40, True, nn.hard_swish, 1),
    (5, 120, 48, True, nn.hard_swish, 1),
    (5, 144, 48, True, nn.hard_swish, 1),
    (5, 288, 96, True, nn.hard_swish, 2),
    (5, 576, 96, True, nn.hard_swish, 1),
    (5, 576, 96, True, nn.hard_swish, 1),
)


class MobileNetV3(Network):
    """A MobileNetV3 over `Masked` images.

    For `masking.depth`, the inverted residuals are the blocks.

    Attributes:
      settings: of each block: kernel size, channels in between and out, whether it squeezes,
        activation, stride.
      width: features of the dense layer before the last one.
      The others are those of `Network`.
    """

    settings: tuple[tuple, ...]
    width: int

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`.

        All hidden gives the classifier's answer to zeros.
        """
        conv, norm = self.conv, partial(self.norm, epsilon=1e-3, momentum=0.99)
        unit = partial(ConvNorm, conv, norm, nn.hard_swish)
        blocks = [
            InvertedResidual(
                *(hidden, features, size, stride),
                divisible_by_8(hidden // 4) if squeezes else 0,
                *(activation, _squeeze, conv, norm),
                name=f"features.{i}",
            )
            for i, (size, hidden, features, squeezes, activation, stride) in enumerate(
                self.settings, start=1
            )
        ]
        x = self.run(unit(16, 3, 2, name="features.0")(self.begin(inputs)), blocks)
        x = unit(6 * x.x.shape[-1], 1, name=f"features.{len(blocks) + 1}")(x)
        features = self.linear(layers.global_average_pool(x), self.width, "classifier.0")
        return self.classify(nn.hard_swish(features), "classifier.3")


def mobilenet_v3_small(**options) -> MobileNetV3:
    """Builds MobileNetV3-Small; `options` are those of `Network`."""
    return MobileNetV3(_SMALL, 1024, **options)


def mobilenet_v3_large(**options) -> MobileNetV3:
    """Builds MobileNetV3-Large; `options` are those of `Network`."""
    return MobileNetV3(_LARGE, 1280, **options)
