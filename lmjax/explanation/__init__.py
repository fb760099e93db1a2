"""Explanations of one image: attribution methods under removals, as figure, arrays and record."""

from lmjax.explanation.compute import explain
from lmjax.explanation.config import ExplanationConfig
from lmjax.explanation.result import Explanation, Result

__all__ = ["Explanation", "ExplanationConfig", "Result", "explain"]
