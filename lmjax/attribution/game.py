"""What every attribution method begins with: a predictor's answers for the classes to explain."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from lmjax._utils.checks import check_choice
from lmjax.evaluation.evaluator import Evaluator, as_evaluator
from lmjax.evaluation.target import check_target, resolve_target
from lmjax.masks.families import MaskFamily, WholeFirst

OUTPUTS = ("probability", "logit")


class Answers(NamedTuple):
    """A predictor's output for one class, or for T classes.

    Attributes:
      values: float32 `[N]` or `[N, T]`, of the variants.
      whole: scalar or `[T]`, of the whole image.
      target: the class, or the T classes.
      probability: scalar or `[T]`, of the target on the whole image.
      predicted_class: with the highest logit on the whole image.
      predicted_probability: of that class.
    """

    values: np.ndarray
    whole: np.ndarray
    target: int | tuple[int, ...]
    probability: np.ndarray
    predicted_class: int
    predicted_probability: np.ndarray

    def about(self) -> dict:
        """The fields that `Attribution` has too."""
        names = ("target", "probability", "predicted_class", "predicted_probability")
        return {name: getattr(self, name) for name in names}


def answer(
    predictor: Callable | Evaluator,
    image,
    masks: MaskFamily,
    *,
    target: int | Sequence[int] | None,
    output: str = "probability",
    expected: int | None = None,
) -> Answers:
    """Answers to variants of an image, and to the whole image in the same run.

    Args:
      predictor: a predictor or an `lmjax.Evaluator`.
      image, expected: as in a call of an evaluator.
      masks: a family of masks.
      target: class or classes; None takes the predicted class.
      output: "probability" (softmax over all classes) or "logit".

    Raises:
      ValueError: a target that is no class of the network (before the run), another output,
        non-finite answers, and all that an evaluator raises.
    """
    check_choice("output", output, OUTPUTS)
    evaluator, masks = as_evaluator(predictor), WholeFirst(masks)
    if target is not None:  # before the long run, not after it
        check_target(target, evaluator.num_classes(image, masks))
    logits = evaluator(image, masks, expected=expected)
    target = resolve_target(target, logits[0])
    probabilities = np.asarray(jax.nn.softmax(logits[0]))
    values = _values(logits, target, output)
    predicted = int(np.argmax(logits[0]))
    return Answers(
        values=values[1:],
        whole=values[0],
        target=target,
        probability=probabilities[np.asarray(target)],
        predicted_class=predicted,
        predicted_probability=probabilities[predicted],
    )


def as_output(logits: jax.Array, output: str) -> jax.Array:
    """What is explained, of logits `[..., K]`: one of `OUTPUTS`."""
    return jax.nn.softmax(logits) if output == "probability" else logits


def _values(logits: np.ndarray, target, output: str) -> np.ndarray:
    values = np.asarray(as_output(logits, output))[:, np.asarray(target)]
    finite = np.isfinite(values)
    if not finite.all():
        count = (~finite.reshape(len(values), -1).all(axis=1)).sum()
        raise ValueError(
            f"predictor gave NaN or infinity for {count} of {len(values)} variants; check its "
            "weights, and that its baseline reads no hidden NaN"
        )
    return values
