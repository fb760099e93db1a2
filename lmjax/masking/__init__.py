"""Masked layers: pure functions of activations and the mask that travels beside them."""

from lmjax.masking.masked import Masked
from lmjax.masking.neighbor_padding import neighbor_padding

__all__ = ["Masked", "neighbor_padding"]
