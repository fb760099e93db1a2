"""The outputs of a predictor to differentiate, for gradient methods and optimised masks."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import Game, Payoffs
from lmjax.evaluation.evaluator import Evaluator, as_evaluator, as_predictor
from lmjax.evaluation.jobs import Static, split
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.outputs import as_output
from lmjax.evaluation.requests import answered
from lmjax.masks.families import Masks


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays", "targets"],
    meta_fields=["static", "objective"],
)
@dataclasses.dataclass(frozen=True)
class Outputs:
    """The outputs to differentiate, as a pytree: weights are arguments of compiled functions.

    Attributes:
      arrays: of the predictor.
      targets: ints `[T]`, which of the outputs.
      static: everything else of the predictor.
      objective: one of `lmjax.evaluation.outputs.OUTPUTS`; the values of a function are as logits.
    """

    arrays: list[jax.Array]
    targets: jax.Array | np.ndarray
    static: Static
    objective: str

    @property
    def predictor(self) -> Callable:
        """The predictor, put together again."""
        return self.static.predictor(self.arrays)

    def of(self, logits: jax.Array) -> jax.Array:
        """Returns logits `[..., K]` as float32 outputs."""
        return as_output(logits.astype(jnp.float32), self.objective)

    def whole(self, image: jax.Array) -> jax.Array:
        """Returns the targets' outputs `[T]` for the whole image."""
        # Hidden from the compiler, which would spend seconds on folding a constant mask.
        everything = jax.lax.optimization_barrier(jnp.ones((1, *image.shape[:2]), bool))
        return self.of(self.predictor(image, everything)[0])[self.targets]


class Problem(NamedTuple):
    """Outputs at an image.

    Attributes:
      outputs: to differentiate.
      image: float32 `[H, W, C]`.
      payoffs: of the whole image.
    """

    outputs: Outputs
    image: np.ndarray
    payoffs: Payoffs

    def attribution(
        self, scores: np.ndarray, *, num_variants: int, errors: np.ndarray | None = None
    ) -> Attribution:
        """Returns scores and errors `[T, H, W]` as an attribution.

        Raises:
          ValueError: NaN or infinity among the scores.
        """
        if not np.isfinite(scores).all():
            raise ValueError(
                "predictor has gradients that are NaN or infinite at this image; check its "
                "functions where they have no derivative, such as sqrt at 0, or try another "
                "baseline"
            )
        shape = (*self.payoffs.whole.shape, *scores.shape[1:])
        return Attribution(
            scores=np.array(scores, np.float32).reshape(shape),
            standard_error=None if errors is None else np.array(errors, np.float32).reshape(shape),
            num_variants=num_variants,
            **self.payoffs.prediction._asdict(),
        )


def make_problem(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None,
    objective: Objective,
) -> Problem:
    """Evaluates the whole image, and prepares what compiled functions take.

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, of which the engine plays no part.
      image, target, objective: as in `lmjax.attribution.game.Game`.

    Raises:
      ValueError: as `Game.payoffs`.
    """
    evaluator = dataclasses.replace(as_evaluator(predictor), engine="dense", progress=False)
    game = Game(evaluator, image, target=target, objective=objective)
    payoffs = answered(game.ask(Masks(np.ones((1, *game.shape), bool))))
    arrays, static = split(as_predictor(game.predictor))
    outputs = Outputs(arrays, game.columns(payoffs.prediction), static, game.values_of)
    return Problem(outputs, np.array(image, np.float32), payoffs)


def jacobian(function: Callable, x: jax.Array) -> jax.Array:
    """Returns the Jacobian `[T, ...]` of a function x -> `[T]`, computed a row at a time."""
    values, pull_back = jax.vjp(function, x)
    return jax.lax.map(lambda row: pull_back(row)[0], jnp.eye(len(values), dtype=values.dtype))
