"""RISE: the mean of random masks, each weighted by the network's output under it.

Petsiuk, Das & Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models"
(arXiv 1806.07421).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_flag, check_number, check_pair
from lmjax._utils.renamed import renamed
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.budget import Cost
from lmjax.attribution.game import Game
from lmjax.attribution.record import recorded
from lmjax.attribution.sampling import Estimate, Samples, Sampling, run
from lmjax.attribution.stopping import Until
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.families import Grids, MaskFamily, random_grids, weighted_sum

_FIRST_CHECK = 100
_COST = Cost()


@renamed(output="objective")
@over_images
@recorded
def rise(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    num_samples: int | None = None,
    evaluations: int | None = None,
    grid: int | tuple[int, int] = 7,
    keep_probability: float = 0.5,
    soft: bool | None = None,
    until: Until | None = None,
    previous: Attribution | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Scores pixels by the expected output given that the pixel is visible.

    With soft masks m, as published: sum(f(m) m) / (N keep_probability), equation 6. Bilinear masks
    have no meaning where a mask says which positions are known: there (`lmjax.LayerMasking`) the
    same grids are binary, each pixel taking the value of its cell, and the score is the mean output
    over the variants that show the pixel, sum(f(m) m) / sum(m).

    Cost: `num_samples` + 1 evaluations.

    Example:
      >>> found = lmjax.attribution.rise(predictor, image, key=key, num_samples=60)
      >>> found.scores.shape, found.num_variants
      ((16, 16), 61)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      key: random key; the same key gives the same scores.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      num_samples: variants evaluated besides the whole image, 2 or more, including those of
        `previous`. None takes 4000.
      evaluations: upper limit on evaluations, the whole image included; give it instead of
        `num_samples` to compare methods at equal cost.
      grid: cells along each side, or (h, w).
      keep_probability: probability that a cell is visible, above 0 and below 1.
      soft: whether masks are soft. None asks the predictor (`soft_masks`); a plain function gets
        binary masks, which any function can take.
      until: (scores, standard errors) -> whether to stop, for example `stable_ranking(5)`, which
        ranks cells of a grid; asked from 100 variants on. None takes all.
      previous: attribution of the same call with fewer samples, to continue. Its `samples` hold
        sums over their masks: 2 T + 1 maps of doubles for binary masks, 2 T for soft ones.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores and standard errors `[H, W]` for one target, `[T, H, W]` for
      several. A pixel that no variant shows scores the mean output, with infinite standard error.

    Raises:
      ValueError: options out of range, `previous` that does not fit, target not a class of the
        network, non-finite outputs, and all that `lmjax.evaluate` raises.

    References:
      Petsiuk et al. 2018, section 3.2 for the masks, section 4 for the defaults (4000 samples for
      VGG16; ResNet-50 had 8000). The authors' code enlarges grids by a resize that mirrors at the
      border; here the outer half of a border cell has the cell's value.
    """
    game = Game(predictor, image, target=target, objective=objective)
    num_samples = _COST.number("num_samples", num_samples, evaluations, default=4000, least=2)
    grid = check_pair("grid", grid, most=game.shape, note="the image's height and width")
    keep_probability = check_number("keep_probability", keep_probability, above=0, below=1)
    soft = game.predictor.soft_masks if soft is None else check_flag("soft", soft)

    def draw(first: int, last: int) -> Grids:
        options = {"grid": grid, "keep_probability": keep_probability, "soft": soft}
        return random_grids(game.shape, last - first, key=key, first=first, **options)

    def estimate(samples: Samples) -> Estimate:
        return _expectation(samples, keep_probability) if soft else _mean_where_visible(samples)

    add = _add_soft if soft else _add_binary
    settings = ("grid", grid), ("keep_probability", keep_probability), ("soft", soft)
    return run(
        Sampling(draw, estimate, key, ("rise", *settings), _FIRST_CHECK, add=add),
        game,
        num_samples,
        expected=num_samples + 1,
        until=until,
        previous=previous,
    )


class Sums(NamedTuple):
    """Sums over masks m and their values f so far.

    Attributes:
      centre: `[T]`, subtracted from values, so that small differences keep their digits.
      totals: float64 `[2 T, H, W]`, sums of m (f - centre) and of their squares; for binary masks
        `[1 + 2 T, H, W]`, the sum of m before them.
    """

    centre: np.ndarray
    totals: np.ndarray


def _add_soft(sums: Sums | None, masks: MaskFamily, values: np.ndarray) -> Sums:
    """Adds soft masks and their values `[n, T]`."""
    new = [weighted_sum(masks, values), weighted_sum(_Squared(masks), values**2)]
    totals = 0 if sums is None else sums.totals
    return Sums(np.zeros(values.shape[1]), totals + np.concatenate(new, dtype=np.float64))


def _expectation(samples: Samples, keep_probability: float) -> Estimate:
    """Returns the mean of value times mask over the keep probability, `[T, H, W]`."""
    mean, square = np.split(samples.sums.totals / samples.count, 2)
    errors = np.sqrt(np.maximum(square - mean**2, 0) / (samples.count - 1))
    return Estimate(mean / keep_probability, errors / keep_probability)


def _add_binary(sums: Sums | None, masks: MaskFamily, values: np.ndarray) -> Sums:
    """Adds binary masks and their values `[n, T]`."""
    centre = values[:2].mean(axis=0) if sums is None else sums.centre
    new = weighted_sum(masks, np.c_[np.ones(len(masks)), values - centre, (values - centre) ** 2])
    return Sums(centre, (0 if sums is None else sums.totals) + new.astype(np.float64))


def _mean_where_visible(samples: Samples) -> Estimate:
    """Returns the mean value over the variants that show a pixel, `[T, H, W]`."""
    centre, (count, *sums) = samples.sums
    mean, square = np.split(np.stack(sums) / np.maximum(count, 1), 2)
    variance = np.maximum(square - mean**2, 0) / np.maximum(count - 1, 1)
    unseen = (samples.values.mean(axis=0) - centre)[:, None, None]
    mean = centre[:, None, None] + np.where(count > 0, mean, unseen)
    return Estimate(mean, np.where(count > 1, np.sqrt(variance), np.inf))


class _Squared(MaskFamily):
    """The squared masks of another family."""

    soft = True

    def __init__(self, family: MaskFamily):
        self.spatial_shape, self.shared, self.rows = (
            family.spatial_shape,
            family.shared,
            family.rows,
        )
        self.make = _SquaredMaker(family.make)


@dataclasses.dataclass(frozen=True)
class _SquaredMaker:
    """Makes the masks of `_Squared`."""

    make: Callable

    def __call__(self, shared: Any, rows: Any) -> jax.Array:
        return self.make(shared, rows) ** 2
