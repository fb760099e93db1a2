"""ConvNeXt, as torchvision defines it, under layer masking.

Source: Liu et al. 2022 (arXiv 2201.03545). Submodules carry torchvision's names. Its layer norms
are over the channels of each position by itself, so masks do not change them.
"""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import Conv, Layer, LayerNorm, Linear, Network, sequence


class Block(Layer):
    """7x7 convolution channel by channel, layer norm, and two dense layers at every position.

    Attributes:
      conv, norm, linear: layer constructors, with the network's settings filled in.
    """

    conv: Callable[..., Conv]
    norm: Callable[..., LayerNorm]
    linear: Callable[..., Linear]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        channels = inputs.x.shape[-1]
        # The sum drops the border that the convolution alone would know.
        conv = self.conv(channels, 7, groups=channels, name="block.0")
        x = self.norm(name="block.2")(conv(inputs, rings=3, keep=inputs.mask))
        x = self.linear(4 * channels, name="block.3")(x)
        x = layers.pointwise(x, layers.exact_gelu)
        x = self.linear(channels, name="block.5")(x)
        scale = self.param("layer_scale", nn.initializers.constant(1e-6), (1, 1, channels))
        scale = scale.astype(x.x.dtype).ravel()
        return layers.residual(layers.pointwise(x, partial(_times, scale)), inputs)


def _times(scale: jax.Array, x: jax.Array) -> jax.Array:
    return x * scale.reshape((1,) * (x.ndim - 1) + (-1,))


class ConvNeXt(Network):
    """A ConvNeXt over `Masked` images.

    For `masking.depth`, all blocks are counted; a downsampling belongs to the block before it.

    Attributes:
      stage_sizes: number of blocks in each stage.
      width: channels of the first stage; doubles each stage.
      The others are those of `Network`.
    """

    stage_sizes: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, H, W, C]`, H and W at least 32.

        All hidden gives the classifier's answer to zeros.
        """
        conv = partial(self.conv, use_bias=True)
        norm = partial(LayerNorm, dtype=self.dtype)
        linear = partial(Linear, dtype=self.dtype, precision=self.precision)
        x = conv(self.width, 4, 4, padding=0, name="features.0.0")(self.begin(inputs))
        blocks = []
        for stage, size in enumerate(self.stage_sizes):
            for i in range(size):
                blocks.append(Block(conv, norm, linear, name=f"features.{2 * stage + 1}.{i}"))
            if stage + 1 < len(self.stage_sizes):
                name = f"features.{2 * stage + 2}"
                down = conv(self.width * 2 ** (stage + 1), 2, 2, padding=0, name=f"{name}.1")
                blocks[-1] = sequence(blocks[-1], norm(name=f"{name}.0"), down)
        x = self.run(norm(name="features.0.1")(x), blocks)
        features = layers.global_average_pool(x)
        features = norm(name="classifier.0")(Masked(features[:, None, None])).x[:, 0, 0]
        return self.classify(features, "classifier.2")


def convnext_tiny(**options) -> ConvNeXt:
    """Builds ConvNeXt-Tiny; `options` are those of `Network`."""
    return ConvNeXt((3, 3, 9, 3), 96, **options)


def convnext_small(**options) -> ConvNeXt:
    """Builds ConvNeXt-Small; `options` are those of `Network`."""
    return ConvNeXt((3, 3, 27, 3), 96, **options)


def convnext_base(**options) -> ConvNeXt:
    """Builds ConvNeXt-Base; `options` are those of `Network`."""
    return ConvNeXt((3, 3, 27, 3), 128, **options)
