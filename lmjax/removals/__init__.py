"""Removals: how hidden features are withheld from a network."""

from lmjax.removals.average import ReplaceAverage
from lmjax.removals.masking import LayerMasking, PartialConvolution, TokenDropping
from lmjax.removals.replace import Replace

__all__ = [
    "LayerMasking",
    "PartialConvolution",
    "Replace",
    "ReplaceAverage",
    "TokenDropping",
]
