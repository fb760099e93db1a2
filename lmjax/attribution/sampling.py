"""Methods that sample: standard errors, stopping early, and more samples later.

A method that samples is two pure functions, put together in `Sampling`:

- `draw(first, last)`: the variants of its samples number `first` to `last - 1`. Sample i depends on
  the key and on i alone (`lmjax.masks.numbered`), so it does not matter in which portions
  samples are drawn.
- `estimate(samples)`: scores and standard errors from the answers to all samples so far.

`run` does the rest: it draws, evaluates, asks `until` whether that is enough, and goes on. What it
keeps is the answers themselves, `Samples`, a few bytes for each variant; the variants can be drawn
again. They travel in `Attribution.samples`, so that the same call with a larger number and
`previous=` the attribution evaluates only what is new, and gives what one long run gives (to the
rounding of the network in batches).

`lmjax.attribution.banzhaf` is the shortest example. Where an estimate needs all masks again, sums
over them are kept as well: a third function, `add`, carries them from portion to portion
(`lmjax.attribution.rise`).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import Answers
from lmjax.masks.families import MaskFamily

# Two runs of a predictor on one image agree at least so well.
_SAME = {"rtol": 1e-3, "atol": 1e-4}

Until = Callable[[np.ndarray, np.ndarray], bool]


class Estimate(NamedTuple):
    """Scores and their standard errors, `[T, S]` both (or `[T, H, W]`); of a surrogate also its
    intercept and R^2, `[T]`."""

    scores: np.ndarray
    standard_error: np.ndarray
    intercept: np.ndarray | None = None
    r2: np.ndarray | None = None


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
      sums: what `Sampling.add` has added up, where the method has it; a pytree of arrays.
    """

    values: np.ndarray
    whole: np.ndarray
    key_data: np.ndarray
    count: int = dataclasses.field(metadata={"static": True})
    settings: tuple = dataclasses.field(metadata={"static": True})
    sums: Any = None


class Sampling(NamedTuple):
    """A method that samples.

    Attributes:
      draw: (first, last) -> variants of these samples, in order. With first = 0, what the method
        needs once, such as the empty coalition, comes before them; what has been evaluated before
        may be left out.
      estimate: `Samples` -> `Estimate`.
      settings: the method's name and whatever decides, besides the key, what sample i is; hashable.
      first_check: from how many samples on `until` is asked.
      growth: `until` is asked each time the samples have grown by this factor: so, however long the
        run, what is estimated in vain costs a few times the last estimate.
      add: (sums so far or None, variants, their values `[n, T]`) -> sums, for `Samples.sums`.
    """

    draw: Callable[[int, int], MaskFamily]
    estimate: Callable[[Samples], Estimate]
    settings: tuple
    first_check: int
    growth: float = 1.25
    add: Callable[[Any, MaskFamily, np.ndarray], Any] | None = None


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
      ask: answers to variants: `lmjax.attribution.game.answer` with all but the masks filled in.
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
        if samples is None or stop > samples.count:
            samples, about = _extend(samples, about, sampling, ask, stop, key_data)
        estimate = sampling.estimate(samples)
        enough = until is not None and stop >= sampling.first_check
        if enough and until(estimate.scores, estimate.standard_error):
            break
    several = np.ndim(about["target"]) > 0
    found = {
        name: np.asarray(value if several else value[0], np.float32)
        for name, value in estimate._asdict().items()
        if value is not None
    }
    return Attribution(
        **found,
        segments=segments,
        num_variants=len(samples.values) + 1,
        samples=samples,
        **about,
    )


def stable_ranking(top: int, *, errors: float = 2.0, cells: int | tuple[int, int] = 7) -> Until:
    """For `until`: stop when the highest segments and their order are unlikely to change.

    That is when each of the `top` segments is ahead of all that rank below it by more than
    `errors` standard errors of the difference (of independent scores), for all targets. Segments
    that are exactly equal and exactly known count as settled; others that are equal never do, so
    the number of samples remains the limit. The rule is asked many times in a run, so the ranking
    is wrong a little more often than one test would be.

    Scores of pixels are ranked as cells of an even grid, by their means: the order of neighbouring
    pixels, which nearly all masks show or hide together, is never settled and says nothing. The
    standard error of a cell is taken as the mean of its pixels', the most it can be.

    Args:
      top: how many segments (or cells), from the highest score down.
      errors: how many standard errors are enough.
      cells: of the grid along each side, or (h, w), for scores of pixels; 7 is RISE's. Finer than
        the masks, it has neighbours that are never settled either.

    Returns:
      Function (scores `[T, S]` or `[T, H, W]`, their standard errors) -> bool.

    Raises:
      ValueError: numbers out of range.
    """
    if top < 1 or top != int(top):
        raise ValueError(f"top must be a whole number, 1 or more, got {top!r}")
    grid = (cells, cells) if np.ndim(cells) == 0 else tuple(cells)
    if len(grid) != 2 or any(side < 1 or side != int(side) for side in grid):
        raise ValueError(f"cells must be a whole number or two, 1 or more, got {cells!r}")
    if not errors > 0:
        raise ValueError(f"errors must be above 0, got {errors!r}")

    def until(scores: np.ndarray, standard_error: np.ndarray) -> bool:
        if np.ndim(scores) == 3:
            scores, standard_error = (_cell_means(x, grid) for x in (scores, standard_error))
        order = np.argsort(-scores, axis=1)
        ranked = np.take_along_axis(scores, order, axis=1)
        variance = np.take_along_axis(standard_error, order, axis=1) ** 2
        lead = ranked[:, :top, None] - ranked[:, None, :]
        error = np.sqrt(variance[:, :top, None] + variance[:, None, :])
        below = np.arange(scores.shape[1])[None, :] > np.arange(lead.shape[1])[:, None]
        return bool((lead >= errors * error)[:, below].all())

    return until


def _cell_means(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Means `[T, C]` of maps `[T, H, W]` over an even grid, at most a cell for each pixel."""
    for axis, cells in zip((1, 2), grid):
        parts = np.array_split(maps, min(cells, maps.shape[axis]), axis=axis)
        maps = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    return maps.reshape(len(maps), -1)


def _extend(
    samples: Samples | None, about: dict, sampling: Sampling, ask: Callable, stop: int, key_data
) -> tuple[Samples, dict]:
    """Samples up to number `stop`, of which only the new are evaluated, and about the image."""
    variants = sampling.draw(0 if samples is None else samples.count, stop)
    if len(variants) == 0:
        return dataclasses.replace(samples, count=stop), about
    answers = ask(variants)
    new, whole = _with_targets(answers)
    values, sums = new, None
    if samples is not None:
        _check_same(answers.target, whole, about["target"], samples.whole)
        values, whole, sums = np.concatenate([samples.values, new]), samples.whole, samples.sums
    if sampling.add is not None:
        sums = sampling.add(sums, variants, new)
    return Samples(values, whole, key_data, stop, sampling.settings, sums), answers.about()


def _stops(count: int, num_samples: int, sampling: Sampling, until: Until | None) -> Iterator[int]:
    """Numbers of samples at which to estimate: where there are some already, and on."""
    if count and (until is not None or count == num_samples):
        yield count
    stop = sampling.first_check
    while until is not None and stop < num_samples:
        if stop > count:
            yield stop
        stop = int(np.ceil(sampling.growth * stop))
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
