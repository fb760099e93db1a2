"""Interactions: scores of segments and of all pairs of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_choice, check_whole
from lmjax._utils.keys import check_key
from lmjax._utils.summary import summarize
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.banzhaf import banzhaf
from lmjax.attribution.budget import check_one
from lmjax.attribution.draws import draws_of
from lmjax.attribution.game import Game, Prediction
from lmjax.attribution.interaction_estimates import (
    Estimates,
    fewest_rows,
    from_pairs,
    from_uniform,
)
from lmjax.attribution.interaction_indices import INDICES, Sums, index_sums
from lmjax.attribution.kernelshap import evaluated_keep, kernelshap
from lmjax.attribution.lime import lime
from lmjax.attribution.record import Record, recorded
from lmjax.attribution.sampling import Samples, check_drawn, check_same_game, samples_of
from lmjax.attribution.saved import Saved
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import asking_of, over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.samplers import all_coalitions, shapley_keep

_STATIC = {"static": True}
_MOST_EXACT = 12  # segments of which all coalitions are evaluated unless told otherwise
_FEWEST_DEFAULT = 2**_MOST_EXACT


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Interactions(Saved):
    """Scores of segments and of pairs of them, for one class or for T classes.

    Attributes:
      scores: float32 `[S]` or `[T, S]`, of single segments.
      pairs: `[S, S]` or `[T, S, S]`, symmetric and 0 on the diagonal: how much more two segments
        do together than the sum of what they do apart. Above 0 they need each other, below 0 one
        can stand in for the other.
      index: what the scores are, one of "k-SII", "STII", "Faith-Shapley" and "Banzhaf".
      target: the class explained, or the T classes.
      probability: scalar or `[T]`, of the target on the whole image.
      predicted_class: the class with the highest logit on the whole image.
      predicted_probability: of the predicted class.
      num_variants: number of variants that were evaluated, those of `previous` included.
      segments: int32 `[H, W]`, the segments' labels.
      standard_error: of `scores`, in their shape; 0 where all coalitions were evaluated.
      pairs_standard_error: of `pairs`, in their shape.
      intercept: scalar or `[T]`, the output with nothing visible, to which scores and pairs add up
        to the output for the whole image; None for "Banzhaf", which does not add up.
      samples: the state from which a later call goes on, as its `previous=`; None where all
        coalitions were evaluated.
      record: how it was made: method, network, removal, settings, key, versions.
    """

    KIND: ClassVar[str] = "interactions"

    scores: np.ndarray
    pairs: np.ndarray
    index: str = dataclasses.field(metadata=_STATIC)
    target: int | tuple[int, ...] | None = dataclasses.field(metadata=_STATIC)
    probability: np.ndarray
    predicted_class: int | None = dataclasses.field(metadata=_STATIC)
    predicted_probability: np.ndarray
    num_variants: int = dataclasses.field(metadata=_STATIC)
    segments: np.ndarray
    standard_error: np.ndarray
    pairs_standard_error: np.ndarray
    intercept: np.ndarray | None = None
    samples: Any = None
    record: Record | None = dataclasses.field(default=None, metadata=_STATIC)

    @property
    def heatmap(self) -> np.ndarray:
        """Scores of pixels, those of their segments: `[H, W]` or `[T, H, W]`."""
        return self.scores[..., self.segments]

    def partners(self, segment: int) -> np.ndarray:
        """Returns a segment's interactions as a map of its partners, `[H, W]` or `[T, H, W]`."""
        count = self.scores.shape[-1]
        segment = check_whole("segment", segment, least=0, most=count - 1, note="its label")
        return self.pairs[..., segment, :][..., self.segments]

    def plot(
        self, *, segment: int | None = None, image: ArrayLike | None = None, ax: Any = None
    ) -> Any:
        """Draws the scores of segments, or the partners of one; returns matplotlib's axes.

        Args:
          segment: whose partners to draw; None draws the scores of single segments.
          image: `[H, W, C]` in [0, 1], to draw under them.
          ax: axes to draw on; None makes a figure.

        Raises:
          ValueError: several targets; draw one with `lmjax.plots.heatmap`.
        """
        from lmjax import plots

        if isinstance(self.target, tuple):
            raise ValueError(
                f"these interactions have {len(self.target)} targets; draw one with "
                "lmjax.plots.heatmap(interactions.partners(segment)[0])"
            )
        values = self.heatmap if segment is None else self.partners(segment)
        return plots.heatmap(values, image=image, ax=ax)

    def to_pandas(self) -> Any:
        """Returns a table with a row for each segment and each pair of each target.

        Columns `first` and `second` are the two segments, equal for a single one. Tables join as
        those of `Attribution`.

        Raises:
          ImportError: pandas is not installed.
        """
        import pandas

        count = self.scores.shape[-1]
        first, second = np.triu_indices(count)
        each = np.arange(count)

        def listed(singles: np.ndarray, pairs: np.ndarray) -> np.ndarray:
            both = np.array(np.reshape(pairs, (-1, count, count)))
            both[:, each, each] = np.reshape(singles, (-1, count))
            return both[:, first, second]

        scores = listed(self.scores, self.pairs)
        targets = np.array(self.target if isinstance(self.target, tuple) else [self.target])
        columns: dict[str, Any] = {
            "target": np.repeat(targets, len(first)),
            "first": np.tile(first, len(targets)),
            "second": np.tile(second, len(targets)),
            "score": scores.ravel(),
            "standard_error": listed(self.standard_error, self.pairs_standard_error).ravel(),
        }
        about = {} if self.record is None else self.record.columns
        return pandas.DataFrame({**about, "index": self.index, **columns})

    def __repr__(self) -> str:
        names = ("scores", "pairs", "target", "probability", "num_variants")
        fields = [f"{name}={summarize(getattr(self, name))}" for name in names]
        return f"Interactions(index={self.index!r}, {', '.join(fields)})"


@over_images
@recorded
def interactions(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    segments: ArrayLike,
    *,
    key: jax.Array,
    index: str = "k-SII",
    target: int | Sequence[int] | None = None,
    num_samples: int | None = None,
    evaluations: int | None = None,
    previous: Attribution | Interactions | None = None,
    objective: Objective = "probability",
) -> Asking[Interactions]:
    """Scores segments and all pairs of them by an interaction index of order two.

    Where `num_samples` or `evaluations` allows all 2^S coalitions, each is evaluated once, and the
    scores are exact. Otherwise they are estimated from the coalitions that `banzhaf` draws, for the
    index "Banzhaf", or `kernelshap`, or from those of `previous`: by a regression on segments and
    pairs, and a correction by what it leaves over.

    Cost: 2^S evaluations for up to 12 segments, else `num_samples` and a few.

    Example:
      >>> found = lmjax.attribution.interactions(predictor, image, segments, key=key)
      >>> found.scores.shape, found.pairs.shape, found.num_variants
      ((4,), (4, 4), 16)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      key: random key; the same key gives the same scores.
      index: "k-SII": pairs are Shapley interactions, the mean synergy over coalitions of all sizes
        alike; single segments keep of their Shapley values what is not shared with a partner.
        "STII" (Shapley-Taylor): a single segment scores what it does alone; pairs share all else.
        "Faith-Shapley": the model of segments and pairs that is nearest to the network under the
        Shapley kernel. "Banzhaf": means over all coalitions alike, single segments scoring their
        Banzhaf values. All but the last add up to the output for the whole image minus that for
        nothing visible.
      target: class or classes to explain; None explains the predicted class, or that of `previous`.
      num_samples: coalitions, including those of `previous`, counted as `kernelshap` or `banzhaf`
        counts them; at least two for each coefficient of the regression, or two pairs of
        KernelSHAP's. None evaluates all 2^S coalitions of up to 12 segments and
        max(4096, 2 S (S + 1)) of more; with `previous`, no new ones.
      evaluations: upper limit on evaluations, the whole image included; give it instead of
        `num_samples`.
      previous: attribution by `lime`, `kernelshap` or `banzhaf`, or interactions, of the same call:
        its coalitions are used, and only further ones are evaluated, none without `num_samples` or
        `evaluations`. KernelSHAP's serve all indices; Banzhaf's, and LIME's with
        `keep_probability=0.5`, hold about half of the segments and serve "Banzhaf". Not needed, and
        ignored, where all coalitions are allowed.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Interactions` with scores `[S]` and pairs `[S, S]` for one target, `[T, S]` and `[T, S, S]`
      for several, and their standard errors. With few segments and few samples, errors of k-SII
      and STII have longer tails than normal ones: single coalitions weigh much.

    Raises:
      ValueError: options out of range, samples too few for the pairs, coalitions that do not serve
        the index, more segments than memory allows, `previous` that does not fit, target not a
        class of the network, non-finite outputs, and all that `lmjax.evaluate` raises.

    References:
      Grabisch & Roubens 1999; Bordt & von Luxburg 2023 (arXiv 2209.04012), k-SII; Sundararajan,
      Dhamdhere & Agarwal 2020 (arXiv 1902.05622), STII; Tsai, Yeh & Ravikumar 2023 (arXiv
      2203.00870), Faith-Shapley. For the estimates Fumagalli et al. 2024 (arXiv 2405.10852) and
      Witter, Liu & Musco 2025 (arXiv 2506.11849). The numbers of all coalitions are those of the
      `shapiq` package, whose names the indices have, but "FSII" and "BII".
    """
    check_choice("index", index, INDICES)
    check_key(key)
    game = Game(predictor, image, segments, target=target, objective=objective)
    check_one("num_samples", num_samples, evaluations)
    if evaluations is not None:
        evaluations = check_whole("evaluations", evaluations, least=2)
    elif num_samples is not None:
        num_samples = check_whole("num_samples", num_samples, least=2)
    elif previous is None:
        num_samples = _default_number(game.num_segments)
    if _allow_all(game.num_segments, num_samples, evaluations):
        return (yield from _exact(game, index))
    if previous is not None:
        _check_previous(previous, index, key, game)
    source = _SOURCES[_source_of(index, previous)]
    _check_number(source, game.num_segments, num_samples, evaluations, previous)
    if evaluations is not None:
        num_samples = evaluations - source.beside
    if target is None and previous is not None and not callable(objective):
        target = previous.target
        game = dataclasses.replace(game, target=target)
    if num_samples is None:
        assert previous is not None  # without it, there is a number of samples
        old = Coalitions(game.labels, _drawn(previous, key, game.num_segments))
        yield from check_same_game(previous, old, game)
        return _estimated(previous, index, key, game)
    rest = {"target": target, "objective": objective, "previous": previous}
    options = {"key": key, "num_samples": num_samples, **rest}
    sampled = yield from source.sampled(predictor, image, game.labels, **options)
    return _estimated(sampled, index, key, game)


class _Source(NamedTuple):
    """A method whose coalitions tell of pairs of segments.

    Attributes:
      sampled: the method, asking for its coalitions.
      paired: whether it draws complementary pairs from the Shapley kernel, beside single segments,
        instead of coalitions that are all equally likely.
      beside: how many variants it evaluates beside its samples.
    """

    sampled: Callable[..., Asking[Attribution]]
    paired: bool
    beside: int

    def number(self, num_segments: int, samples: Samples) -> int:
        """Returns the number of samples as the method's `num_samples` counts them."""
        return 2 * (num_segments + samples.count) if self.paired else samples.count


_SOURCES = {
    "lime": _Source(asking_of(lime), paired=False, beside=0),
    "kernelshap": _Source(asking_of(kernelshap), paired=True, beside=2),
    "banzhaf": _Source(asking_of(banzhaf), paired=False, beside=1),
}


def _default_number(num_segments: int) -> int:
    """Returns the default of `num_samples`: all coalitions of few segments."""
    if num_segments <= _MOST_EXACT:
        return 2**num_segments
    return max(_FEWEST_DEFAULT, 2 * num_segments * (num_segments + 1))


def _allow_all(num_segments: int, num_samples: int | None, evaluations: int | None) -> bool:
    """Returns whether all coalitions may be evaluated, the whole image and the empty one included.

    These two are not among the samples.
    """
    if evaluations is not None:
        return evaluations >= 2**num_segments
    return num_samples is not None and num_samples >= 2**num_segments - 2


def _source_of(index: str, previous: Attribution | Interactions | None) -> str:
    """Returns the name of the method whose coalitions are used."""
    if previous is not None:
        return samples_of(previous).settings[0]
    return "banzhaf" if index == "Banzhaf" else "kernelshap"


def _check_previous(
    previous: Attribution | Interactions, index: str, key: jax.Array, game: Game
) -> None:
    """Raises ValueError unless the coalitions of an earlier result serve an index of a game."""
    name = samples_of(previous).settings[0]
    if name not in _SOURCES:
        raise ValueError(
            f"previous must come from {', '.join(_SOURCES)} or interactions, whose coalitions tell "
            f"of pairs of segments; it comes from {name}"
        )
    draws = draws_of(previous)
    if draws is not None and index != "Banzhaf":
        raise ValueError(
            f"index must be Banzhaf for the coalitions of {name}, nearly all of which hold about "
            f"half of the segments; {index} depends on small and large ones as well: pass an "
            "attribution by kernelshap, or none"
        )
    if draws is not None and draws.keep_probability != 0.5:
        raise ValueError(
            "previous must have keep_probability=0.5, with which all coalitions are equally "
            f"likely, as Banzhaf weighs them; got {draws.keep_probability:g}"
        )
    check_drawn(previous, key, game)


_MERGED = "or merge segments: lmjax.segments.merge(image, segments, num_segments=...)"


def _check_number(
    source: _Source,
    num_segments: int,
    num_samples: int | None,
    evaluations: int | None,
    previous: Attribution | Interactions | None,
) -> None:
    """Raises ValueError for too few samples, and for more than memory allows."""
    rows = fewest_rows(num_segments, paired=source.paired)
    fewest = min(2 * rows if source.paired else rows, 2**num_segments - 2)
    if evaluations is not None:
        everything = fewest == 2**num_segments - 2  # fewer would not do
        needed = 2**num_segments if everything else fewest + source.beside
        _check_enough("evaluations", evaluations, needed, num_segments)
        num_samples = evaluations - source.beside
    elif num_samples is not None:
        _check_enough("num_samples", num_samples, fewest, num_segments)
    else:
        assert previous is not None  # without it, there is a number of samples
        num_samples = source.number(num_segments, samples_of(previous))
        if num_samples < fewest:
            raise ValueError(
                f"previous has {num_samples:,} samples, the pairs of {num_segments} segments need "
                f"{fewest:,}: pass num_samples={fewest} or more to go on from it, {_MERGED}"
            )
    # Features of segments and pairs in five copies; the normal equations in three.
    rows, features = num_samples // (2 if source.paired else 1), num_segments**2 // 2
    check_memory(8 * features * (5 * rows + 3 * features), num_segments, num_samples)


def _check_enough(name: str, given: int, needed: int, num_segments: int) -> None:
    if given < needed:
        raise ValueError(
            f"{name} must be {needed:,} or more for the pairs of {num_segments} segments; got "
            f"{given:,}; take more, {_MERGED}"
        )


def _exact(game: Game, index: str) -> Asking[Interactions]:
    """Computes an index from all coalitions."""
    keep = all_coalitions(game.num_segments)
    # The last coalition is the whole image, which is evaluated in any case.
    payoffs = yield from game.ask(Coalitions(game.labels, keep[:-1]))
    values = np.concatenate([payoffs.values, payoffs.whole[None]]).astype(np.float64)
    values = values.reshape(len(keep), -1)
    scores, _ = index_sums(INDICES[index], keep, values)
    found = Estimates(scores, Sums(*map(np.zeros_like, scores)))
    rest = {"segments": game.labels, "num_variants": len(keep), **payoffs.prediction._asdict()}
    return _result(index, found, values[0], rest)


def _drawn(previous: Attribution | Interactions, key: jax.Array, num_segments: int) -> np.ndarray:
    """Returns the coalitions `[N, S]` whose payoffs the samples of an attribution hold."""
    draws, count = draws_of(previous), samples_of(previous).count
    if draws is None:
        return evaluated_keep(shapley_keep(num_segments, count, key=key, smallest=2))
    return draws.draw(num_segments, 0, count - draws.whole, key)


def _estimated(
    previous: Attribution | Interactions, index: str, key: jax.Array, game: Game
) -> Interactions:
    """Estimates an index from the samples of an attribution."""
    samples = samples_of(previous)
    if draws_of(previous) is None:
        keep = shapley_keep(game.num_segments, samples.count, key=key, smallest=2)
        found = from_pairs(INDICES[index], keep, samples.values, samples.whole)
    else:
        keep = _drawn(previous, key, game.num_segments)
        found = from_uniform(INDICES[index], keep, samples.values)
    kept = ("segments", "num_variants", "samples", *Prediction._fields)
    rest = {name: getattr(previous, name) for name in kept}
    return _result(index, found, samples.values[0], rest)


def _result(index: str, found: Estimates, empty: np.ndarray, rest: dict[str, Any]) -> Interactions:
    """Returns estimates as interactions, without the axis T for a single target.

    Args:
      index: name of the index.
      found: scores and errors.
      empty: `[T]`, the output with nothing visible, for indices that add up.
      rest: the other attributes.
    """
    pairs = found.scores.pairs
    arrays = {
        "scores": found.scores.singles,
        "pairs": (pairs + pairs.swapaxes(-1, -2)) / 2,  # rounding has no symmetry
        "standard_error": found.errors.singles,
        "pairs_standard_error": found.errors.pairs,
        "intercept": empty if INDICES[index].efficient else None,
    }
    several = isinstance(rest["target"], tuple)
    shown = {
        name: None if array is None else np.asarray(array if several else array[0], np.float32)
        for name, array in arrays.items()
    }
    return Interactions(index=index, **shown, **rest)
