"""Shapley values of segments: exact ones of few segments, and estimates from permutations.

Segments are players of a game whose value is the network's output when only they are visible. The
Shapley value of a segment is its mean contribution to those that came before it, over all orders in
which segments can appear (Shapley 1953). The values sum to the output for the whole image minus
that for nothing visible.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import answer
from lmjax.attribution.sampling import Estimate, Samples, Sampling, Until, run
from lmjax.masking.checks import check_image
from lmjax.masks.coalitions import Coalitions
from lmjax.masks.orders import prefixes, random_orders
from lmjax.masks.samplers import all_coalitions
from lmjax.masks.segments import check_segments

_MOST_SEGMENTS = 12
_FIRST_CHECK = 8


def exact_shapley(
    predictor: Callable,
    image,
    segments,
    *,
    target: int | Sequence[int] | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Shapley values from all 2^S coalitions of up to 12 segments.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      segments: `[H, W]` ints, labels 0..S-1, none missing; S at most 12.
      target: class or classes to explain; None explains the predicted class. Several cost no more
        evaluations than one.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several.

    Raises:
      ValueError: more than 12 segments, target not a class of the network, non-finite outputs, and
        all that `lmjax.evaluate` raises.

    References:
      Shapley 1953, "A value for n-person games".
    """
    check_image(image)
    segments = check_segments(segments, np.shape(image)[:2])
    num_segments = int(segments.max()) + 1
    if num_segments > _MOST_SEGMENTS:
        raise ValueError(
            f"segments must be at most {_MOST_SEGMENTS}, as 2^S coalitions are evaluated; got "
            f"{num_segments}; take kernelshap or permutation_shapley, or fewer segments: "
            f"lmjax.segments.merge(image, segments, num_segments={_MOST_SEGMENTS})"
        )
    ask = functools.partial(
        answer,
        predictor,
        image,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )
    return from_all_coalitions(shapley_weights(num_segments), segments, ask)


def permutation_shapley(
    predictor: Callable,
    image,
    segments,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    num_permutations: int = 25,
    antithetic: bool = True,
    until: Until | None = None,
    previous: Attribution | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Shapley values estimated from random orders in which the segments appear.

    The scores sum to the output for the whole image minus that for nothing visible, whatever the
    number of orders.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      key: random key; the same key gives the same scores.
      target: class or classes to explain; None explains the predicted class. Several cost no more
        evaluations than one.
      num_permutations: random orders, 2 or more, with those of `previous`. 25 is Captum's
        (`ShapleyValueSampling`); one costs S - 1 variants, or twice that where antithetic.
      antithetic: follow each order backwards too, which cancels interactions of two segments.
      until: (scores, standard errors) -> stop, for example `stable_ranking(5)`: asked from 8 orders
        on. None takes all orders.
      previous: attribution of the same call with fewer orders, to go on from.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

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
    check_image(image)
    segments = check_segments(segments, np.shape(image)[:2])
    num_segments = int(segments.max()) + 1
    if num_permutations < 2 or num_permutations != int(num_permutations):
        raise ValueError(
            f"num_permutations must be a whole number, 2 or more for standard errors; got "
            f"{num_permutations!r}"
        )

    def orders(first: int, last: int) -> np.ndarray:
        one_way = random_orders(num_segments, last - first, key=key, first=first)
        return np.stack([one_way, one_way[:, ::-1]] if antithetic else [one_way], axis=1)

    def draw(first: int, last: int) -> Coalitions:
        keep = prefixes(orders(first, last)).reshape(-1, num_segments)
        empty = np.zeros((1 if first == 0 else 0, num_segments), bool)
        return Coalitions(segments, np.concatenate([empty, keep]))

    def estimate(samples: Samples) -> Estimate:
        empty, values = samples.values[0], samples.values[1:]
        scores = contributions(orders(0, samples.count), values, empty, samples.whole)
        return Estimate(scores.mean(axis=0), scores.std(axis=0, ddof=1) / math.sqrt(len(scores)))

    settings = ("permutation_shapley", ("antithetic", bool(antithetic)))
    ask = functools.partial(
        answer,
        predictor,
        image,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )
    return run(
        Sampling(draw, estimate, settings, _FIRST_CHECK),
        ask,
        int(num_permutations),
        key=key,
        segments=segments,
        until=until,
        previous=previous,
    )


def contributions(
    orders: np.ndarray, values: np.ndarray, empty: np.ndarray, whole: np.ndarray
) -> np.ndarray:
    """What each segment adds where it appears, the mean over the orders of a sample.

    Args:
      orders: `[N, R, S]`, R orders a sample.
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
    """Weights `[2^S, S]` that make Shapley values of the values of `all_coalitions`.

    A coalition of k segments counts (k - 1)! (S - k)! / S! for those in it, and
    -k! (S - k - 1)! / S! for the others.
    """
    factorial = np.array([math.factorial(k) for k in range(num_segments + 1)], float)
    keep = all_coalitions(num_segments)
    size = keep.sum(axis=1, keepdims=True)
    within = factorial[np.maximum(size - 1, 0)] * factorial[num_segments - size]
    without = factorial[size] * factorial[np.maximum(num_segments - size - 1, 0)]
    return np.where(keep, within, -without) / factorial[-1]


def from_all_coalitions(weights: np.ndarray, segments: np.ndarray, ask: Callable) -> Attribution:
    """Scores that are sums over all coalitions.

    Args:
      weights: `[2^S, S]`, of the rows of `all_coalitions`.
      segments: `[H, W]`.
      ask: answers to variants, as in `run`.
    """
    keep = all_coalitions(weights.shape[1])
    answers = ask(Coalitions(segments, keep[:-1]))  # the last is the whole image
    values = np.concatenate([answers.values, answers.whole[None]]).astype(np.float64)
    return Attribution(
        scores=np.float32(values.T @ weights),
        segments=segments,
        num_variants=len(keep),
        **answers.about(),
    )
