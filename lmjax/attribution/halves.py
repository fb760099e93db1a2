"""The two halves of a network, before and behind a layer."""

from collections.abc import Callable
from typing import Any

from lmjax._utils.summary import brief
from lmjax.evaluation.evaluator import Evaluator, as_predictor

Halves = tuple[Callable, Callable]
"""(features, head): image `[H, W, C]` -> activations `[h, w, D]` -> logits `[K]`."""


def choose_halves(halves: Halves | None, predictor: Callable | Evaluator) -> Halves:
    """Returns checked halves, or for None those behind the last layer with positions.

    Raises:
      ValueError: halves that are not two functions, a predictor whose network cannot be cut.
    """
    if halves is not None:
        return _check_halves(halves)
    classifier: Any = getattr(as_predictor(predictor), "classifier", None)
    if not callable(getattr(classifier, "cut", None)):
        raise ValueError(
            "predictor has no network that can be cut behind a layer, as an lmjax.Predictor of a "
            "classifier of lmjax.models has; where there is an option halves, give the two parts"
        )
    return classifier.cut()


def _check_halves(halves: Any) -> Halves:
    """Returns the halves; raises ValueError unless they are two functions."""
    if not isinstance(halves, tuple | list) or len(halves) != 2 or not all(map(callable, halves)):
        raise ValueError(
            "halves must be two functions (features, head), such as classifier.cut() gives; got "
            f"{brief(halves)}"
        )
    features, head = halves
    return features, head
