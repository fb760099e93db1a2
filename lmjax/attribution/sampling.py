"""The loop of methods that sample: standard errors, stopping early, and continuing later.

A method that samples is two pure functions, put together in `Sampling`:

- `draw(first, last)`: the variants of its samples number `first` to `last - 1`. Sample i depends on
  the key and on i alone (`lmjax.masks.numbered`), so the portions in which samples are drawn do not
  matter.
- `estimate(samples)`: scores and standard errors from the payoffs of all samples so far.

`run` does the rest: it draws, evaluates, asks `until` whether to stop, and draws more. It keeps the
payoffs, `Samples`, a few bytes for each variant; the variants can be drawn again. They travel in
`Attribution.samples`: the same call with a larger number and `previous=` the attribution evaluates
only new samples, and gives the result of one long run (to the rounding of the network in batches).
The whole image and a few of the old variants are evaluated again, to see that image, network and
removal are the same.

`lmjax.attribution.banzhaf` is the shortest example. An estimate that needs all masks again keeps
sums over them instead: a third function, `add`, updates them portion by portion
(`lmjax.attribution.rise`).
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax._utils.checks import check_function
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import Game, Payoffs, Prediction
from lmjax.attribution.stopping import Until
from lmjax.evaluation.requests import Asking
from lmjax.masks.families import MaskFamily, SomeFirst
from lmjax.masks.keys import hash_draws

# Variants that are evaluated again where a run goes on: those that change the output most.
_CHECKED_VARIANTS = 4
# Tolerance for two runs of a predictor on the same variants, in bfloat16 too: of an output, and of
# the largest change of the output, which another removal would move.
_OF_OUTPUT, _OF_CHANGE, _ATOL = 1e-2, 2e-2, 1e-4


class Estimate(NamedTuple):
    """Scores with their standard errors, from the samples so far.

    Attributes:
      scores: `[T, S]` or `[T, H, W]`.
      standard_error: in the shape of the scores.
      intercept: `[T]`, of a surrogate.
      r2: `[T]`, cross-validated, of a surrogate.
    """

    scores: np.ndarray
    standard_error: np.ndarray
    intercept: np.ndarray | None = None
    r2: np.ndarray | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Payoffs of the samples so far.

    Attributes:
      values: float32 `[N, T]`, of the variants.
      whole: `[T]`, of the whole image.
      key_data: of the random key.
      draws: fingerprint of the key's draws.
      count: number of samples.
      settings: as in `Sampling`.
      sums: result of `Sampling.add`, where the method has it; a pytree of arrays.
    """

    values: np.ndarray
    whole: np.ndarray
    key_data: np.ndarray
    draws: str = dataclasses.field(metadata={"static": True})
    count: int = dataclasses.field(metadata={"static": True})
    settings: tuple = dataclasses.field(metadata={"static": True})
    sums: Any = None


class Sampling(NamedTuple):
    """A method that samples.

    Attributes:
      draw: (first, last) -> variants of these samples, in order. With first = 0, variants that the
        method needs once, such as the empty coalition, come before them; variants that have been
        evaluated before may be left out.
      estimate: `Samples` -> `Estimate`.
      key: random key that `draw` uses.
      settings: the method's name and all options that, besides the key, determine sample i;
        hashable.
      first_check: number of samples from which `until` is asked.
      growth: `until` is asked each time the samples have grown by this factor: however long the
        run, the estimates before the last cost a few times the last one.
      add: (sums so far or None, variants, their values `[n, T]`) -> sums, for `Samples.sums`.
    """

    draw: Callable[[int, int], MaskFamily]
    estimate: Callable[[Samples], Estimate]
    key: jax.Array
    settings: tuple
    first_check: int
    growth: float = 1.25
    add: Callable[[Any, MaskFamily, np.ndarray], Any] | None = None

    @property
    def key_data(self) -> np.ndarray:
        """Data of the random key."""
        return np.asarray(jax.random.key_data(self.key))


def run(
    sampling: Sampling,
    game: Game,
    num_samples: int,
    *,
    expected: int,
    until: Until | None = None,
    previous: Attribution | None = None,
) -> Asking[Attribution]:
    """Samples until the number of samples is reached, or until they suffice.

    Args:
      sampling: the method.
      game: what it explains.
      num_samples: largest number of samples.
      expected: number of variants of a run of all samples. Every portion is planned for it.
      until: (scores, standard errors) -> whether to stop, for example `stable_ranking(5)`; None
        takes all samples.
      previous: attribution of an earlier call to continue, equal but for `num_samples`.

    Returns:
      `Attribution` with scores, standard errors and `samples`.

    Raises:
      ValueError: `previous` from another method, key, image, predictor or removal, or with more
        samples.
    """
    if until is not None:
        check_function("until", until, "of scores and standard errors, such as stable_ranking(5)")
    unchecked = previous
    state = None if previous is None else _resume(previous, sampling, game, num_samples)
    for stop in _stops(0 if state is None else state[0].count, num_samples, sampling, until):
        if state is None or stop > state[0].count:
            state = yield from _extend(state, sampling, game, stop, expected, unchecked)
            unchecked = None
        estimate = sampling.estimate(state[0])
        if until is None or stop < sampling.first_check:
            continue
        if until(estimate.scores, estimate.standard_error):
            break
    assert state is not None  # there is at least one stop
    if unchecked is not None:
        old = sampling.draw(0, state[0].count)
        yield from check_same_game(unchecked, old, game, expected=expected)
    return _attribution(estimate, *state, game)


def _attribution(
    estimate: Estimate, samples: Samples, prediction: Prediction, game: Game
) -> Attribution:
    """Returns an estimate as an attribution, without the axis T for a single target."""
    found = {
        name: np.asarray(value if prediction.several else value[0], np.float32)
        for name, value in estimate._asdict().items()
        if value is not None
    }
    return Attribution(
        **found,
        segments=None if game.segments is None else game.labels,
        num_variants=len(samples.values) + 1,
        samples=samples,
        **prediction._asdict(),
    )


def _extend(
    state: tuple[Samples, Prediction] | None,
    sampling: Sampling,
    game: Game,
    stop: int,
    expected: int,
    unchecked: Attribution | None,
) -> Asking[tuple[Samples, Prediction]]:
    """Returns samples up to number `stop`, evaluating only new ones, and the prediction.

    Where the samples are those of an earlier result that is unchecked, so is that it is of this
    game (`check_same_game`), in the same run.
    """
    variants = sampling.draw(0 if state is None else state[0].count, stop)
    if state is not None and unchecked is None and len(variants) == 0:
        return dataclasses.replace(state[0], count=stop), state[1]
    if state is None:
        new, whole, prediction = _with_targets((yield from game.ask(variants, expected=expected)))
        values, sums = new, None
    else:
        samples, prediction = state
        if unchecked is None:
            new = yield from game.ask_more(variants, prediction, expected=expected)
        else:
            old = sampling.draw(0, samples.count)
            new = yield from check_same_game(unchecked, old, game, variants, expected=expected)
        whole, sums = samples.whole, samples.sums
        new = new.reshape(len(new), len(whole))
        values = np.concatenate([samples.values, new])
    if sampling.add is not None:
        sums = sampling.add(sums, variants, new)
    samples = Samples(
        values,
        whole,
        sampling.key_data,
        hash_draws(sampling.key),
        stop,
        sampling.settings,
        sums,
    )
    return samples, prediction


def _stops(count: int, num_samples: int, sampling: Sampling, until: Until | None) -> Iterator[int]:
    """Yields the numbers of samples at which to estimate, from `count` on."""
    if count and (until is not None or count == num_samples):
        yield count
    stop = sampling.first_check
    while until is not None and stop < num_samples:
        if stop > count:
            yield stop
        stop = int(np.ceil(sampling.growth * stop))
    if count < num_samples:
        yield num_samples


def _with_targets(payoffs: Payoffs) -> Payoffs:
    """Returns payoffs with values `[N, T]` and whole `[T]`, also for a single target."""
    values, whole, prediction = payoffs
    return Payoffs(values.reshape(len(values), -1), np.reshape(whole, -1), prediction)


def _resume(
    previous: Attribution, sampling: Sampling, game: Game, num_samples: int
) -> tuple[Samples, Prediction]:
    """Returns the samples and the prediction of a previous run, or raises ValueError."""
    samples = samples_of(previous)
    if samples.settings != sampling.settings:
        raise ValueError(
            f"previous was sampled by {samples.settings}, this call is {sampling.settings}"
        )
    check_drawn(previous, sampling.key, game)
    if samples.count > num_samples:
        raise ValueError(
            "previous has more samples than are asked for, "
            f"{samples.count / num_samples:.3g} times as many; the number is the total, with those "
            "of previous"
        )
    return samples, Prediction(*(getattr(previous, name) for name in Prediction._fields))


def samples_of(previous: Any) -> Samples:
    """Returns the samples of an earlier result; raises ValueError where it has none."""
    samples = getattr(previous, "samples", None)
    if samples is None:
        raise ValueError(
            "previous must be an attribution that has samples; it comes from a method that does "
            "not sample, or from a run that evaluated every coalition"
        )
    return samples


def check_drawn(previous: Any, key: jax.Array, game: Game) -> None:
    """Raises ValueError unless the samples of an earlier result can be drawn again for a game."""
    samples = samples_of(previous)
    if not np.array_equal(samples.key_data, np.asarray(jax.random.key_data(key))):
        raise ValueError("previous was sampled with another key; pass the same key=")
    if samples.draws != hash_draws(key):
        raise ValueError(
            "previous was sampled where the same key gives other draws: by another JAX version or "
            "configuration of its random numbers; sample again from the start"
        )
    if not np.array_equal(np.asarray(previous.segments), np.asarray(game.segments)):
        raise ValueError("previous has other segments; pass the same segments")


def check_same_game(
    previous: Any,
    old: MaskFamily,
    game: Game,
    variants: MaskFamily | None = None,
    *,
    expected: int | None = None,
) -> Asking[np.ndarray]:
    """Evaluates variants; raises ValueError where an earlier result is of another game.

    Evaluates the whole image too, whose output does not depend on the removal, and those of the
    earlier variants that changed the output most.

    Args:
      previous: an earlier result.
      old: the variants whose payoffs its samples hold, in their order.
      game: the game of this call.
      variants: what else to evaluate; a family like `old`, or None.
      expected: as in `Game.ask`.

    Returns:
      The payoffs of `variants`, `[N, T]`.
    """
    samples = samples_of(previous)
    change = np.abs(samples.values - samples.whole).max(axis=1)
    chosen = np.sort(np.argsort(-change, kind="stable")[:_CHECKED_VARIANTS])
    family = SomeFirst(old, chosen, variants)
    found = _with_targets((yield from game.ask(family, expected=expected)))
    target = found.prediction.target
    if target != previous.target:
        raise ValueError(f"previous is for target {previous.target}, this call for {target}")
    tolerance = max(_ATOL, _OF_CHANGE * float(change.max()))
    if not np.allclose(found.whole, samples.whole, rtol=_OF_OUTPUT, atol=tolerance):
        raise ValueError(
            "previous is from another image, predictor or objective: its output for the whole "
            f"image is {samples.whole}, this call's {found.whole}"
        )
    before, again = samples.values[chosen], found.values[: len(chosen)]
    if not np.allclose(again, before, rtol=_OF_OUTPUT, atol=tolerance):
        raise ValueError(
            "previous is from another image, predictor or removal: its outputs for "
            f"{len(chosen)} of its variants are {before.ravel()}, this call's {again.ravel()}"
        )
    return found.values[len(chosen) :]
