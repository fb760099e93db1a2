"""Metrics that remove regions or segments one by one: region perturbation, IROF, ablation."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_choice, check_whole
from lmjax._utils.keys import check_key
from lmjax._utils.renamed import renamed
from lmjax.attribution.game import Game
from lmjax.attribution.record import recorded
from lmjax.evaluation.evaluator import Evaluator, as_evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.outputs import predicted_classes
from lmjax.evaluation.requests import Asking, Request
from lmjax.masking.checks import check_image
from lmjax.masks.segments import grid
from lmjax.metrics.curves import Curve, check_curve, trace
from lmjax.metrics.ranked_regions import rank_regions

ORDERS = ("morf", "lerf", "random")


@renamed(output="objective")
@over_images
@recorded
def region_perturbation(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    key: jax.Array | None = None,
    order: str = "morf",
    target: int | Sequence[int] | None = None,
    segments: ArrayLike | None = None,
    size: int = 9,
    steps: int | None = 100,
    objective: Objective = "probability",
) -> Asking[Curve]:
    """Follows the output while regions are removed one by one, in the order of a heatmap.

    Cost: an evaluation of each step, and one of the whole image.

    Example:
      >>> curve = lmjax.metrics.region_perturbation(predictor, image, heatmap, size=4, steps=8)
      >>> curve.values.shape, bool(np.isfinite(curve.normalised_auc))
      ((9,), True)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress. Its removal decides how regions are hidden. The paper fills with uniform noise:
        `lmjax.Replace("uniform_noise", key=key)`.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, or with segments also `[S]`, the segments' own scores. A region's score is
        the sum of its pixels.
      key: random key, for the random order only.
      order: "morf", most relevant first; "lerf", least relevant first, the exact reverse; "random",
        all orders equally likely.
      target: class or classes whose output is followed; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: regions to take instead of squares.
      size: side of the squares, in pixels. They form a grid from the upper left corner; those at
        the right and lower border may be smaller.
      steps: L, the largest number of regions to remove; None removes all.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Curve` with L + 1 values, for `aopc` and `area_between`.

    Raises:
      ValueError: another order, random without a key, steps below 1, shapes that do not match, and
        all that `lmjax.evaluate` raises.

    References:
      Samek et al. 2017, "Evaluating the visualization of what a deep neural network has learned"
      (arXiv 1509.06321), section III; 9 x 9 regions and 100 steps are those of its experiments.
      iNNvestigate and Quantus 0.6 also have a fixed grid of regions (both pad the image, half of
      the padding before the first region; Quantus takes 8 x 8). Quantus up to 0.5 picked squares at
      any position, each the best that overlaps none before.
    """
    check_choice("order", order, ORDERS)
    if order == "random" and key is None:
        raise ValueError("order 'random' needs key=jax.random.key(seed)")
    if key is not None:
        check_key(key)
    game = Game(predictor, image, target=target, objective=objective)
    segments = grid(image, size=size) if segments is None else segments
    regions = rank_regions(heatmap, segments, game.shape, by="sum")
    count = len(regions.scores)
    steps = count if steps is None else min(check_whole("steps", steps, least=1), count)
    if order == "random":
        assert key is not None  # checked above
        ranking = np.asarray(jax.random.permutation(key, count))
    else:
        ranking = regions.order if order == "morf" else regions.order[::-1]
    return trace(game, regions, np.arange(steps + 1), order=ranking)


def aopc(curve: Curve) -> float | np.ndarray:
    """Computes the area over the perturbation curve, the mean over k = 0..L of f_0 - f_k.

    Example:
      >>> curve = lmjax.metrics.region_perturbation(predictor, image, heatmap, size=4, steps=8)
      >>> np.isfinite(lmjax.metrics.aopc(curve)).item()
      True

    Args:
      curve: of removal, with L + 1 values.

    Returns:
      A number, or `[T]` for T targets; higher is better where the most relevant regions go first.

    Raises:
      ValueError: anything but a curve.

    References:
      Samek et al. 2017 (arXiv 1509.06321), section III. Quantus returns the L drops without the
      first, which is 0: their mean is (L + 1) / L times this.
    """
    values = check_curve("curve", curve).values.astype(np.float64)
    return (values[..., :1] - values).mean(axis=-1)


def area_between(lerf: Curve, morf: Curve) -> float | np.ndarray:
    """Computes the area between the curves of least and most relevant first, their mean gap.

    Example:
      >>> first, last = (
      ...     lmjax.metrics.region_perturbation(predictor, image, heatmap, order=order, size=4)
      ...     for order in ("morf", "lerf")
      ... )
      >>> np.isfinite(lmjax.metrics.area_between(last, first)).item()
      True

    Args:
      lerf: least relevant first.
      morf: most relevant first, with the same number of steps.

    Returns:
      A number, or `[T]` for T targets; higher is better, random heatmaps get 0 on average.

    Raises:
      ValueError: curves of different shapes or targets.

    References:
      Samek et al. 2017 (arXiv 1509.06321), appendix, where it is called ABPC. (With trapezoids
      instead of a mean of all values, it is the "degradation" of Schulz et al. 2020, arXiv
      2001.00396, up to normalisation.)
    """
    check_curve("lerf", lerf)
    check_curve("morf", morf)
    if lerf.values.shape != morf.values.shape or lerf.target != morf.target:
        raise ValueError(
            "lerf and morf must have the same number of steps and the same target; got shapes "
            f"{lerf.values.shape} and {morf.values.shape}, targets {lerf.target} and {morf.target}"
        )
    return (lerf.values.astype(np.float64) - morf.values).mean(axis=-1)


@over_images
def irof(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    segments: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
) -> Asking[float | np.ndarray]:
    """Computes IROF, the area over the curve of segments removed one by one.

    With p_l the class probability after removing the l segments of highest mean relevance, it is
    1 minus the area under p_l / p_0, by trapezoids over l = 0..S and divided by S.

    Cost: S + 1 evaluations.

    Example:
      >>> np.isfinite(lmjax.metrics.irof(predictor, image, heatmap, segments)).all().item()
      True

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress. The paper fills with the mean colour of the data: `lmjax.Replace("grey")`.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, or `[S]`, the segments' own scores.
      segments: `[H, W]` ints, labels 0..S-1, none missing; the paper takes SLIC.
      target: class or classes; None takes the predicted class.

    Returns:
      A number, at most 1, or `[T]` for T targets; higher is better. NaN where the probability for
      the whole image is 0.

    Raises:
      ValueError: as `deletion`.

    References:
      Rieger & Hansen 2020, "IROF" (arXiv 2003.08747). Quantus 0.6 leaves out l = 0 and does not
      divide: its number is S times this, plus (1 + p_1 / p_0) / 2.
    """
    game = Game(predictor, image, target=target)
    regions = rank_regions(heatmap, segments, game.shape)
    curve = yield from trace(game, regions, np.arange(len(regions.scores) + 1))
    whole = curve.values[..., 0].astype(np.float64)
    return 1 - curve.normalised_auc / np.where(whole > 0, whole, np.nan)


@over_images
def top_k_ablation(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    segments: ArrayLike,
    *,
    max_k: int | None = None,
) -> Asking[np.ndarray]:
    """Returns whether the prediction is unchanged after removing the k segments of highest score.

    The curve of a set of images is the mean over images: the fraction of predictions that are
    unchanged at each k. The better the attribution, the earlier it falls.

    Cost: `max_k` + 1 evaluations.

    Example:
      >>> lmjax.metrics.top_k_ablation(predictor, image, heatmap, segments).shape
      (5,)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[S]`, the segments' scores, or `[H, W]`, whose mean over a segment is its score.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      max_k: the largest k; None takes S, where nothing is left.

    Returns:
      bool `[max_k + 1]`, for k = 0 (True), 1, ..., max_k.

    Raises:
      ValueError: max_k not within 1..S, shapes that do not match, non-finite logits, a network with
        a single logit, and all that `lmjax.evaluate` raises.

    References:
      Balasubramanian & Feizi 2022 (arXiv 2211.14646), the LIME experiments: their code hides with
      black and compares with the label, on images whose label is predicted.
    """
    check_image(image)
    regions = rank_regions(heatmap, segments, np.shape(image)[:2])
    count = len(regions.scores)
    max_k = count if max_k is None else check_whole("max_k", max_k, least=1, most=count)
    logits = yield Request(as_evaluator(predictor), image, regions.removed(np.arange(max_k + 1)))
    predicted = predicted_classes(logits)
    return predicted == predicted[0]
