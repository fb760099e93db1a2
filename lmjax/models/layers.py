"""Thin Flax modules: they hold weights and call the masked functions of `lmjax.masking`.

Every module takes and gives `Masked` values (activations `[N, H, W, C]` beside their mask), except
that a classifier's last layers end in plain arrays. Write a network in these layers, name the
submodules as its checkpoint does, and it runs plain, layer-masked and under partial convolution.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from lmjax.masking import dense
from lmjax.masking.masked import Masked

# He et al. 2015 (arXiv 1502.01852), fan out: torchvision's initialisation of ResNets.
_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """Convolution of the visible part; see `lmjax.masking.dense.conv`.

    Attributes:
      features: output channels.
      size: kernel height and width.
      stride, dilation, groups: as in torch.
      padding: zero rows and columns on each side; None takes `dilation * (size - 1) / 2`.
      use_bias: whether a bias is added.
      fill: `"neighbor"`, `"none"` or `"partial"`.
      dtype: of the computation; weights are float32.
      precision: of the products, where the device offers a choice (TF32 on GPU, bf16 on TPU).
    """

    features: int
    size: int
    stride: int = 1
    padding: int | None = None
    dilation: int = 1
    groups: int = 1
    use_bias: bool = False
    fill: str = "neighbor"
    dtype: jnp.dtype = jnp.float32
    precision: lax.Precision = lax.Precision.HIGHEST

    @nn.compact
    def __call__(
        self, inputs: Masked, *, rings: int | None = None, keep: jax.Array | None = None
    ) -> Masked:
        shape = (self.size, self.size, inputs.x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", _kernel_init, shape).astype(self.dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        padding = self.dilation * (self.size - 1) // 2 if self.padding is None else self.padding
        return dense.conv(
            inputs,
            kernel,
            bias,
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
            fill=self.fill,
            rings=rings,
            keep=keep,
            precision=self.precision,
        )


class BatchNorm(nn.BatchNorm):
    """Batch normalisation of visible positions; in training, over the visible positions only.

    Flax's convention: `momentum` is the share of the old running value, so torch's momentum 0.1 is
    0.9 here; epsilon 1e-5 is the same. Parameters `scale`, `bias`; statistics `mean`, `var`.
    """

    def __call__(self, inputs: Masked) -> Masked:
        in_training = not self.use_running_average and inputs.mask is not None
        mask = inputs.mask[..., None] if in_training else None
        return dense.pointwise(inputs, lambda x: super(BatchNorm, self).__call__(x, mask=mask))


def relu(inputs: Masked) -> Masked:
    """Rectified linear unit."""
    return dense.pointwise(inputs, nn.relu)
