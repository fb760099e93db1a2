"""Curves over regions and segments, and the numbers that are read off them."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from lmjax.evaluation.evaluator import evaluate
from lmjax.masking.checks import check_image
from lmjax.masks.families import RankRanges
from lmjax.masks.segments import grid
from lmjax.metrics.curves import Curve, deletion, follow
from lmjax.metrics.ranked_regions import check_count, features

ORDERS = ("morf", "lerf", "random")


def region_perturbation(
    predictor: Callable,
    image,
    heatmap,
    *,
    key: jax.Array | None = None,
    order: str = "morf",
    target: int | Sequence[int] | None = None,
    segments=None,
    size: int = 9,
    steps: int | None = 100,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Curve:
    """The output while regions are removed one after the other, in an order a heatmap gives.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`; it decides how regions are
        hidden. The paper fills with uniform noise: `lmjax.Replace("uniform_noise", key=key)`.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[H, W]`, or with segments also `[S]`, the segments' own scores. A region's score is
        the sum of its pixels.
      key: random key, for the random order only.
      order: "morf", most relevant first; "lerf", least relevant first, the exact reverse; "random",
        all orders equally likely.
      target: class or classes whose output is followed; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: these regions instead of squares.
      size: side of the squares, in pixels. They form a grid from the upper left corner, and those
        at the right and lower border may be smaller.
      steps: L, regions to remove, at most; None removes all.
      output: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `Curve` with L + 1 values, for `aopc` and `area_between`.

    Raises:
      ValueError: another order, random without a key, steps below 1, shapes that do not match, and
        all that `lmjax.evaluate` raises.

    References:
      Samek et al. 2017, "Evaluating the visualization of what a deep neural network has learned"
      (arXiv 1509.06321), section III; 9 x 9 regions and 100 steps are those of its experiments. A
      fixed grid of regions is also what iNNvestigate and Quantus 0.6 have (both pad the image, half
      of it before the first region; Quantus takes 8 x 8). Quantus up to 0.5 picked squares at any
      position, each the best that overlaps none before.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}; got {order!r}")
    if order == "random" and key is None:
        raise ValueError("order 'random' needs key=jax.random.key(seed)")
    check_image(image)
    segments = grid(image, size=size) if segments is None else segments
    found = features(heatmap, segments, np.shape(image)[:2], by="sum")
    count = len(found.scores)
    if order == "random":
        regions = np.asarray(jax.random.permutation(key, count))
    else:
        regions = found.order if order == "morf" else found.order[::-1]
    last = count if steps is None else min(check_count(steps, "steps"), count)
    return follow(
        predictor,
        image,
        found,
        np.arange(last + 1),
        order=regions,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )


def aopc(curve: Curve) -> float | np.ndarray:
    """Area over the perturbation curve, the mean drop: sum over k = 0..L of f_0 - f_k, by L + 1.

    Args:
      curve: of removal, with L + 1 values.

    Returns:
      A number, or `[T]` for T targets; for most relevant first higher is better.

    References:
      Samek et al. 2017 (arXiv 1509.06321), section III. Quantus returns the L drops without the
      first, which is 0: their mean is (L + 1) / L times this.
    """
    values = curve.values.astype(np.float64)
    return (values[..., :1] - values).mean(axis=-1)


def area_between(lerf: Curve, morf: Curve) -> float | np.ndarray:
    """Area between the curves of least and most relevant first: their mean gap, over L + 1 values.

    Args:
      lerf: least relevant first.
      morf: most relevant first, with as many steps.

    Returns:
      A number, or `[T]` for T targets; higher is better, 0 is what random heatmaps get on average.

    Raises:
      ValueError: curves of different shapes or targets.

    References:
      Samek et al. 2017 (arXiv 1509.06321), appendix, where it is called ABPC. (With trapezoids
      instead of a mean of all values, it is the "degradation" of Schulz et al. 2020, arXiv
      2001.00396, up to normalisation.)
    """
    if lerf.values.shape != morf.values.shape or lerf.target != morf.target:
        raise ValueError(
            "lerf and morf must have as many steps and the same target; got shapes "
            f"{lerf.values.shape} and {morf.values.shape}, targets {lerf.target} and {morf.target}"
        )
    return (lerf.values.astype(np.float64) - morf.values).mean(axis=-1)


def irof(
    predictor: Callable,
    image,
    heatmap,
    segments,
    *,
    target: int | Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> float | np.ndarray:
    """IROF: the area over the curve of segments removed one by one, relative to the whole image.

    With p_l the class probability after the l segments of highest mean relevance are gone, it is
    1 minus the area under p_l / p_0, by trapezoids over l = 0..S and divided by S.

    Args:
      predictor: (image, masks) -> logits. The paper fills with the mean colour of the data:
        `lmjax.Replace("grey")`.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[H, W]`, or `[S]`, the segments' own scores.
      segments: `[H, W]` ints, labels 0..S-1, none missing; the paper takes SLIC.
      target: class or classes; None takes the predicted class.
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      A number, at most 1, or `[T]` for T targets; higher is better.

    Raises:
      ValueError: as `deletion`.

    References:
      Rieger & Hansen 2020, "IROF" (arXiv 2003.08747). Quantus 0.6 leaves out l = 0 and does not
      divide: its number is S times this, plus (1 + p_1 / p_0) / 2.
    """
    curve = deletion(
        predictor,
        image,
        heatmap,
        segments=segments,
        target=target,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )
    return 1 - curve.normalised_auc / curve.values[..., 0].astype(np.float64)


def top_k_ablation(
    predictor: Callable,
    image,
    heatmap,
    segments,
    *,
    max_k: int | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Whether the prediction is unchanged after the k segments of highest score are removed.

    The curve of a set of images is the mean of this over images: the fraction of predictions that
    are unchanged at each k, which a good attribution lets fall early.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[S]`, the segments' scores, or `[H, W]`, whose mean over a segment is its score.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      max_k: the largest k; None takes S, where nothing is left.
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      bool `[max_k + 1]`, for k = 0 (True), 1, ..., max_k.

    Raises:
      ValueError: max_k not within 1..S, shapes that do not match, and all that `lmjax.evaluate`
        raises.

    References:
      Balasubramanian & Feizi 2022 (arXiv 2211.14646), the LIME experiments: their code hides with
      black and compares with the label, on images whose label is predicted.
    """
    check_image(image)
    found = features(heatmap, segments, np.shape(image)[:2])
    count = len(found.scores)
    ks = np.arange((count if max_k is None else check_count(max_k, "max_k", count)) + 1)
    family = RankRanges(found.ranks(), np.stack([ks, np.full_like(ks, count)], axis=1))
    logits = evaluate(
        predictor, image, family, batch_size=batch_size, progress=progress, engine=engine, mesh=mesh
    )
    predicted = logits.argmax(axis=1)
    return predicted == predicted[0]
