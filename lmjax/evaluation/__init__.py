"""Evaluation of masked variants by any predictor."""

from lmjax.evaluation.calibration import calibrate
from lmjax.evaluation.comparison import EngineComparison, compare_engines
from lmjax.evaluation.evaluator import Evaluator, as_evaluator, as_predictor, evaluate
from lmjax.evaluation.predictor import Predictor
from lmjax.evaluation.target import resolve_target

__all__ = [
    "EngineComparison",
    "Evaluator",
    "Predictor",
    "as_evaluator",
    "as_predictor",
    "calibrate",
    "compare_engines",
    "evaluate",
    "resolve_target",
]
