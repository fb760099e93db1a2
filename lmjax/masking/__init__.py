"""Masks through networks: masked layers, neighbor padding, and the removals built on them."""

from lmjax.masking.marginal import ReplaceAverage
from lmjax.masking.masked import Masked
from lmjax.masking.removal import LayerMasking, PartialConvolution, TokenDropping
from lmjax.masking.replace import Replace

__all__ = [
    "LayerMasking",
    "Masked",
    "PartialConvolution",
    "Replace",
    "ReplaceAverage",
    "TokenDropping",
]
