"""VGG with and without batch norm, as torchvision defines it, under layer masking.

Source: Simonyan & Zisserman 2015 (arXiv 1409.1556); configurations A, B, D and E of its table 1.
Submodules carry torchvision's names.
"""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import Network, relu, sequence

_WIDTHS = (64, 128, 256, 512, 512)


class VGG(Network):
    """A VGG network over `Masked` images.

    For `masking.depth`, the convolutions behind the first one are the blocks.

    Attributes:
      stage_sizes: number of convolutions before each of the five pools.
      batch_norm: whether every convolution is followed by batch norm.
      The others are those of `Network`.
    """

    stage_sizes: tuple[int, ...]
    batch_norm: bool = False

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`, H and W at least 32.

        All hidden gives the classifier's answer to zeros.
        """
        blocks, layer = [], 0  # torchvision numbers layers through, pools and activations included
        for width, size in zip(_WIDTHS, self.stage_sizes, strict=True):
            for i in range(size):
                steps: list[Callable[[Masked], Masked]] = [
                    self.conv(width, 3, use_bias=True, name=f"features.{layer}")
                ]
                if self.batch_norm:
                    steps.append(self.norm(name=f"features.{layer + 1}"))
                steps.append(relu)
                layer += len(steps)
                if i == size - 1:
                    steps.append(partial(layers.max_pool, window=2, stride=2))
                    layer += 1
                blocks.append(sequence(*steps))
        x = self.run(blocks[0](self.begin(inputs)), blocks[1:])
        return self.classify_grid(x, 7, ["classifier.0", "classifier.3", "classifier.6"])


_A, _B, _D, _E = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


def vgg11(**options) -> VGG:
    """Builds VGG-11; `options` are those of `Network`."""
    return VGG(_A, **options)


def vgg11_bn(**options) -> VGG:
    """Builds VGG-11 with batch norm; `options` are those of `Network`."""
    return VGG(_A, batch_norm=True, **options)


def vgg13(**options) -> VGG:
    """Builds VGG-13; `options` are those of `Network`."""
    return VGG(_B, **options)


def vgg13_bn(**options) -> VGG:
    """Builds VGG-13 with batch norm; `options` are those of `Network`."""
    return VGG(_B, batch_norm=True, **options)


def vgg16(**options) -> VGG:
    """Builds VGG-16; `options` are those of `Network`."""
    return VGG(_D, **options)


def vgg16_bn(**options) -> VGG:
    """Builds VGG-16 with batch norm; `options` are those of `Network`."""
    return VGG(_D, batch_norm=True, **options)


def vgg19(**options) -> VGG:
    """Builds VGG-19; `options` are those of `Network`."""
    return VGG(_E, **options)


def vgg19_bn(**options) -> VGG:
    """Builds VGG-19 with batch norm; `options` are those of `Network`."""
    return VGG(_E, batch_norm=True, **options)
