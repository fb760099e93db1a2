"""Masked variants of an image: segments, coalitions, and their evaluation by any predictor."""

from lmjax.perturbation import segments
from lmjax.perturbation.coalitions import Coalitions, random_keep
from lmjax.perturbation.evaluate import evaluate
from lmjax.perturbation.predictor import Predictor
from lmjax.perturbation.target import resolve_target

__all__ = ["Coalitions", "Predictor", "evaluate", "random_keep", "resolve_target", "segments"]
