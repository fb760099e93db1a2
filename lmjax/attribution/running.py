"""Methods that sample: standard errors, stopping early, and more samples later.

A method that samples is two pure functions, put together in `Sampling`:

- `draw(first, last)`: the variants of its samples number `first` to `last - 1`. Sample i depends on
  the key and on i alone (`lmjax.perturbation.numbered`), so it does not matter in which portions
  samples are drawn.
- `estimate(count, values, whole)`: scores and standard errors from the answers to the samples
  0 to `count - 1`.

`run` does the rest: it draws, evaluates, asks `until` whether that is enough, and goes on. What it
keeps is the answers themselves, `Samples`, a few bytes for each variant; the variants can be drawn
again. They travel in `Attribution.samples`, so that the same call with a larger number and
`previous=` the attribution evaluates only what is new, and gives what one long run gives (to the
rounding of the network in batches).

`lmjax.attribution.banzhaf` is the shortest example. Methods that score pixels do the same with
another family: `draw` makes one of `numbered` rows, `estimate` calls `weighted_sum` on it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from lmjax.attribution.answers import Answers
from lmjax.attribution.attribution import Attribution
from lmjax.perturbation.mask_families import MaskFamily

# `until` is asked each time the samples have grown by this factor: so, however long the run, what
# is estimated in vain costs a few times the last estimate.
_GROWTH = 1.25
# Two runs of a predictor on one image agree at least so well.
_SAME = {"rtol": 1e-3, "atol": 1e-4}

Until = Callable[[np.ndarray, np.ndarray], bool]


class Estimate(NamedTuple):
    """Scores and their standard errors, `[T, S]` both (or `[T, H, W]`)."""

    scores: np.ndarray
    standard_error: np.ndarray


class Sampling(NamedTuple):
    """A method that samples.

    Attributes:
      draw: (first, last) -> variants of these samples, in order. With first = 0, what the method
        needs once, such as the empty coalition, comes before them.
      estimate: (count, values `[N, T]` of all variants up to there, whole `[T]`) -> `Estimate`.
      settings: the method's name and whatever decides, besides the key, what sample i is; hashable.
      first_check: from how many samples on `until` is asked.
    """

    draw: Callable[[int, int], MaskFamily]
    estimate: Callable[[int, np.ndarray, np.ndarray], Estimate]
    settings: tuple
    first_check: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """What a run that samples has answers to so far.

    Attributes:
      values: float32 `[N, T]`, of the variants.
      whole: `[T]`, of the whole image.
      key_data: of the random key.
      count: how many samples these are.
      settings: as in `Sampling`.
    """

    values: np.ndarray
    whole: np.ndarray
    key_data: np.ndarray
    count: int = dataclasses.field(metadata={"static": True})
    settings: tuple = dataclasses.field(metadata={"static": True})


def run(
    sampling: Sampling,
    ask: Callable[[MaskFamily], Answers],
    num_samples: int,
    *,
    key: jax.Array,
    segments: np.ndarray | None = None,
    until: Until | None = None,
    previous: Attribution | None = None,
) -> Attribution:
    """Attribution from samples: as many as asked for, or as are enough.

    Args:
      sampling: the method.
      ask: answers to variants: `lmjax.attribution.answers.answer` with all but the masks filled in.
      num_samples: how many samples at most.
      key: random key that `sampling` draws with.
      segments: `[H, W]` of the attribution, where it has some.
      until: (scores, standard errors) -> whether they are good enough to stop, for example
        `stable_ranking(5)`; None takes all samples.
      previous: attribution of an earlier call to go on from; what differs is `num_samples`.

    Returns:
      `Attribution` with scores, standard errors and `samples`.

    Raises:
      ValueError: `previous` from another method, key, image or predictor, or with more samples.
    """
    key_data = np.asarray(jax.random.key_data(key))
    if previous is None:
        about, samples = {}, None
    else:
        about, samples = _resume(previous, sampling.settings, key_data, segments, num_samples)
    for stop in _stops(0 if samples is None else samples.count, num_samples, sampling, until):
        first = 0 if samples is None else samples.count
        if stop > first:
            answers = ask(sampling.draw(first, stop))
            values, whole = _with_targets(answers)
            if samples is not None:
                _check_same(answers.target, whole, about["target"], samples.whole)
                values, whole = np.concatenate([samples.values, values]), samples.whole
            about = answers.about()
            samples = Samples(values, whole, key_data, stop, sampling.settings)
        estimate = sampling.estimate(stop, samples.values, samples.whole)
        if until is not None and stop >= sampling.first_check and until(*estimate):
            break
    several = np.ndim(about["target"]) > 0
    scores, errors = (np.float32(x if several else x[0]) for x in estimate)
    return Attribution(
        scores=scores,
        standard_error=errors,
        segments=segments,
        num_variants=len(samples.values) + 1,
        samples=samples,
        **about,
    )


def stable_ranking(top: int, *, errors: float = 2.0) -> Until:
    """For `until`: stop when the highest segments and their order are unlikely to change.

    That is when each of the `top` segments is ahead of all that rank below it by more than
    `errors` standard errors of the difference (of independent scores), for all targets. Segments
    that are exactly equal and exactly known count as settled; others that are equal never do, so
    the number of samples remains the limit. The rule is asked many times in a run, so the ranking
    is wrong a little more often than one test would be.

    Args:
      top: how many segments, from the highest score down.
      errors: how many standard errors are enough.

    Returns:
      Function (scores `[T, S]`, standard errors `[T, S]`) -> bool.

    Raises:
      ValueError: numbers out of range.
    """
    if top < 1 or top != int(top):
        raise ValueError(f"top must be a whole number, 1 or more, got {top!r}")
    if not errors > 0:
        raise ValueError(f"errors must be above 0, got {errors!r}")

    def until(scores: np.ndarray, standard_error: np.ndarray) -> bool:
        scores = scores.reshape(len(scores), -1)
        order = np.argsort(-scores, axis=1)
        ranked = np.take_along_axis(scores, order, axis=1)
        variance = np.take_along_axis(standard_error.reshape(scores.shape), order, axis=1) ** 2
        lead = ranked[:, :top, None] - ranked[:, None, :]
        error = np.sqrt(variance[:, :top, None] + variance[:, None, :])
        below = np.arange(scores.shape[1])[None, :] > np.arange(lead.shape[1])[:, None]
        return bool((lead >= errors * error)[:, below].all())

    return until


def _stops(count: int, num_samples: int, sampling: Sampling, until: Until | None) -> Iterator[int]:
    """Numbers of samples at which to estimate: where there are some already, and on."""
    if count and (until is not None or count == num_samples):
        yield count
    stop = sampling.first_check
    while until is not None and stop < num_samples:
        if stop > count:
            yield stop
        stop = int(np.ceil(_GROWTH * stop))
    if count < num_samples:
        yield num_samples


def _with_targets(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Values `[N, T]` and whole `[T]`, for one target too."""
    whole = np.reshape(answers.whole, -1)
    return answers.values.reshape(len(answers.values), len(whole)), whole


def _resume(previous: Attribution, settings, key_data, segments, num_samples: int):
    """What is known about the image, and the samples so far."""
    samples = getattr(previous, "samples", None)
    if samples is None:
        raise ValueError(
            "previous must be an attribution with samples to go on from; it comes from a method "
            "that does not sample, or from a run that evaluated every coalition"
        )
    if samples.settings != settings:
        raise ValueError(f"previous was sampled by {samples.settings}, this call is {settings}")
    if not np.array_equal(samples.key_data, key_data):
        raise ValueError("previous was sampled with another key; go on with the same")
    if not np.array_equal(previous.segments, segments):
        raise ValueError("previous has other segments; go on with the same")
    if samples.count > num_samples:
        raise ValueError(
            f"previous has {samples.count} samples already, more than the {num_samples} asked for; "
            "the number is the total, with those of previous"
        )
    names = ("target", "probability", "predicted_class", "predicted_probability")
    return {name: getattr(previous, name) for name in names}, samples


def _check_same(target, whole, previous_target, previous_whole) -> None:
    if target != previous_target:
        raise ValueError(f"previous is for target {previous_target}, this call for {target}")
    if not np.allclose(whole, previous_whole, **_SAME):
        raise ValueError(
            f"previous is from another image, predictor or output: there the whole image gave "
            f"{previous_whole}, here {whole}"
        )
