"""Metrics for networks that were fine-tuned with the removal that judges: IDSDS, F-Fidelity.

Nothing here trains: `lmjax train --augmentations cell:REMOVAL` (for IDSDS) and `few:REMOVAL` (for
F-Fidelity) show a network images with about as much removed as the judge removes. A judge is
in-domain where the predictor's network was trained so with its removal.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_number, check_numbers, check_whole
from lmjax._utils.keys import check_key
from lmjax._utils.renamed import renamed
from lmjax.attribution.game import Game
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.segments import cells
from lmjax.metrics.agreement import pearson, ranked
from lmjax.metrics.ranked_regions import rank_regions

_CELLS = 4  # along each side of the grid of IDSDS


@renamed(output="objective")
@over_images
def idsds(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    segments: ArrayLike | None = None,
    objective: Objective = "logit",
) -> Asking[float | np.ndarray]:
    """Computes the single-deletion score, the rank correlation of patches' scores and their drops.

    A patch's score is the sum of its pixels', its drop f(x) - f(x without this patch alone). If the
    network was fine-tuned on images that lack single patches under the predictor's removal, this is
    the in-domain single-deletion score (IDSDS).

    Cost: an evaluation of each segment, and one of the whole image.

    Example:
      >>> np.isfinite(lmjax.metrics.idsds(predictor, image, heatmap)).all().item()
      True

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress. The paper paints patches with the mean colour (zeros after normalisation).
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, higher = more relevant, with its sign; with segments also `[S]`.
      target: class or classes; None takes the predicted class. The paper takes the label.
      segments: `[H, W]` ints, labels 0..S-1: the patches. None: a grid of 4 x 4, as in the paper.
      objective: "logit" of the target, as in the paper, "probability", "margin", or a function of
        the network's output (`lmjax.objectives`).

    Returns:
      Spearman's correlation, in [-1, 1], or `[T]` for T targets; higher is better. NaN where all
      scores or all drops are equal.

    Raises:
      ValueError: shapes that do not match, and all that `lmjax.evaluate` raises.

    References:
      Hesse, Schaub-Meyer & Roth 2024, "Benchmarking the attribution quality of vision models"
      (arXiv 2407.11910), and `single_deletion.py` of their code.
    """
    game = Game(predictor, image, target=target, objective=objective)
    if segments is None:
        segments = cells(game.shape, _CELLS)
    regions = rank_regions(heatmap, segments, game.shape, by="sum")
    alone = np.eye(len(regions.scores), dtype=bool)
    drops = (yield from game.ask(Coalitions(regions.labels, ~alone))).drops
    scores = np.broadcast_to(ranked(regions.scores), drops.shape)
    return pearson(scores, ranked(drops))[()]


@dataclasses.dataclass(frozen=True, eq=False)
class FFidelity:
    """Drops of the output when random parts of an explanation, or of the rest, are removed.

    Attributes:
      sizes: float64 `[M]`, shares of the regions that count as the explanation.
      plus: float64 `[M]`, or `[T, M]` for T targets: FFid+, mean drops without random parts of the
        explanation; higher is better.
      minus: FFid-, the same of the regions outside it; lower is better.
    """

    sizes: np.ndarray
    plus: np.ndarray
    minus: np.ndarray


@renamed(output="objective")
@over_images
def f_fidelity(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    segments: ArrayLike | None = None,
    sizes: Sequence[float] = tuple(i / 20 for i in range(1, 20)),
    share: float = 0.5,
    most: float = 0.1,
    num_samples: int = 50,
    objective: Objective = "probability",
) -> Asking[FFidelity]:
    """Computes F-Fidelity, mean drops of the output without random parts of the explanation.

    Each of the regions of highest score is removed with probability `share`, or with a smaller one
    where that would remove more than `most` of all regions on average; in the paper the network was
    fine-tuned with parts of this share removed. The same is done with the other regions. With
    `most=1`, of a network that was not fine-tuned, it is R-Fidelity.

    Cost: 2 `num_samples` evaluations of each size, and one of the whole image.

    Example:
      >>> found = lmjax.metrics.f_fidelity(predictor, image, heatmap, key=key, sizes=(0.2, 0.4))
      >>> type(found).__name__
      'FFidelity'

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, higher = more relevant; with segments also `[S]`, the segments' own scores.
      key: random key of the parts.
      target: class or classes; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: the regions, scored by their mean. None: pixels.
      sizes: shares of the regions that count as the explanation, above 0 and below 1.
      share: alpha, of a part's regions that are removed on average, above 0 and at most 1.
      most: beta, the largest share of all regions that is removed on average, above 0 and at most
        1.
      num_samples: random parts for each size.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `FFidelity`.

    Raises:
      ValueError: numbers out of range, shapes that do not match, fewer than two regions, and all
        that `lmjax.evaluate` raises.

    References:
      Zheng et al. 2025, "F-Fidelity: a robust framework for faithfulness evaluation of explainable
      AI" (arXiv 2410.02970), and their code, with its alpha, beta and 50 samples. Their code
      follows whether the label is predicted, not the class's probability.
    """
    share = check_number("share", share, above=0, most=1)
    most = check_number("most", most, above=0, most=1)
    check_key(key)
    num_samples = check_whole("num_samples", num_samples, least=1)
    shares = _check_sizes(sizes)
    game = Game(predictor, image, target=target, objective=objective)
    regions = rank_regions(heatmap, segments, game.shape)
    count = len(regions.scores)
    if count < 2:
        raise ValueError("segments must be two or more, one of which is outside the explanation")
    check_memory(10 * len(shares) * num_samples * count, count, len(shares) * num_samples)
    top = np.clip(np.rint(shares * count), 1, count - 1)
    inside = np.argsort(regions.order) < top[:, None]  # a region's rank, from the highest score
    parts = np.stack([inside, ~inside])  # [2, M, R]
    chances = np.minimum(share, most * count / parts.sum(axis=-1, keepdims=True))
    draws = jax.random.uniform(key, (num_samples, 1, len(top), count), np.float32)
    keep = ~(parts & (np.asarray(draws) < chances))  # [N, 2, M, R]
    payoffs = yield from game.ask(Coalitions(regions.labels, keep.reshape(-1, count)))
    drops = payoffs.drops
    drops = drops.reshape(*drops.shape[:-1], *keep.shape[:-1])
    plus, minus = np.moveaxis(drops.mean(axis=-3), -2, 0)
    return FFidelity(shares, plus, minus)


def _check_sizes(sizes: Sequence[float]) -> np.ndarray:
    """Returns shares `[M]`; raises ValueError unless they are above 0 and below 1."""
    shares = np.atleast_1d(check_numbers("sizes", sizes))
    if shares.size == 0 or not ((shares > 0) & (shares < 1)).all():
        raise ValueError(
            f"sizes must be above 0 and below 1, one or more; got {shares[:8].tolist()}"
        )
    return shares
