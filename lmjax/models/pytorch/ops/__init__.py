"""The operations of core ATen that image classifiers need, in JAX's plainest primitives.

Each function takes an operation's arguments in ATen's order. They emit primitives that other
transformations of jaxprs can read: one convolution for a convolution, a sum and a division for a
mean, padding in numbers. Products are computed in full float32 precision.
"""

from lmjax.models.pytorch.ops import (
    activations,
    creation,
    elementwise,
    indexing,
    normalisation,
    padding,
    pooling,
    products,
    reductions,
    resizing,
    shapes,
    sizes,
)
from lmjax.models.pytorch.ops.table import find, supported

__all__ = [
    "activations",
    "creation",
    "elementwise",
    "find",
    "indexing",
    "normalisation",
    "padding",
    "pooling",
    "products",
    "reductions",
    "resizing",
    "shapes",
    "sizes",
    "supported",
]
