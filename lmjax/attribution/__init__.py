"""Attributions: which parts of an image a prediction depends on."""

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.lime import lime, lime_regression

__all__ = ["Attribution", "lime", "lime_regression"]
