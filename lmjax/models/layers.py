"""Thin Flax modules, which hold weights and call the masked functions of `lmjax.masking`.

Every module takes and gives `Masked` values (activations `[N, H, W, C]` beside their mask), except
that a classifier's last layers end in plain arrays. Write a network in these layers, name the
submodules as its checkpoint does, and it runs plain, layer-masked and under partial convolution.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.masking.windows import Padding, Pair, Window, same_padding
from lmjax.removals.masking import LayerMasking, PartialConvolution

# He et al. 2015 (arXiv 1502.01852), fan out: torchvision's initialisation of most networks.
_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Layer(nn.Module):
    """The base of layers, and of all modules that declare parameters themselves.

    Flax traces the initialiser of every parameter whenever a module is applied, to learn its shape:
    a fifth of the time that it takes to trace a network. Here a given parameter is compared with
    the shape that is asked for.
    """

    @nn.nowrap  # as Flax's own: interceptors of methods do not see it
    def param(self, name: str, init_fn: Callable[..., Any], *init_args: Any, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns a parameter, made by `init_fn(key, *init_args)` where it is not given.

        Args:
          name, init_fn, options: as in Flax.
          init_args: of the initialiser, the parameter's shape first where it can be looked up.
        """
        shape, scope = init_args[0] if init_args else None, self.scope
        if isinstance(shape, tuple | list) and scope and scope.has_variable("params", name):
            value = scope.get_variable("params", name)
            known = isinstance(value, jax.Array | np.ndarray) and value.shape == tuple(shape)
            if known and not scope.name_reserved(name, "params"):  # else Flax says what is wrong
                scope.reserve(name, "params")
                return value
        return super().param(name, init_fn, *init_args, **options)


class Conv(Layer):
    """Convolution of the visible part; see `lmjax.masking.layers.conv`.

    Attributes:
      features: output channels.
      size: kernel height and width: a number for both, or a pair.
      stride, dilation, groups: as in torch.
      padding: zeros around the image: a number, (rows, columns), or ((top, bottom), (left, right));
        None takes `dilation * (size - 1) / 2` on every side, `"same"` TensorFlow's padding.
      use_bias: whether a bias is added.
      fill: `"neighbor"`, `"none"` or `"partial"`.
      dtype: of the computation; weights are float32.
      precision: of the products, where the device offers a choice (TF32 on GPU, bf16 on TPU).
      standardise: epsilon of weight standardisation (Qiao et al. 2019, arXiv 1903.10520), or None:
        the kernel of each output less its mean, over its deviation.
    """

    features: int
    size: Pair
    stride: Pair = 1
    padding: Padding | Literal["same"] | None = None
    dilation: Pair = 1
    groups: int = 1
    use_bias: bool = False
    fill: str = "neighbor"
    dtype: jnp.dtype = jnp.float32
    precision: lax.Precision = lax.Precision.HIGHEST
    standardise: float | None = None

    @nn.compact
    def __call__(
        self, inputs: Masked, *, rings: int | None = None, keep: jax.Array | None = None
    ) -> Masked:
        window = Window.of(self.size, dilation=self.dilation)
        shape = (*window.shape, inputs.x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", _kernel_init, shape)
        if self.standardise is not None:
            kernel = kernel - kernel.mean(axis=(0, 1, 2), keepdims=True)
            variance = (kernel**2).mean(axis=(0, 1, 2), keepdims=True)
            kernel = kernel * lax.rsqrt(variance + self.standardise)
        kernel = kernel.astype(self.dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return layers.conv(
            inputs,
            kernel,
            bias,
            stride=self.stride,
            padding=self._padding(inputs, window),
            dilation=self.dilation,
            groups=self.groups,
            fill=self.fill,
            rings=rings,
            keep=keep,
            precision=self.precision,
        )

    def _padding(self, inputs: Any, window: Window) -> Padding:
        if self.padding is None:
            return window.centred
        if self.padding != "same":
            return self.padding
        # Rows of visible positions know the shape of the images that they are of.
        shape = inputs.x.shape[1:3] if inputs.x.ndim == 4 else inputs.mask.shape
        return same_padding(shape, self.size, self.stride, self.dilation)


class BatchNorm(Layer, nn.BatchNorm):
    """Batch normalisation of visible positions; in training, over the visible positions only.

    Flax's convention: `momentum` is the share of the old running value, so torch's momentum 0.1 is
    0.9 here; and the running variance is that of the batch, where torch's is n / (n - 1) times it,
    over n positions. Epsilon 1e-5 is torch's. Parameters `scale`, `bias`; statistics `mean`, `var`.
    """

    momentum: float = 0.9

    def __call__(self, inputs: Masked) -> Masked:  # pyright: ignore[reportIncompatibleMethodOverride]
        mask = None if self.use_running_average else inputs.mask
        mask = None if mask is None else mask[..., None]
        return layers.pointwise(inputs, lambda x: super(BatchNorm, self).__call__(x, mask=mask))


def relu(inputs: Masked) -> Masked:
    """Applies the rectified linear unit."""
    return layers.pointwise(inputs, nn.relu)


class LayerNorm(Layer, nn.LayerNorm):
    """Layer normalisation of visible positions: over the channels, of each position by itself."""

    use_fast_variance: bool = False

    def __call__(self, inputs: Masked) -> Masked:  # pyright: ignore[reportIncompatibleMethodOverride]
        return layers.pointwise(inputs, super().__call__)


class GroupNorm(Layer):
    """Group normalisation, over the visible positions of each image; see `layers.group_norm`.

    Attributes:
      groups: their number.
      epsilon: added to variances.
      dtype: of the result; parameters `scale` and `bias` are float32.
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        shape = inputs.x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, shape).astype(self.dtype)

        def affine(x: jax.Array) -> jax.Array:
            channels = (1,) * (x.ndim - 1) + (-1,)
            return x * scale.reshape(channels) + bias.reshape(channels)

        return layers.pointwise(
            layers.group_norm(inputs, self.groups, epsilon=self.epsilon), affine
        )


class Linear(Layer):
    """A dense layer at every position.

    Attributes:
      features: output channels.
      dtype, precision: as in `Conv`.
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    precision: lax.Precision = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        shape = (inputs.x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return layers.conv(inputs, kernel[None, None], bias, precision=self.precision)


class ConvNorm(nn.Module):
    """Convolution, batch norm and activation; `Conv2dNormActivation` of torchvision.

    Attributes:
      conv, norm: layer constructors, with the network's settings filled in.
      activation: any pointwise function, or None.
      features, size, stride, groups: of the convolution.
    """

    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    activation: Callable[[jax.Array], jax.Array] | None
    features: int
    size: Pair
    stride: Pair = 1
    groups: int = 1

    @nn.compact
    def __call__(
        self, inputs: Masked, *, rings: int | None = None, keep: jax.Array | None = None
    ) -> Masked:
        conv = self.conv(self.features, self.size, self.stride, groups=self.groups, name="0")
        x = self.norm(name="1")(conv(inputs, rings=rings, keep=keep))
        return x if self.activation is None else layers.pointwise(x, self.activation)


class SqueezeExcitation(nn.Module):
    """Scales every channel by a function of all channels' means over the visible positions.

    Source: Hu et al. 2018 (arXiv 1709.01507).

    Attributes:
      squeezed: channels in between.
      conv: layer constructor, with the network's settings filled in.
      activation, gate: the functions behind the two dense layers.
    """

    squeezed: int
    conv: Callable[..., Conv]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        means = layers.global_average_pool(inputs).astype(inputs.x.dtype)
        conv = partial(self.conv, size=1, use_bias=True)
        x = conv(self.squeezed, name="fc1")(Masked(means[:, None, None]))
        x = conv(means.shape[-1], name="fc2")(layers.pointwise(x, self.activation))
        return layers.scale_channels(inputs, self.gate(x.x[:, 0, 0]))


class Network(Layer, kw_only=True):
    """The base of all networks: their common settings and layers.

    A subclass defines `__call__`, from `Masked` images to logits. A network for images of one size
    has a field `image_size`, their height and width; a transformer has a field `patch_size`, the
    side of the square patches that are its tokens, in pixels. Here both are None.

    Attributes:
      num_classes: number of logits.
      masking: how hidden neighbours are treated and how deep masks go.
      dtype: of the computation (float32 or bfloat16); weights and logits are float32.
      precision: of the products. The default keeps float32 at full precision on every device;
        `lax.Precision.DEFAULT` allows TF32 on GPU and bfloat16 passes on TPU.
      train: use the batch's statistics in batch norms, and update the running ones. No part of what
        a network is, so it is not shown.
    """

    num_classes: int = 1000
    masking: LayerMasking | PartialConvolution = LayerMasking()
    dtype: jnp.dtype = jnp.float32
    precision: lax.Precision = lax.Precision.HIGHEST
    train: bool = dataclasses.field(default=False, repr=False)
    image_size = None
    patch_size = None

    @property
    def conv(self) -> Callable[..., Conv]:
        """Constructor of convolutions, with the network's settings filled in."""
        options = {"dtype": self.dtype, "precision": self.precision}
        return partial(Conv, fill=self.masking.padding, **options)

    @property
    def norm(self) -> Callable[..., BatchNorm]:
        """Constructor of batch norms, with the network's settings filled in."""
        return partial(BatchNorm, use_running_average=not self.train, dtype=self.dtype)

    def begin(self, inputs: Masked) -> Masked:
        """Starts masking."""
        return layers.mask_input(inputs._replace(x=inputs.x.astype(self.dtype)))

    def run(self, x: Masked, blocks: Sequence[Callable[[Masked], Masked]]) -> Masked:
        """Runs blocks in order, masked as far as `masking.depth` says, with seams in between."""
        depth = self.masking.depth
        if isinstance(depth, str):
            raise ValueError(
                f"depth is {depth!r}; in this network it is a number of blocks, 0 to "
                f"{len(blocks)}, or None to mask all the way"
            )
        if depth is not None and depth > len(blocks):
            raise ValueError(
                f"masking depth is {depth}, but the network has {len(blocks)} blocks; use 0 to "
                f"{len(blocks)}, or None to mask all the way"
            )
        x = layers.seam(x)
        for i, block in enumerate(blocks):
            x = layers.seam(block(layers.unmask(x) if i == depth else x))
        return layers.unmask(x) if depth == len(blocks) else x

    def linear(self, features: jax.Array, size: int, name: str) -> jax.Array:
        """Applies a dense layer to features `[N, D]`."""
        return nn.Dense(size, dtype=self.dtype, precision=self.precision, name=name)(features)

    def classify(self, features: jax.Array, name: str) -> jax.Array:
        """Returns logits `[N, num_classes]` by the last dense layer."""
        return self.linear(features, self.num_classes, name).astype(jnp.float32)

    def classify_grid(self, x: Masked, size: int, names: Sequence[str]) -> jax.Array:
        """Returns logits from a grid of features, by dense layers of 4096 and the last one.

        The grid is flattened as torch has it, channel by channel.
        """
        features = layers.adaptive_average_pool(x, size)
        features = jnp.moveaxis(features, -1, 1).reshape(len(features), -1)
        for name in names[:-1]:
            features = nn.relu(self.linear(features, 4096, name))
        return self.classify(features, names[-1])


def sequence(*steps: Callable[[Masked], Masked]) -> Callable[[Masked], Masked]:
    """Composes functions, which run in order."""

    def run(x: Masked) -> Masked:
        for step in steps:
            x = step(x)
        return x

    return run
