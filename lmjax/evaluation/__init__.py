"""Evaluation of masked variants by any predictor."""

from lmjax.evaluation.evaluate_images import ImageCoalitions, evaluate_images
from lmjax.evaluation.evaluator import Evaluator, as_evaluator, as_predictor, evaluate
from lmjax.evaluation.predictor import Predictor
from lmjax.evaluation.target import resolve_target

__all__ = [
    "Evaluator",
    "ImageCoalitions",
    "Predictor",
    "as_evaluator",
    "as_predictor",
    "evaluate",
    "evaluate_images",
    "resolve_target",
]
