"""Masked layers, and `layer_mask`, which gives any network those.

Masked layers are pure functions of activations and the mask that travels beside them.
"""

from typing import TYPE_CHECKING

from lmjax._utils.lazy import attach
from lmjax.masking.masked import Masked
from lmjax.masking.neighbor_padding import neighbor_padding

if TYPE_CHECKING:
    from lmjax.masking import layers as layers
    from lmjax.masking.transform import LayerMaskError as LayerMaskError
    from lmjax.masking.transform import layer_mask as layer_mask
    from lmjax.masking.transform import register_rule as register_rule

_REMOVALS = ("LayerMasking", "PartialConvolution", "Replace", "ReplaceAverage", "TokenDropping")

__getattr__, __dir__, _ = attach(
    __name__,
    {
        "LayerMaskError": "lmjax.masking.transform",
        "layer_mask": "lmjax.masking.transform",
        "layers": "lmjax.masking.layers",
        "register_rule": "lmjax.masking.transform",
    },
    replaced={name: f"lmjax.{name}" for name in _REMOVALS},
)
__all__ = ["LayerMaskError", "Masked", "layer_mask", "layers", "neighbor_padding", "register_rule"]
