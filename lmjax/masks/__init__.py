"""Masks of an image: segments, coalitions of them, other families, and samplers."""

from lmjax.masks import segments
from lmjax.masks.coalitions import Coalitions, ImageCoalitions, random_keep
from lmjax.masks.families import MaskFamily
from lmjax.masks.orders import prefixes, random_orders, salience_order, segment_salience
from lmjax.masks.samplers import (
    all_coalitions,
    bernoulli_keep,
    complement_pairs,
    numbered,
    quasi_random,
    quasi_random_keep,
    shapley_keep,
    shapley_kernel,
)

__all__ = [
    "Coalitions",
    "ImageCoalitions",
    "MaskFamily",
    "all_coalitions",
    "bernoulli_keep",
    "complement_pairs",
    "numbered",
    "prefixes",
    "quasi_random",
    "quasi_random_keep",
    "random_keep",
    "random_orders",
    "salience_order",
    "segment_salience",
    "segments",
    "shapley_keep",
    "shapley_kernel",
]
