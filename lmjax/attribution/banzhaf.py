"""Banzhaf values of segments: mean contribution to a coalition of which all are equally likely."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import answer
from lmjax.attribution.sampling import Estimate, Samples, Sampling, Until, run
from lmjax.attribution.shapley import from_all_coalitions
from lmjax.masking.checks import check_image
from lmjax.masks.coalitions import Coalitions
from lmjax.masks.samplers import all_coalitions, bernoulli_keep
from lmjax.masks.segments import check_segments

_FEWEST_SAMPLES = 32


def banzhaf(
    predictor: Callable,
    image,
    segments,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    num_samples: int = 1000,
    until: Until | None = None,
    previous: Attribution | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Banzhaf values: how much higher the output is, on average, where a segment is visible.

    Every segment is visible in half of the coalitions, independently, and every coalition is used
    for all segments: the mean output with a segment minus the mean output without it. Where
    `num_samples` allows all 2^S coalitions, they are evaluated once each, and the values are exact.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      key: random key; the same key gives the same scores.
      target: class or classes to explain; None explains the predicted class. Several cost no more
        evaluations than one.
      num_samples: coalitions, 32 or more, with those of `previous`. 1000 is LIME's number.
      until: (scores, standard errors) -> stop, for example `stable_ranking(5)`: asked from 32
        coalitions on. None takes all.
      previous: attribution of the same call with fewer coalitions, to go on from. Not needed, and
        not used, where all coalitions are evaluated.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

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
    check_image(image)
    segments = check_segments(segments, np.shape(image)[:2])
    num_segments = int(segments.max()) + 1
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
    if num_samples >= 2**num_segments:
        signs = np.where(all_coalitions(num_segments), 1, -1)
        exact = from_all_coalitions(signs / 2 ** (num_segments - 1), segments, ask)
        return dataclasses.replace(exact, standard_error=np.zeros_like(exact.scores))
    if num_samples < _FEWEST_SAMPLES or num_samples != int(num_samples):
        raise ValueError(
            f"num_samples must be a whole number, {_FEWEST_SAMPLES} or more, got {num_samples!r}"
        )

    def keep(first: int, last: int) -> np.ndarray:
        return bernoulli_keep(num_segments, last - first, key=key, first=first)

    def draw(first: int, last: int) -> Coalitions:
        return Coalitions(segments, keep(first, last))

    def estimate(samples: Samples) -> Estimate:
        return reuse_all(keep(0, samples.count), samples.values)

    return run(
        Sampling(draw, estimate, ("banzhaf",), _FEWEST_SAMPLES),
        ask,
        int(num_samples),
        key=key,
        segments=segments,
        until=until,
        previous=previous,
    )


def reuse_all(keep: np.ndarray, values: np.ndarray) -> Estimate:
    """Mean value with each segment minus mean value without it, and the standard error.

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
    """Means `[T, S]` over the coalitions of each segment's group `[N, S]`, and their variances."""
    count = group.sum(axis=0)
    mean = values.T @ group / count
    variance = np.maximum((values**2).T @ group / count - mean**2, 0)
    return mean, variance / (count - 1)
