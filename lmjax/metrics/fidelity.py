"""Fidelity: whether the scores of hidden regions add up to the drop of the output."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import (
    check_choice,
    check_flag,
    check_number,
    check_numbers,
    check_whole,
)
from lmjax._utils.keys import check_key
from lmjax._utils.renamed import renamed
from lmjax.attribution.game import Game
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.families import MaskFamily, Masks, hidden_sum
from lmjax.masks.segments import cells
from lmjax.metrics.agreement import pearson, ranked
from lmjax.metrics.ranked_regions import RankedRegions, check_scores, rank_regions

CORRELATIONS = ("pearson", "spearman")
_CELLS = 9  # along each side of the grid of MuFidelity


@renamed(output="objective")
@over_images
def mu_fidelity(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    segments: ArrayLike | None = None,
    share: float = 0.2,
    num_subsets: int = 200,
    correlation: str = "pearson",
    objective: Objective = "probability",
) -> Asking[float | np.ndarray]:
    """Computes MuFidelity, the correlation of scores and drops over random subsets of one size.

    It is the correlation over subsets A of the sum of the scores in A and f(x) - f(x without A).

    Cost: `num_subsets` + 1 evaluations.

    Example:
      >>> np.isfinite(lmjax.metrics.mu_fidelity(predictor, image, heatmap, key=key)).all().item()
      True

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, the score of a cell or segment being the sum of its pixels; with segments
        also `[S]`, the segments' own scores.
      key: random key; the same key draws the same subsets.
      target: class or classes; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: the elements of subsets. None: a grid of 9 x 9 cells.
      share: of the cells or segments in a subset, above 0 and below 1; rounded to at least one and
        to all but one at most.
      num_subsets: number of random subsets, 2 or more.
      correlation: "pearson" or "spearman".
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      A number in [-1, 1], or `[T]` for T targets; higher is better. NaN where all scores or all
      drops are equal.

    Raises:
      ValueError: options out of range, shapes that do not match, a single segment, and all that
        `lmjax.evaluate` raises.

    References:
      Bhatt, Weller & Moura 2020, "Evaluating and aggregating feature-based model explanations"
      (arXiv 2005.00631), definition 3: Pearson's correlation over subsets of one size, as in
      Quantus (`FaithfulnessCorrelation`). The name, the grid, 20% and 200 subsets are Xplique's,
      which takes Spearman's correlation, hides each cell independently, so that sizes differ, and
      counts NaN as 0.
    """
    check_key(key)
    check_choice("correlation", correlation, CORRELATIONS)
    share = check_number("share", share, above=0, below=1)
    game = Game(predictor, image, target=target, objective=objective)
    if segments is None:
        segments = cells(game.shape, _CELLS)
    regions = rank_regions(heatmap, segments, game.shape, by="sum")
    count = _two_or_more(regions)
    size = min(max(round(share * count), 1), count - 1)
    subsets = _random_subsets(count, [size], num_subsets, key)
    found = yield from _correlations(game, regions, subsets, correlation)
    return found[..., 0][()]


@dataclasses.dataclass(frozen=True, eq=False)
class SensitivityN:
    """Correlations of scores and drops for several sizes of subsets.

    Attributes:
      sizes: int `[M]`, numbers n of hidden regions.
      correlations: float64 `[M]`, or `[T, M]` for T targets; NaN where all scores or all drops of a
        size are equal.
    """

    sizes: np.ndarray
    correlations: np.ndarray


@renamed(output="objective")
@over_images
def sensitivity_n(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    segments: ArrayLike | None = None,
    sizes: Sequence[int] | None = None,
    num_subsets: int = 100,
    objective: Objective = "probability",
) -> Asking[SensitivityN]:
    """Computes Sensitivity-n, Pearson's correlation of scores and drops for subsets of n regions.

    It is 1 for every n where the scores of any n regions add up to the drop of the output without
    them.

    Cost: `num_subsets` evaluations of each size, and one of the whole image.

    Example:
      >>> found = lmjax.metrics.sensitivity_n(
      ...     predictor, image, heatmap, key=key, segments=segments, sizes=(1, 2)
      ... )
      >>> found.correlations.shape
      (2,)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, a segment's score being the sum of its pixels; with segments also `[S]`,
        the segments' own scores.
      key: random key; the same key draws the same subsets.
      target: class or classes; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: the regions. None: pixels.
      sizes: values of n, each below the number of regions; None takes ten from 1 to 80% of them, at
        equal distances.
      num_subsets: random subsets of each size, 2 or more.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `SensitivityN`.

    Raises:
      ValueError: options out of range, shapes that do not match, and all that `lmjax.evaluate`
        raises.

    References:
      Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods"
      (arXiv 1711.06104), section 4: 100 subsets for each size, n up to about 80% of the features.
      Quantus removes features by falling score instead of random subsets.
    """
    check_key(key)
    game = Game(predictor, image, target=target, objective=objective)
    regions = rank_regions(heatmap, segments, game.shape, by="sum")
    count = _two_or_more(regions)
    if sizes is None:
        sizes = list(map(int, np.unique(np.linspace(1, max(0.8 * count, 1), 10).astype(int))))
    sizes = np.atleast_1d(check_numbers("sizes", sizes)).ravel().tolist()
    if not sizes:
        raise ValueError("sizes must be one or more numbers of regions; got none")
    sizes = [check_whole("sizes", size, least=1, most=count - 1) for size in sizes]
    subsets = _random_subsets(count, sizes, num_subsets, key)
    found = yield from _correlations(game, regions, subsets, "pearson")
    return SensitivityN(np.array(sizes), found)


@renamed(output="objective")
@over_images
def infidelity(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    masks: ArrayLike | MaskFamily,
    *,
    target: int | Sequence[int] | None = None,
    rescale: bool = False,
    objective: Objective = "probability",
) -> Asking[float | np.ndarray]:
    """Computes infidelity, the mean squared difference between hidden scores and drops.

    It is the mean over masks of (sum of the heatmap over hidden pixels - (f(x) - f(x masked)))^2:
    the perturbation is binary, as for attributions whose scores are effects of whole pixels.

    Cost: an evaluation of each mask, and one of the whole image.

    Example:
      >>> np.isfinite(lmjax.metrics.infidelity(predictor, image, heatmap, masks)).all().item()
      True

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`; with `Coalitions` also `[S]`, the segments' own scores, which are summed
        over hidden segments.
      masks: the perturbations: `[N, H, W]`, 1 = visible, 0 = hidden, or a family of masks. The
        paper's squares are `Windows(image.shape[:2], corners, (side, side))` of
        `lmjax.masks.families`.
      target: class or classes; None takes the predicted class.
      rescale: multiply the heatmap by the factor that minimises the result, which makes it
        independent of the heatmap's scale.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      A number, 0 or more, or `[T]` for T targets; lower is better.

    Raises:
      ValueError: shapes that do not match, a heatmap with NaN, and all that `lmjax.evaluate`
        raises.

    References:
      Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations" (arXiv 1901.09392),
      definition 2.1. As Captum's `infidelity` with binary perturbations; the authors' code always
      rescales, Captum on demand (`normalize`). Quantus multiplies the heatmap by the change of the
      colours, and hides squares cumulatively.
    """
    rescale = check_flag("rescale", rescale)
    game = Game(predictor, image, target=target, objective=objective)
    family = masks if isinstance(masks, MaskFamily) else Masks(np.asarray(masks))
    sums = _hidden_sums(heatmap, family)
    drops = (yield from game.ask(family)).drops
    sums = np.broadcast_to(sums, drops.shape)
    if rescale:
        squares = (sums**2).sum(axis=-1)
        best = (sums * drops).sum(axis=-1) / np.where(squares > 0, squares, 1)
        sums = sums * best[..., None]
    return ((sums - drops) ** 2).mean(axis=-1)[()]


@renamed(output="objective")
@over_images
def sufficiency(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    segments: ArrayLike | None = None,
    budgets: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5),
    objective: Objective = "probability",
) -> Asking[np.ndarray]:
    """Returns the drop of the output when only the top regions stay visible; lower is better.

    It is f(x) - f(x with only the most salient regions visible), for each budget.

    Cost: an evaluation of each budget, and one of the whole image.

    Example:
      >>> lmjax.metrics.sufficiency(predictor, image, heatmap).shape
      (5,)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, higher = more salient; with segments also `[S]`, the segments' own scores.
      target: class or classes; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: the regions, scored by their mean. None: pixels.
      budgets: shares of the regions, above 0 and at most 1; their number is rounded up.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      float64 `[B]`, or `[T, B]` for T targets.

    Raises:
      ValueError: budgets out of range, shapes that do not match, and all that `lmjax.evaluate`
        raises.

    References:
      DeYoung et al. 2020, "ERASER" (arXiv 1911.03429): sufficiency, with the budgets of its
      mean over several. (Quantus's `Sufficiency` is another notion: Dasgupta et al. 2022.)
    """
    game = Game(predictor, image, target=target, objective=objective)
    regions = rank_regions(heatmap, segments, game.shape)
    shown = regions.kept(_top(budgets, len(regions.scores)))
    return (yield from game.ask(shown)).drops


@renamed(output="objective")
@over_images
def necessity(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    segments: ArrayLike | None = None,
    budgets: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5),
    objective: Objective = "probability",
) -> Asking[np.ndarray]:
    """Returns the drop of the output when the top regions are hidden; higher is better.

    It is f(x) - f(x without the most salient regions), for each budget; the paper calls it
    comprehensiveness.

    Cost: an evaluation of each budget, and one of the whole image.

    Example:
      >>> lmjax.metrics.necessity(predictor, image, heatmap).shape
      (5,)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, higher = more salient; with segments also `[S]`, the segments' own scores.
      target: class or classes; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: the regions, scored by their mean. None: pixels.
      budgets: shares of the regions, above 0 and at most 1; their number is rounded up.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      float64 `[B]`, or `[T, B]` for T targets.

    Raises:
      ValueError: as `sufficiency`.

    References:
      DeYoung et al. 2020, "ERASER" (arXiv 1911.03429): comprehensiveness.
    """
    game = Game(predictor, image, target=target, objective=objective)
    regions = rank_regions(heatmap, segments, game.shape)
    shown = regions.removed(_top(budgets, len(regions.scores)))
    return (yield from game.ask(shown)).drops


def _top(budgets: Sequence[float], count: int) -> np.ndarray:
    """Returns how many of `count` regions each budget allows, or raises ValueError."""
    shares = np.atleast_1d(check_numbers("budgets", budgets))
    if shares.size == 0 or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"budgets must be above 0 and at most 1, got {shares[:8].tolist()}")
    # 0.07 * 100 is slightly above 7 in floating point, and still seven regions.
    return np.ceil(shares * count - 1e-9).astype(int)


def _two_or_more(regions: RankedRegions) -> int:
    """Returns how many regions there are; raises ValueError for one, which has no subsets."""
    if len(regions.scores) < 2:
        raise ValueError("segments must be two or more: subsets are some of them; got one")
    return len(regions.scores)


def _correlations(
    game: Game, regions: RankedRegions, hidden: np.ndarray, correlation: str
) -> Asking[np.ndarray]:
    """Correlates scores and drops, `[M]` or `[T, M]`, over subsets bool `[M, N, R]`."""
    num_sizes, num_subsets, count = hidden.shape
    family = Coalitions(regions.labels, ~hidden.reshape(-1, count))
    drops = (yield from game.ask(family)).drops
    # Relative to the first score, which shifts all sums of a size alike, equal scores sum to 0.
    scores = regions.scores - regions.scores[0]
    # One size at a time: a product with bools makes float64 of all of them first.
    sums = np.stack([subsets @ scores for subsets in hidden])
    drops = drops.reshape(*drops.shape[:-1], num_sizes, num_subsets)
    if correlation == "spearman":
        sums, drops = ranked(sums), ranked(drops)
    return pearson(np.broadcast_to(sums, drops.shape), drops)


def _random_subsets(
    count: int, sizes: Sequence[int], num_subsets: int, key: jax.Array
) -> np.ndarray:
    """Draws subsets of `count` regions, bool `[M, N, R]`: N of each of M sizes, equally likely."""
    note = "a correlation needs two"
    num_subsets = check_whole("num_subsets", num_subsets, least=2, note=note)
    # Three copies as bools on the way to the device; of one size floats, their order and a product.
    needed = (3 * len(sizes) + 20) * num_subsets * count
    check_memory(needed, count, len(sizes) * num_subsets)
    hidden = np.zeros((len(sizes), num_subsets, count), bool)
    for subsets, size, own in zip(hidden, sizes, jax.random.split(key, len(sizes))):
        draws = np.asarray(jax.random.uniform(own, (num_subsets, count), np.float32))
        chosen = np.argpartition(draws, size - 1, axis=1)[:, :size]
        np.put_along_axis(subsets, chosen, True, axis=1)
    return hidden


def _hidden_sums(heatmap: ArrayLike, family: MaskFamily) -> np.ndarray:
    """Sums a heatmap over the pixels or segments that each mask hides, float64 `[N]`."""
    if not len(family):
        raise ValueError("masks must hold at least one variant, got none")
    if isinstance(family, Coalitions):
        return ~family.keep @ rank_regions(heatmap, family.segments, by="sum").scores
    heatmap = check_scores(heatmap, "heatmap")
    if heatmap.shape != tuple(family.spatial_shape):
        raise ValueError(
            f"heatmap must be {tuple(family.spatial_shape)} like the masks, got shape "
            f"{heatmap.shape}; scores of segments [S] need lmjax.Coalitions"
        )
    return hidden_sum(family, heatmap).astype(np.float64)
