"""All rules: each family registers its own when it is imported."""

from lmjax.masking.transform import (
    calls,
    control,
    convolutions,
    elementwise,
    joining,
    padding,
    pieces,
    pools,
    products,
    reductions,
    shapes,
    slicing,
    taking,
)
from lmjax.masking.transform.operation import RULES

__all__ = [
    "RULES",
    "calls",
    "control",
    "convolutions",
    "elementwise",
    "joining",
    "padding",
    "pieces",
    "pools",
    "products",
    "reductions",
    "shapes",
    "slicing",
    "taking",
]
