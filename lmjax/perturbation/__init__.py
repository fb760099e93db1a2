"""Masked variants of an image: segments, coalitions, and their evaluation by any predictor."""

from lmjax.perturbation import segments
from lmjax.perturbation.coalitions import Coalitions, random_keep
from lmjax.perturbation.evaluate import evaluate
from lmjax.perturbation.evaluate_images import ImageCoalitions, evaluate_images
from lmjax.perturbation.orders import prefixes, random_orders, salience_order, segment_salience
from lmjax.perturbation.predictor import Predictor
from lmjax.perturbation.samplers import (
    all_coalitions,
    bernoulli_keep,
    complement_pairs,
    numbered,
    quasi_random,
    quasi_random_keep,
    shapley_keep,
    shapley_kernel,
)
from lmjax.perturbation.target import resolve_target

__all__ = [
    "Coalitions",
    "ImageCoalitions",
    "Predictor",
    "all_coalitions",
    "bernoulli_keep",
    "complement_pairs",
    "evaluate",
    "evaluate_images",
    "numbered",
    "prefixes",
    "quasi_random",
    "quasi_random_keep",
    "random_keep",
    "random_orders",
    "resolve_target",
    "salience_order",
    "segment_salience",
    "segments",
    "shapley_keep",
    "shapley_kernel",
]
