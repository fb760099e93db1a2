"""KernelSHAP: Shapley values as a regression on coalitions (Lundberg & Lee 2017).

Pairs of complementary coalitions are used throughout (Covert & Lee 2021). For a pair, the two
equations of the regression, v(z) = v(0) + z b and v(1 - z) = v(0) + (1 - z) b, hold together with
the constraint sum(b) = v(1) - v(0) exactly when v(z) - v(1 - z) = (2 z - 1) b: so a pair is one
equation, and the value of the empty coalition appears in the constraint alone.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.renamed import renamed
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.budget import Cost
from lmjax.attribution.draws import draws_of
from lmjax.attribution.game import Game
from lmjax.attribution.record import recorded
from lmjax.attribution.regression import regression
from lmjax.attribution.sampling import Estimate, Samples, Sampling, run
from lmjax.attribution.shapley import from_all_coalitions, from_drawn_coalitions, shapley_weights
from lmjax.attribution.stopping import Until
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.samplers import complement_pairs, shapley_keep, shapley_kernel

_FIRST_CHECK = 32  # pairs
_COST = Cost(beside=2)  # the whole image, and nothing visible


@renamed(output="objective")
@over_images
@recorded
def kernelshap(
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
    """Estimates Shapley values by a regression on pairs of coalitions from the Shapley kernel.

    The scores sum exactly to the output for the whole image minus that for nothing visible, both
    evaluated. The coalitions of one segment and of all but one are all evaluated, once each; the
    others are drawn. Where `num_samples` allows all 2^S - 2, each is evaluated once, and the values
    are exact.

    Cost: 2 S + 2 evaluations, and `num_samples` of coalitions; 2^S where that is fewer.

    Example:
      >>> found = lmjax.attribution.kernelshap(predictor, image, segments, key=key)
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
      num_samples: coalitions besides the empty one and the full one, 2 S + 4 or more, including
        those of `previous`; rounded down to an even number. None takes 2 S + 2048, as the `shap`
        package does.
      evaluations: upper limit on evaluations, the whole image included; give it instead of
        `num_samples` to compare methods at equal cost.
      until: (scores, standard errors) -> whether to stop, for example `stable_ranking(5)`; asked
        from 32 drawn pairs on. None takes all.
      previous: attribution of the same call with fewer samples, to continue. Not needed, and
        ignored, where all coalitions are evaluated. One by `lime` or `banzhaf` serves where it
        holds all coalitions, and the values are exact then; otherwise it is refused, as small and
        large coalitions, which weigh most, are those that it lacks.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores and standard errors `[S]` for one target, `[T, S]` for several.

    Raises:
      ValueError: options out of range, more segments than memory allows, `previous` that does not
        fit, target not a class of the network, non-finite outputs, and all that `lmjax.evaluate`
        raises.

    References:
      Lundberg & Lee 2017, "A unified approach to interpreting model predictions" (arXiv
      1705.07874), section 4.1; Covert & Lee 2021, "Improving KernelSHAP" (arXiv 2012.01536), for
      the exact constraint and for pairs. The constraint is solved exactly, as in the `shap` package
      and unlike Captum, where the empty and the full coalition have a weight of 1e6. Single
      segments are all evaluated as in the R package `kernelshap` with hybrid degree 1. The standard
      errors are those of a regression whose variances are unknown (MacKinnon & White 1985, HC3).
    """
    game = Game(predictor, image, segments, target=target, objective=objective)
    num_segments = game.num_segments
    exact = getattr(previous, "samples", False) is None  # of all coalitions: of no use here
    if previous is not None and not exact and (draws := draws_of(previous)) is not None:
        return from_drawn_coalitions(game, previous, draws, key)
    fewest = min(2 * num_segments + 4, 2**num_segments - 2)
    note = f"for {num_segments} segments"
    options = {"default": 2 * num_segments + 2048, "least": fewest, "note": note}
    num_samples = _COST.number("num_samples", num_samples, evaluations, **options)
    if num_samples >= 2**num_segments - 2:
        return from_all_coalitions(game, shapley_weights(num_segments), errors=True)
    # Four arrays of floats for the pairs, three for the normal equations.
    needed = 8 * num_segments * (2 * num_samples + 3 * num_segments)
    check_memory(needed, num_segments, num_samples)

    def drawn(first: int, last: int) -> np.ndarray:
        return shapley_keep(num_segments, last - first, key=key, smallest=2, first=first)

    def draw(first: int, last: int) -> Coalitions:
        return Coalitions(game.labels, evaluated_keep(drawn(first, last), first))

    def estimate(samples: Samples) -> Estimate:
        return estimate_from_pairs(drawn(0, samples.count), samples.values, samples.whole)

    return run(
        Sampling(draw, estimate, key, ("kernelshap",), _FIRST_CHECK),
        game,
        (num_samples - 2 * num_segments) // 2,
        expected=num_samples + 2,
        until=until,
        previous=previous,
    )


def evaluated_keep(drawn: np.ndarray, first: int = 0) -> np.ndarray:
    """Returns the coalitions that are evaluated: drawn ones `[N, S]` and their complements.

    Before the first of them (`first` = 0) are the empty one and all that show or hide one segment.
    """
    if first > 0:
        return complement_pairs(drawn)
    count = drawn.shape[1]
    pairs = complement_pairs(np.concatenate([np.eye(count, dtype=bool), drawn]))
    return np.concatenate([np.zeros((1, count), bool), pairs])


def estimate_from_pairs(drawn: np.ndarray, values: np.ndarray, whole: np.ndarray) -> Estimate:
    """Fits scores to all pairs that show or hide a single segment, and to drawn pairs.

    Args:
      drawn: `[N, S]` bool, one coalition of each drawn pair, from the kernel without the sizes 1
        and S - 1.
      values: `[1 + 2 (S + N), T]`, of the empty coalition and of the pairs, single segments first.
      whole: `[T]`, value of the full coalition.
    """
    count, num_segments = drawn.shape
    values = values.astype(np.float64)
    single = shapley_kernel(num_segments)[[0, -1]].sum()
    weights = np.repeat([single / num_segments, (1 - single) / count], [num_segments, count])
    keep = np.concatenate([np.eye(num_segments, dtype=bool), drawn])
    # An equation v(z) - v(1 - z) = (2 z - 1) b for each pair.
    fit = regression(2.0 * keep - 1, values[1::2] - values[2::2], weights, whole - values[0])
    only = slice(num_segments, None)  # the drawn pairs: the others are not random
    moved = fit.directions[only] * weights[only, None]
    residuals = fit.residuals[only] / (1 - fit.leverages[only, None])
    return Estimate(fit.scores, np.sqrt((residuals**2).T @ moved**2))
