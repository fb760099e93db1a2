"""Vision transformers, as torchvision and timm define them, under token dropping.

Sources: Dosovitskiy et al. 2021 (ViT, arXiv 2010.11929); Touvron et al. 2021 (DeiT, arXiv
2012.12877). Submodules carry torchvision's names; timm's are renamed when weights are loaded.

A token whose patch is not wholly visible is dropped: its pixels are never read, and no other token
attends to it. Tokens stand in one row, `[N, 1, 1 + patches, C]`, the class token first.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.masking.patches import whole_patches
from lmjax.models.layers import Conv, Layer, LayerNorm, Linear, Network
from lmjax.removals.masking import TokenDropping, check_masking


class SelfAttention(Layer):
    """Attention of tokens to all that are kept; `torch.nn.MultiheadAttention`.

    Attributes:
      heads: their number.
      dtype, precision: as in `Conv`.
    """

    heads: int
    dtype: jnp.dtype
    precision: lax.Precision

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        width = inputs.x.shape[-1]
        init = nn.initializers.xavier_uniform()
        kernel = self.param("in_proj_kernel", init, (width, 3 * width)).astype(self.dtype)
        bias = self.param("in_proj_bias", nn.initializers.zeros, (3 * width,)).astype(self.dtype)
        x = layers.conv(inputs, kernel[None, None], bias, precision=self.precision)
        x = layers.attention(x, self.heads, precision=self.precision)
        return Linear(width, self.dtype, self.precision, name="out_proj")(x)


class Block(nn.Module):
    """Attention, and two dense layers at every token, each behind a layer norm and in a residual.

    Attributes:
      attention, norm, linear: layer constructors, with the network's settings filled in.
    """

    attention: Callable[..., SelfAttention]
    norm: Callable[..., LayerNorm]
    linear: Callable[..., Linear]

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        width = inputs.x.shape[-1]
        x = self.attention(name="self_attention")(self.norm(name="ln_1")(inputs))
        inputs = layers.residual(x, inputs)
        x = self.linear(4 * width, name="mlp.0")(self.norm(name="ln_2")(inputs))
        x = layers.pointwise(x, layers.exact_gelu)
        return layers.residual(self.linear(width, name="mlp.3")(x), inputs)


class VisionTransformer(Network, kw_only=True):
    """A vision transformer over `Masked` images of one size.

    Attributes:
      patch_size: side of a patch, in pixels.
      layers, heads, width: how many blocks and heads, and channels of a token.
      image_size: height and width of the images; the position embedding is made for it.
      The others are those of `Network`.
    """

    patch_size: int
    layers: int
    heads: int
    width: int
    image_size: int = 224
    masking: TokenDropping = TokenDropping()  # pyright: ignore[reportIncompatibleVariableOverride]

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        """Returns logits `[N, num_classes]` of images `[N, image_size, image_size, C]`.

        All hidden gives the answer to the class token alone.
        """
        check_masking(self.masking, TokenDropping())
        self._check(inputs)
        settings = {"dtype": self.dtype, "precision": self.precision}
        norm = partial(LayerNorm, dtype=self.dtype)
        attention, linear = (
            partial(SelfAttention, self.heads, **settings),
            partial(Linear, **settings),
        )
        x = self._with_class_token(self._embed(inputs))
        for i in range(self.layers):
            x = Block(attention, norm, linear, name=f"encoder.layers.encoder_layer_{i}")(x)
        x = norm(name="encoder.ln")(x)
        return self.classify(x.x[:, 0, 0], "heads.head")

    def _embed(self, inputs: Masked) -> Masked:
        """Tokens `[N, h, w, width]` of the patches that are wholly visible; no others are read."""
        (x, mask), size = inputs, self.patch_size
        x = self.begin(Masked(x, None if mask is None else whole_patches(mask, size)))
        options = {"fill": "none", "dtype": self.dtype, "precision": self.precision}
        return Conv(self.width, size, size, 0, use_bias=True, name="conv_proj", **options)(x)

    def _with_class_token(self, patches: Masked) -> Masked:
        """One row of tokens, the class token first, with their positions' embedding."""
        x, mask = patches
        x = x.reshape(len(x), 1, -1, self.width)
        first = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
        first = jnp.broadcast_to(first[None].astype(x.dtype), (len(x), 1, 1, self.width))
        x = jnp.concatenate([first, x], axis=2)
        positions = nn.initializers.normal(0.02)
        embedding = self.param("encoder.pos_embedding", positions, (1, x.shape[2], self.width))
        x = x + embedding[None].astype(x.dtype)
        if mask is not None:
            mask = mask.reshape(len(x), 1, -1)
            mask = jnp.pad(mask, ((0, 0), (0, 0), (1, 0)), constant_values=True)
        return Masked(layers.select(mask, x), mask)

    def _check(self, inputs: Masked) -> None:
        if not isinstance(inputs, Masked):
            raise ValueError(
                "a transformer runs on full-size activations only: call classifier.apply, or "
                "evaluate with engine='dense'"
            )
        shape, size = inputs.x.shape[1:3], self.image_size
        if shape != (size, size):
            raise ValueError(
                f"images must be {size} x {size} for this transformer, whose position embedding "
                f"is made for that size; got {shape[0]} x {shape[1]}"
            )


def vit_b_16(**options) -> VisionTransformer:
    """Builds ViT-B/16; `options` are those of `VisionTransformer`."""
    return VisionTransformer(patch_size=16, layers=12, heads=12, width=768, **options)


def vit_b_32(**options) -> VisionTransformer:
    """Builds ViT-B/32; `options` are those of `VisionTransformer`."""
    return VisionTransformer(patch_size=32, layers=12, heads=12, width=768, **options)


def vit_l_16(**options) -> VisionTransformer:
    """Builds ViT-L/16; `options` are those of `VisionTransformer`."""
    return VisionTransformer(patch_size=16, layers=24, heads=16, width=1024, **options)


def vit_small_patch16_224(**options) -> VisionTransformer:
    """Builds timm's ViT-S/16; `options` are those of `VisionTransformer`."""
    return VisionTransformer(patch_size=16, layers=12, heads=6, width=384, **options)


def deit_small_patch16_224(**options) -> VisionTransformer:
    """Builds timm's DeiT-S/16, a ViT-S/16; `options` are those of `VisionTransformer`."""
    return vit_small_patch16_224(**options)


def deit_base_patch16_224(**options) -> VisionTransformer:
    """Builds timm's DeiT-B/16, a ViT-B/16; `options` are those of `VisionTransformer`."""
    return vit_b_16(**options)
