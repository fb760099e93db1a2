"""Explanations of images: attribution methods under removals, as figure, arrays and record."""

from lmjax.explanation.compute import explain
from lmjax.explanation.config import ExplanationConfig
from lmjax.explanation.result import Explanation, Explanations, Failure, Result
from lmjax.explanation.variants import Variant

__all__ = [
    "Explanation",
    "ExplanationConfig",
    "Explanations",
    "Failure",
    "Result",
    "Variant",
    "explain",
]
