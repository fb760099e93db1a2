"""Masked layers: pure functions of activations and the mask that travels beside them."""

from typing import NoReturn

from lmjax.masking.masked import Masked
from lmjax.masking.neighbor_padding import neighbor_padding

__all__ = ["Masked", "neighbor_padding"]

_REMOVALS = ("LayerMasking", "PartialConvolution", "Replace", "ReplaceAverage", "TokenDropping")


def __getattr__(name: str) -> NoReturn:
    if name in _REMOVALS:
        raise AttributeError(f"lmjax.masking.{name} is gone; use lmjax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
