"""Layer masking of any network: a function is traced, and every operation gets a masked one."""

from lmjax.masking.transform.api import LayerMasked, layer_mask, register_rule
from lmjax.masking.transform.nodes import LayerMaskError

__all__ = ["LayerMaskError", "LayerMasked", "layer_mask", "register_rule"]
