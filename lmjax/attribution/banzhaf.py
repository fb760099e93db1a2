"""Banzhaf values of segments: mean contributions to coalitions, all being equally likely."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.renamed import renamed
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.budget import Cost
from lmjax.attribution.draws import banzhaf_draws, shared_draws
from lmjax.attribution.game import Game
from lmjax.attribution.record import recorded
from lmjax.attribution.sampling import Estimate, Samples, Sampling, run
from lmjax.attribution.shapley import from_all_coalitions
from lmjax.attribution.stopping import Until
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.coalitions import Coalitions
from lmjax.masks.samplers import all_coalitions

_FEWEST_SAMPLES = 32
_COST = Cost()


@renamed(output="objective")
@over_images
@recorded
def banzhaf(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    segments: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    num_samples: int | None = None,
    evaluations: int | None = None,
    until: Until | None = None,
    previous: Attribution | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Estimates Banzhaf values: the mean output with a segment minus the mean output without it.

    Every segment is visible in half of the coalitions, independently, and every coalition is used
    for all segments. Where `num_samples` allows all 2^S coalitions, each is evaluated once, and the
    values are exact.

    Cost: `num_samples` evaluations and one of the whole image; 2^S where that is fewer.

    Example:
      >>> found = lmjax.attribution.banzhaf(predictor, image, segments, key=key)
      >>> found.scores.shape, found.num_variants
      ((4,), 16)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      key: random key; the same key gives the same scores.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      num_samples: coalitions, 32 or more, including those of `previous`. None takes 1000, LIME's
        number.
      evaluations: upper limit on evaluations, the whole image included; give it instead of
        `num_samples` to compare methods at equal cost.
      until: (scores, standard errors) -> whether to stop, for example `stable_ranking(5)`; asked
        from 32 coalitions on. None takes all.
      previous: attribution of the same call with fewer coalitions, to continue; also one by `lime`
        with `keep_probability=0.5`, which draws alike. Not needed, and ignored, where all
        coalitions are evaluated.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores and standard errors `[S]` for one target, `[T, S]` for several.

    Raises:
      ValueError: options out of range, a segment that is always visible or never, `previous` that
        does not fit, target not a class of the network, non-finite outputs, and all that
        `lmjax.evaluate` raises.

    References:
      Banzhaf 1965, "Weighted voting doesn't work"; Wang & Jia 2023, "Data Banzhaf" (arXiv
      2205.15466), for the estimator: maximum sample reuse.
    """
    game = Game(predictor, image, segments, target=target, objective=objective)
    num_segments = game.num_segments
    least = min(_FEWEST_SAMPLES, 2**num_segments)
    if num_samples is None and evaluations == 2**num_segments:  # one of which is the whole image
        num_samples, evaluations = evaluations, None
    num_samples = _COST.number("num_samples", num_samples, evaluations, default=1000, least=least)
    if num_samples >= 2**num_segments:
        signs = np.where(all_coalitions(num_segments), 1, -1)
        return from_all_coalitions(game, signs / 2 ** (num_segments - 1), errors=True)

    draws = shared_draws(banzhaf_draws(), previous)

    def keep(first: int, last: int) -> np.ndarray:
        return draws.draw(num_segments, max(first - draws.whole, 0), last - draws.whole, key)

    def draw(first: int, last: int) -> Coalitions:
        return Coalitions(game.labels, keep(first, last))

    def estimate(samples: Samples) -> Estimate:
        return difference_of_means(keep(0, samples.count), samples.values)

    return run(
        Sampling(draw, estimate, key, draws.settings, _FEWEST_SAMPLES),
        game,
        num_samples + draws.whole,
        expected=num_samples + 1,
        until=until,
        previous=previous,
    )


def difference_of_means(keep: np.ndarray, values: np.ndarray) -> Estimate:
    """Returns the mean value with each segment minus the mean value without it.

    The estimator that Wang & Jia 2023 call maximum sample reuse.

    Args:
      keep: `[N, S]` bool.
      values: `[N, T]`.

    Raises:
      ValueError: a segment that is visible, or hidden, fewer than twice.
    """
    few = np.minimum(keep.sum(axis=0), (~keep).sum(axis=0)) < 2
    if few.any():
        raise ValueError(
            f"num_samples must be higher: of {len(keep)} coalitions, fewer than 2 show segment "
            f"{few.argmax()} or fewer than 2 hide it"
        )
    values = values.astype(np.float64) - values.mean(axis=0)  # digits for the variance
    means, variances = zip(*(_mean_and_variance(group, values) for group in (keep, ~keep)))
    return Estimate(means[0] - means[1], np.sqrt(variances[0] + variances[1]))


def _mean_and_variance(group: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns means `[T, S]` over each segment's group of coalitions `[N, S]`, and variances."""
    count = group.sum(axis=0)
    mean = values.T @ group / count
    variance = np.maximum((values**2).T @ group / count - mean**2, 0)
    return mean, variance / (count - 1)
