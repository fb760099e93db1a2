"""Metrics of removals and of explanations under any removal: R-OMS and the relevance gain."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_whole
from lmjax._utils.renamed import renamed
from lmjax.attribution.game import Game
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.orders import random_orders
from lmjax.metrics.curves import Curve, check_curve, trace
from lmjax.metrics.ranked_regions import rank_regions


@renamed(output="objective")
@over_images
def r_oms(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    segments: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    steps: int = 10,
    num_orders: int = 1,
    objective: Objective = "probability",
) -> Asking[float | np.ndarray]:
    """Computes R-OMS, how much of the network's answer survives the removal of random segments.

    Segments are removed in a random order, in `steps` steps of about as many segments, from none to
    all. R-OMS is the area under the output over the share of pixels removed (`occlusion_area`).
    Only the predictor's removal makes the difference: the network stays within its scope (it is
    reliable) where the answer outlives the segments. Take the mean over images, and compare values
    of the same segments only: fine ones leave an image recognisable for longer.

    Cost: `steps` + 1 evaluations for each order, with few segments S + 1.

    Example:
      >>> np.isfinite(lmjax.metrics.r_oms(predictor, image, segments, key=key)).all().item()
      True

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress. Its removal is what is measured.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      segments: `[H, W]` ints, labels 0..S-1, none missing. The paper takes SLIC.
      key: random key of the orders; the same key draws the same orders for any removal.
      target: class or classes whose output is followed; None takes the predicted class.
      steps: points of the curve after the whole image; no more than S count.
      num_orders: random orders, over which the mean is taken.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      A number (with probabilities in [0, 1]), or `[T]` for T targets; higher is better.

    Raises:
      ValueError: numbers below 1, shapes that do not match, and all that `lmjax.evaluate` raises.

    References:
      Bluecher, Vielhaben & Strodthoff 2024, "Decoupling pixel flipping and occlusion strategy for
      consistent XAI benchmarks" (arXiv 2401.06654), and `plot_ood.py` of their code, which follows
      the class predicted when a single segment is missing, through ten numbers of segments from 1
      to all. Here the class is that of the whole image, and the curve begins there. Every step of
      an order removes more of the same segments; their code draws each step anew.
    """
    num_orders = check_whole("num_orders", num_orders, least=1)
    steps = check_whole("steps", steps, least=1)
    game = Game(predictor, image, segments, target=target, objective=objective)
    regions = rank_regions(np.zeros(game.num_segments), segments, game.shape)
    counts = step_counts(game.num_segments, steps)
    orders = random_orders(game.num_segments, num_orders, key=key)
    areas = []
    for order in orders:
        areas.append(occlusion_area((yield from trace(game, regions, counts, order=order))))
    return np.mean(np.stack(areas), axis=0)[()]


@renamed(output="objective")
@over_images
def symmetric_relevance_gain(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    segments: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    steps: int = 10,
    objective: Objective = "probability",
) -> Asking[float | np.ndarray]:
    """Computes the symmetric relevance gain (SRG) of an explanation, LeRF minus MoRF area.

    Segments are removed by rising mean of the heatmap (LeRF, least relevant first), and in exactly
    the reverse order (MoRF); the gain is the difference of the areas under the two curves of the
    output over the share of pixels removed (`relevance_gain`). What random orders lose to the
    removal is in both curves and cancels, so that rankings of explanations depend little on it.

    Cost: 2 (`steps` + 1) evaluations, with few segments 2 (S + 1).

    Example:
      >>> gain = lmjax.metrics.symmetric_relevance_gain(predictor, image, heatmap, segments)
      >>> np.isfinite(gain).item()
      True

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress. Its removal decides how segments are hidden.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, higher = more relevant; or `[S]`, the segments' own scores.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      target: class or classes whose output is followed; None takes the predicted class.
      steps: points of a curve after the whole image; no more than S count.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      A number (with probabilities in [-1, 1]), or `[T]` for T targets; higher is better, and random
      heatmaps get 0 on average.

    Raises:
      ValueError: steps below 1, shapes that do not match, and all that `lmjax.evaluate` raises.

    References:
      Bluecher, Vielhaben & Strodthoff 2024 (arXiv 2401.06654), and `plot_pixel_flipping.py` of
      their code, which follows the label and averages curves over images before it takes the area.
    """
    steps = check_whole("steps", steps, least=1)
    game = Game(predictor, image, target=target, objective=objective)
    regions = rank_regions(heatmap, segments, game.shape)
    counts = step_counts(len(regions.scores), steps)
    morf = yield from trace(game, regions, counts)
    lerf = yield from trace(game, regions, counts, order=regions.order[::-1])
    return relevance_gain(lerf, morf)


def relevance_gain(lerf: Curve, morf: Curve) -> float | np.ndarray:
    """Computes the symmetric relevance gain of two curves, the difference of their areas.

    Unlike `area_between`, which weighs all steps alike, it is over the share of pixels removed.

    Example:
      >>> curve = lmjax.metrics.deletion(predictor, image, heatmap, step=64)
      >>> float(lmjax.metrics.relevance_gain(curve, curve))
      0.0

    Args:
      lerf: least relevant first, of `region_perturbation`.
      morf: most relevant first.

    Returns:
      A number, or `[T]` for T targets.

    Raises:
      ValueError: curves of different targets, or that do not end with the same pixels removed.

    References:
      Bluecher, Vielhaben & Strodthoff 2024 (arXiv 2401.06654).
    """
    check_curve("lerf", lerf)
    check_curve("morf", morf)
    ends = lerf.fractions[-1], morf.fractions[-1]
    if lerf.target != morf.target or not np.isclose(*ends):
        raise ValueError(
            "lerf and morf must have the same target and end with the same share of pixels "
            f"removed; got targets {lerf.target} and {morf.target}, shares {ends[0]:.3g} and "
            f"{ends[1]:.3g}: take all regions (steps=None), or regions of one size"
        )
    return occlusion_area(lerf) - occlusion_area(morf)


def occlusion_area(curve: Curve) -> float | np.ndarray:
    """Computes the area under a curve over the share of pixels removed, by trapezoids.

    Example:
      >>> curve = lmjax.metrics.deletion(predictor, image, heatmap, step=64)
      >>> np.isfinite(lmjax.metrics.occlusion_area(curve)).item()
      True

    Args:
      curve: of removal. Where it does not end at 1, all pixels, the area is divided by its end: it
        is the mean height in any case.

    Returns:
      A number, or `[T]` for T targets.

    Raises:
      ValueError: anything but a curve.

    References:
      Bluecher, Vielhaben & Strodthoff 2024 (arXiv 2401.06654), `calculate_auc` of their code, which
      does not divide the area of a curve that ends before 1.
    """
    check_curve("curve", curve)
    return mean_height(curve.fractions, curve.values)[()]


def mean_height(fractions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns areas under values `[..., n]` over rising fractions `[..., n]`, divided by width.

    NaN where the width is 0, as of steps that remove nothing.
    """
    fractions, values = np.asarray(fractions, np.float64), np.asarray(values, np.float64)
    areas = np.diff(fractions) * (values[..., 1:] + values[..., :-1]) / 2
    width = fractions[..., -1] - fractions[..., 0]
    return np.asarray(areas.sum(axis=-1) / np.where(width == 0, np.nan, width))


def step_counts(count: int, steps: int) -> np.ndarray:
    """Returns how many of `count` regions are removed after each step, from 0 to all."""
    return np.unique(np.rint(np.linspace(0, count, steps + 1)).astype(int))
