"""Explanations of one image: attribution methods under removals, as figure, arrays and record."""

from lmjax.explanation.compute import explain
from lmjax.explanation.render import Explanation, Result, summary

__all__ = ["Explanation", "Result", "explain", "summary"]
