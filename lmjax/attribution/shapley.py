"""Shapley values of segments: exact for few segments, and estimated from permutations.

Segments are the players of a game whose payoff is the network's output when only they are visible.
The Shapley value of a segment is its mean contribution to the segments before it, over all orders
in which segments can appear (Shapley 1953). The values sum to the output for the whole image minus
that for nothing visible.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_flag
from lmjax._utils.renamed import renamed
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.budget import Cost
from lmjax.attribution.draws import Draws
from lmjax.attribution.game import Game, Prediction
from lmjax.attribution.record import recorded
from lmjax.attribution.sampling import (
    Estimate,
    Samples,
    Sampling,
    check_drawn,
    check_same_game,
    run,
    samples_of,
)
from lmjax.attribution.stopping import Until
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.coalitions import Coalitions
from lmjax.masks.orders import prefixes, random_orders
from lmjax.masks.samplers import all_coalitions

_MOST_SEGMENTS = 12
_FIRST_CHECK = 8


@renamed(output="objective")
@over_images
@recorded
def exact_shapley(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    segments: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Computes Shapley values from all 2^S coalitions of up to 12 segments.

    Cost: 2^S evaluations.

    Example:
      >>> found = lmjax.attribution.exact_shapley(predictor, image, segments)
      >>> found.scores.shape, found.num_variants
      ((4,), 16)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      segments: `[H, W]` ints, labels 0..S-1, none missing; S at most 12.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several.

    Raises:
      ValueError: more than 12 segments, target not a class of the network, non-finite outputs, and
        all that `lmjax.evaluate` raises.

    References:
      Shapley 1953, "A value for n-person games".
    """
    game = Game(predictor, image, segments, target=target, objective=objective)
    if game.num_segments > _MOST_SEGMENTS:
        raise ValueError(
            f"segments must be at most {_MOST_SEGMENTS}, as 2^S coalitions are evaluated; got "
            f"{game.num_segments}; take kernelshap or permutation_shapley, or fewer segments: "
            f"lmjax.segments.merge(image, segments, num_segments={_MOST_SEGMENTS})"
        )
    return from_all_coalitions(game, shapley_weights(game.num_segments))


@renamed(output="objective")
@over_images
@recorded
def permutation_shapley(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    segments: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    num_permutations: int | None = None,
    evaluations: int | None = None,
    antithetic: bool = True,
    until: Until | None = None,
    previous: Attribution | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Estimates Shapley values from random orders in which the segments appear.

    For any number of orders, the scores sum to the output for the whole image minus that for
    nothing visible.

    Cost: 2 `num_permutations` (S - 1) + 2 evaluations, without `antithetic` half of them.

    Example:
      >>> found = lmjax.attribution.permutation_shapley(predictor, image, segments, key=key)
      >>> found.scores.shape, found.num_variants
      ((4,), 152)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      key: random key; the same key gives the same scores.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      num_permutations: random orders, 2 or more, including those of `previous`. None takes 25,
        Captum's number (`ShapleyValueSampling`); one costs S - 1 variants, twice that
        if antithetic.
      evaluations: upper limit on evaluations, the whole image included; give it instead of
        `num_permutations` to compare methods at equal cost.
      antithetic: also follow each order backwards, which cancels interactions of two segments.
      until: (scores, standard errors) -> whether to stop, for example `stable_ranking(5)`; asked
        from 8 orders on. None takes all orders.
      previous: attribution of the same call with fewer orders, to continue.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores and standard errors `[S]` for one target, `[T, S]` for several.

    Raises:
      ValueError: options out of range, `previous` that does not fit, target not a class of the
        network, non-finite outputs, and all that `lmjax.evaluate` raises.

    References:
      Castro, Gomez & Tejada 2009, "Polynomial calculation of the Shapley value based on sampling";
      Mitchell et al. 2022, "Sampling permutations for Shapley value estimation" (arXiv 2104.12199),
      for antithetic orders.
    """
    game = Game(predictor, image, segments, target=target, objective=objective)
    num_segments = game.num_segments
    ways = 2 if check_flag("antithetic", antithetic) else 1
    # Beside orders, of which that of one segment costs nothing: the whole image, nothing visible.
    cost = Cost(ways * (num_segments - 1), beside=2) if num_segments > 1 else Cost(beside=0)
    options = {"default": 25, "least": 2, "note": "standard errors need two"}
    num_permutations = cost.number("num_permutations", num_permutations, evaluations, **options)

    def orders(first: int, last: int) -> np.ndarray:
        one_way = random_orders(num_segments, last - first, key=key, first=first)
        return np.stack([one_way, one_way[:, ::-1]] if antithetic else [one_way], axis=1)

    def draw(first: int, last: int) -> Coalitions:
        keep = prefixes(orders(first, last)).reshape(-1, num_segments)
        empty = np.zeros((1 if first == 0 else 0, num_segments), bool)
        return Coalitions(game.labels, np.concatenate([empty, keep]))

    def estimate(samples: Samples) -> Estimate:
        empty, values = samples.values[0], samples.values[1:]
        scores = contributions(orders(0, samples.count), values, empty, samples.whole)
        return Estimate(scores.mean(axis=0), scores.std(axis=0, ddof=1) / math.sqrt(len(scores)))

    settings = ("permutation_shapley", ("antithetic", bool(antithetic)))
    return run(
        Sampling(draw, estimate, key, settings, _FIRST_CHECK),
        game,
        num_permutations,
        expected=num_permutations * ways * (num_segments - 1) + 2,
        until=until,
        previous=previous,
    )


def contributions(
    orders: np.ndarray, values: np.ndarray, empty: np.ndarray, whole: np.ndarray
) -> np.ndarray:
    """Returns what each segment adds where it appears, averaged over the orders of a sample.

    Args:
      orders: `[N, R, S]`, R orders for each sample.
      values: `[N * R * (S - 1), T]`, of the prefixes of the orders.
      empty: `[T]`, value with nothing visible.
      whole: `[T]`, value with everything visible.

    Returns:
      float64 `[N, T, S]`.
    """
    *samples, size = orders.shape
    values = values.astype(np.float64).reshape(*samples, size - 1, len(empty))
    ends = [np.broadcast_to(end, (*samples, 1, len(end))) for end in (empty, whole)]
    added = np.diff(np.concatenate([ends[0], values, ends[1]], axis=2), axis=2)
    added = np.take_along_axis(added, np.argsort(orders, axis=-1)[..., None], axis=2)
    return added.mean(axis=1).swapaxes(1, 2)


def shapley_weights(num_segments: int) -> np.ndarray:
    """Returns weights `[2^S, S]` by which the payoffs of `all_coalitions` sum to Shapley values.

    A coalition of k segments has weight (k - 1)! (S - k)! / S! for its members, and
    -k! (S - k - 1)! / S! for the other segments.
    """
    factorial = np.array([math.factorial(k) for k in range(num_segments + 1)], float)
    keep = all_coalitions(num_segments)
    size = keep.sum(axis=1, keepdims=True)
    within = factorial[np.maximum(size - 1, 0)] * factorial[num_segments - size]
    without = factorial[size] * factorial[np.maximum(num_segments - size - 1, 0)]
    return np.where(keep, within, -without) / factorial[-1]


def from_all_coalitions(
    game: Game, weights: np.ndarray, *, errors: bool = False
) -> Asking[Attribution]:
    """Computes scores that are weighted sums of the payoffs of all coalitions.

    Args:
      game: of S segments.
      weights: `[2^S, S]`, of the rows of `all_coalitions`.
      errors: give standard errors, which are 0.
    """
    keep = all_coalitions(weights.shape[1])
    # The last coalition is the whole image, which is evaluated in any case.
    payoffs = yield from game.ask(Coalitions(game.labels, keep[:-1]))
    values = np.concatenate([payoffs.values, payoffs.whole[None]]).astype(np.float64)
    scores = (values.T @ weights).astype(np.float32)
    return Attribution(
        scores=scores,
        standard_error=np.zeros_like(scores) if errors else None,
        segments=game.labels,
        num_variants=len(keep),
        **payoffs.prediction._asdict(),
    )


def from_drawn_coalitions(
    game: Game, previous: Attribution, draws: Draws, key: jax.Array
) -> Asking[Attribution]:
    """Computes Shapley values from the samples of another method, where they hold all coalitions.

    Args:
      game: of S segments.
      previous: attribution that has samples.
      draws: of its coalitions.
      key: with which they were drawn.

    Raises:
      ValueError: coalitions are missing, or `previous` is of another game or key.
    """
    samples = samples_of(previous)
    check_drawn(previous, key, game)
    count = game.num_segments
    keep = draws.draw(count, 0, samples.count - draws.whole, key)
    keep = np.concatenate([keep, np.ones((1, count), bool)])  # the whole image
    rows, places = np.unique(np.packbits(keep, axis=1), axis=0, return_index=True)
    if len(rows) < 2**count:
        raise ValueError(
            f"previous by {samples.settings[0]} holds {len(rows):,} of the 2^{count} coalitions of "
            f"{count} segments, and Shapley values need them all; call without previous=, which "
            "draws small and large coalitions, those that weigh most"
        )
    if game.target is None and not callable(game.objective):
        game = dataclasses.replace(game, target=previous.target)
    yield from check_same_game(previous, Coalitions(game.labels, keep[:-1]), game)
    values = np.concatenate([samples.values, samples.whole[None]]).astype(np.float64)
    table = dict(zip(map(bytes, rows), values[places]))
    every = np.stack([table[bytes(row)] for row in np.packbits(all_coalitions(count), axis=1)])
    scores = (every.T @ shapley_weights(count)).astype(np.float32)
    scores = scores if isinstance(previous.target, tuple) else scores[0]
    kept = {name: getattr(previous, name) for name in Prediction._fields}
    return Attribution(
        scores=scores,
        standard_error=np.zeros_like(scores),
        segments=game.labels,
        num_variants=previous.num_variants,
        **kept,
    )
