"""Sobol attribution: the share of the output's variance that each part of the image explains.

Fel, Cadene, Chalvidal, Cord, Vigouroux & Serre 2021, "Look at the Variance! Efficient Black-box
Explanations with Sobol-based Sensitivity Analysis" (arXiv 2111.04138).
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_flag
from lmjax._utils.keys import check_key
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
from lmjax.masking.checks import check_image
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.families import MaskFamily, SoftCoalitions
from lmjax.masks.samplers import half_visible_keep, quasi_random
from lmjax.masks.segments import even_grid

_FIRST_CHECK = 32
_MOST_SEGMENTS = 10_600  # SciPy tabulates Sobol sequences of 21,201 dimensions, two a segment


@renamed(output="objective")
@over_images
@recorded
def sobol(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    key: jax.Array,
    segments: ArrayLike | None = None,
    target: int | Sequence[int] | None = None,
    num_designs: int | None = None,
    evaluations: int | None = None,
    grid: int | tuple[int, int] = 8,
    soft: bool | None = None,
    until: Until | None = None,
    previous: Attribution | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Scores segments by their total-order Sobol indices, with Jansen's estimator.

    A score is the share of the output's variance that remains when all other segments are known:
    the segment's own effect and its part in all interactions. It has no sign: evidence against the
    target scores as high as evidence for it.

    As published, segments are visible to degrees uniform in [0, 1], for removals that blend. Where
    a mask says which positions are known (`lmjax.LayerMasking`), degrees have no meaning: every
    segment is visible with probability 1/2, and the scores are the indices of that other
    experiment. Each point shows some segments, every segment being shown by two of four points in
    succession, and one segment after the other is switched. Variants that coincide are evaluated
    once.

    Cost: `num_designs` (S + 1) + 1 evaluations; fewer where variants coincide.

    Example:
      >>> found = lmjax.attribution.sobol(predictor, image, key=key, segments=segments)
      >>> found.scores.shape, found.num_variants
      ((4,), 161)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      key: random key; the same key gives the same scores.
      segments: `[H, W]` ints, labels 0..S-1, none missing. None takes an even grid.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      num_designs: points n, fully balanced if a power of two (under masks that are 0 or 1, a
        multiple of 4); n (S + 1) variants are evaluated, including those of `previous`. None takes
        32.
      evaluations: upper limit on evaluations, the whole image included; give it instead of
        `num_designs` to compare methods at equal cost.
      grid: cells of the even grid along each side, or (h, w).
      soft: whether masks are soft. None asks the predictor (`soft_masks`); a plain function gets
        binary masks, which any function can take.
      until: (scores, standard errors) -> whether to stop, for example `stable_ranking(5)`; asked at
        32, 64, 128, ... designs, where points are balanced. None takes all.
      previous: attribution of the same call with fewer designs, to continue with further points.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several, 0 where the output is
      constant. The standard errors are those of independent points, to first order; balanced
      points have errors of about that size or smaller.

    Raises:
      ValueError: options out of range, more segments than memory allows, `previous` that does not
        fit, target not a class of the network, non-finite outputs, and all that `lmjax.evaluate`
        raises.

    References:
      Fel et al. 2021, section 3.3; Jansen 1999. Grid, designs and estimator are Xplique's defaults,
      which also evaluates n variants that this estimator does not use, does not scramble the
      sequence, and enlarges the map by bicubic interpolation.
    """
    check_image(image)
    segments = even_grid(np.shape(image)[:2], grid) if segments is None else segments
    game = Game(predictor, image, segments, target=target, objective=objective)
    soft = game.predictor.soft_masks if soft is None else check_flag("soft", soft)
    num_segments = game.num_segments
    cost = Cost(num_segments + 1)
    num_designs = cost.number("num_designs", num_designs, evaluations, default=32, least=2)
    if soft and num_segments > _MOST_SEGMENTS:
        raise ValueError(
            f"segments must be at most {_MOST_SEGMENTS:,}, as far as Sobol sequences are tabulated;"
            f" got {num_segments:,}"
        )
    # The degrees of all variants, and arrays made of them.
    num_variants = num_designs * (num_segments + 1)
    check_memory(12 * num_variants * num_segments, num_segments, num_variants)

    def draw(first: int, last: int) -> MaskFamily:
        if soft:
            return SoftCoalitions(game.labels, designs(num_segments, last, key, first=first))
        keep = switched(num_segments, last, key)
        places, _ = _distinct(keep)
        return Coalitions(game.labels, keep[places[places >= first * (num_segments + 1)]])

    def estimate(samples: Samples) -> Estimate:
        values = samples.values
        if not soft:
            values = values[_distinct(switched(num_segments, samples.count, key))[1]]
        points, *mixed = values.reshape(samples.count, num_segments + 1, -1).swapaxes(0, 1)
        scores, errors = jansen(points, np.stack(mixed))
        # A coin that is redrawn is switched half of the time.
        return Estimate(scores, errors) if soft else Estimate(scores / 2, errors / 2)

    settings = ("soft", soft), *(() if soft else (("switched", True),))
    return run(
        Sampling(draw, estimate, key, ("sobol", *settings), _FIRST_CHECK, growth=2),
        game,
        num_designs,
        expected=num_variants + 1,
        until=until,
        previous=previous,
    )


def jansen(first: np.ndarray, mixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimates total-order Sobol indices, and their standard errors for independent points.

    The errors are to first order, of the variance in the denominator too.

    Args:
      first: `[n]` or `[n, T]`, outputs at n points.
      mixed: `[S, n]` or `[S, n, T]`, outputs at the same points with one coordinate redrawn.

    Returns:
      indices and standard errors, both `[S]` or `[T, S]`.
    """
    variance = first.var(axis=0, ddof=1)
    scale = np.divide(1, variance, out=np.zeros_like(variance), where=variance > 0)
    squares = (mixed - first) ** 2 / 2 * scale
    scores = squares.mean(axis=1)
    deviations = (first - first.mean(axis=0)) ** 2 * scale
    errors = (squares - scores[:, None] * deviations).std(axis=1, ddof=1) / len(first) ** 0.5
    return scores.T, errors.T


def switched(num_segments: int, last: int, key: jax.Array) -> np.ndarray:
    """Draws coalitions, each followed by itself with one segment after the other switched.

    Returns:
      bool `[last (S + 1), S]`: designs 0 to `last - 1`.
    """
    points = half_visible_keep(num_segments, 0, last, key=key, block=4)
    keep = np.repeat(points[:, None], num_segments + 1, axis=1)
    each = np.arange(num_segments)
    keep[:, 1 + each, each] ^= True
    return keep.reshape(-1, num_segments)


def designs(num_segments: int, last: int, key: jax.Array, *, first: int = 0) -> np.ndarray:
    """Draws points, each followed by itself with one coordinate after the other redrawn.

    Returns:
      float32 `[(last - first) (S + 1), S]` in [0, 1): the degrees of designs `first` to `last - 1`.
    """
    # Four words seed the scrambling, for every implementation of keys.
    scrambling = jax.random.wrap_key_data(
        jax.random.bits(check_key(key), (4,), np.uint32), impl="rbg"
    )
    both = quasi_random(last - first, 2 * num_segments, key=scrambling, first=first)
    points, others = np.split(both.astype(np.float32), 2, axis=1)
    mixed = np.repeat(points[:, None], num_segments + 1, axis=1)
    each = np.arange(num_segments)
    mixed[:, 1 + each, each] = others
    return mixed.reshape(-1, num_segments)


def _distinct(keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns where distinct rows first occur, and the number of the distinct row of each row."""
    _, places, which = np.unique(
        np.packbits(keep, axis=1), axis=0, return_index=True, return_inverse=True
    )
    order = np.argsort(places)
    return places[order], np.argsort(order)[which.reshape(-1)]
