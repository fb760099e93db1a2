"""The game that attribution methods analyse: parts of an image are its players.

A coalition of players is the set of parts that stay visible, and its payoff is the network's output
for the target (Shapley 1953; for networks Lundberg & Lee 2017). A method chooses coalitions, or
masks in general, and makes scores of their payoffs.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.probabilities import probabilities
from lmjax._utils.summary import brief
from lmjax.evaluation.evaluator import Evaluator, as_evaluator
from lmjax.evaluation.objectives import Measured, Objective, check_objective
from lmjax.evaluation.outputs import check_finite, output_values
from lmjax.evaluation.requests import Asking, Request
from lmjax.evaluation.target import resolve_target
from lmjax.masking.checks import check_image
from lmjax.masks.families import MaskFamily, WholeFirst
from lmjax.masks.segments import check_segments


class Prediction(NamedTuple):
    """The network's prediction for the whole image.

    Attributes:
      target: the class explained, or the T classes; of an objective that is a function, None, or
        for M values their numbers.
      probability: scalar or `[T]`, of the target; NaN where the objective is a function.
      predicted_class: the class with the highest logit; None where the objective is a function.
      predicted_probability: of that class; NaN where there is none.
    """

    target: int | tuple[int, ...] | None
    probability: np.ndarray
    predicted_class: int | None
    predicted_probability: np.ndarray

    @property
    def several(self) -> bool:
        """Whether several targets are explained."""
        return isinstance(self.target, tuple)


class Payoffs(NamedTuple):
    """The network's output for one target, or for T targets.

    Attributes:
      values: float32 `[N]` or `[N, T]`, of the variants.
      whole: scalar or `[T]`, of the whole image.
      prediction: for the whole image.
    """

    values: np.ndarray
    whole: np.ndarray
    prediction: Prediction

    @property
    def drops(self) -> np.ndarray:
        """The whole image's output minus that of each variant, float64 `[N]` or `[T, N]`."""
        return self.whole[..., None].astype(np.float64) - self.values.T


@dataclasses.dataclass(frozen=True, eq=False)
class Game:
    """An image, the network that looks at it, and the output to explain.

    Attributes:
      predictor: a predictor or an `lmjax.Evaluator`; kept as an evaluator.
      image: `[H, W, C]` floats in [0, 1].
      segments: `[H, W]` ints, labels 0..S-1, none missing: the players. None where masks are not
        made of segments.
      target: class or classes; None takes the predicted class. None where the objective is a
        function.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Raises:
      ValueError: another objective, shapes that do not match, or bad labels.
    """

    predictor: Callable | Evaluator
    image: ArrayLike
    segments: ArrayLike | None = None
    _: dataclasses.KW_ONLY
    target: int | Sequence[int] | None = None
    objective: Objective = "probability"

    def __post_init__(self):
        check_image(self.image)
        check_objective(self.objective)
        object.__setattr__(self, "predictor", self._evaluator())
        if self.segments is not None:
            object.__setattr__(self, "segments", check_segments(self.segments, self.shape))

    def _evaluator(self) -> Evaluator:
        """Returns the evaluator, of the objective's values where it is a function."""
        evaluator = as_evaluator(self.predictor)
        if not callable(self.objective):
            return evaluator
        if self.target is not None:
            raise ValueError(
                f"target must be None where the objective is a function, which says itself what it "
                f"is of, such as lmjax.objectives.margin({self.target}); got {brief(self.target)}"
            )
        measured = Measured(evaluator.predictor, self.objective)
        return dataclasses.replace(evaluator, predictor=measured)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return np.shape(self.image)[:2]

    @property
    def labels(self) -> np.ndarray:
        """The segments as checked, int32 `[H, W]`, of a game that has segments."""
        assert self.segments is not None, "a game without segments has no labels"
        return np.asarray(self.segments)

    @property
    def num_segments(self) -> int:
        """S, the number of players."""
        return int(self.labels.max()) + 1

    def ask(self, masks: MaskFamily, *, expected: int | None = None) -> Asking[Payoffs]:
        """Asks for the payoffs of variants of the image, and of the whole image in the same run.

        Args:
          masks: a family of masks.
          expected: as in a call of an `lmjax.Evaluator`.

        Raises:
          ValueError: a target that is not a class of the network (before the run), non-finite
            outputs, and all that an evaluator raises.
        """
        logits = yield self._request(WholeFirst(masks), expected)
        prediction = self._prediction(logits[0])
        values = self._values(logits, prediction)
        return Payoffs(values[1:], values[0], prediction)

    def ask_more(
        self, masks: MaskFamily, prediction: Prediction, *, expected: int | None = None
    ) -> Asking[np.ndarray]:
        """Asks for the payoffs `[N]` or `[N, T]` of further variants, without the whole image.

        Args:
          masks, expected: as in `ask`.
          prediction: that `ask` has returned.

        Raises:
          ValueError: as `ask`.
        """
        logits = yield self._request(WholeFirst(masks, first=False), expected)
        return self._values(logits, prediction)

    def _request(self, masks: MaskFamily, expected: int | None) -> Request:
        return Request(as_evaluator(self.predictor), self.image, masks, self.target, expected)

    def _values(self, logits: np.ndarray, prediction: Prediction) -> np.ndarray:
        """Returns the payoffs `[N]` or `[N, T]` that logits `[N, K]` make."""
        values = output_values(logits, self.values_of)[:, self.columns(prediction)]
        check_finite(values, "objective" if callable(self.objective) else "predictor")
        return values if prediction.several else values[:, 0]

    @property
    def values_of(self) -> str:
        """Which of `OUTPUTS` the payoffs are of the evaluator's logits."""
        return "logit" if callable(self.objective) else self.objective

    def columns(self, prediction: Prediction) -> np.ndarray:
        """Returns which of the evaluator's logits are explained, `[T]`."""
        return np.array([0]) if prediction.target is None else np.atleast_1d(prediction.target)

    def _prediction(self, logits: np.ndarray) -> Prediction:
        """Returns the prediction that the evaluator's logits `[K]` of the whole image make."""
        if callable(self.objective):
            target = None if len(logits) == 1 else tuple(range(len(logits)))
            unknown = np.full(np.shape(target) if target else (), np.nan, np.float32)
            return Prediction(target, unknown, None, np.array(np.nan, np.float32))
        target = resolve_target(self.target, logits)
        shares, predicted = np.asarray(probabilities(jnp.asarray(logits))), int(np.argmax(logits))
        return Prediction(target, shares[np.asarray(target)], predicted, shares[predicted])
