"""Curves: what a predictor answers while an image disappears, or appears, feature by feature.

How a feature is hidden is the predictor's removal: under layer masking a curve ends with no image
at all, under `lmjax.Replace` with the baseline.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import Mesh

from lmjax.attribution.game import answer
from lmjax.masking.checks import check_image
from lmjax.masks.families import RankRanges
from lmjax.metrics.ranked_regions import Features, check_count, features


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A predictor's output after 0, 1, ..., n steps.

    Attributes:
      fractions: float64 `[n + 1]`, share of the pixels that each step has reached: hidden by then
        where features are removed, visible where they are inserted.
      values: float32 `[n + 1]`, or `[T, n + 1]` for T targets.
      target: the class, or the T classes.
    """

    fractions: np.ndarray
    values: np.ndarray
    target: int | tuple[int, ...]

    @property
    def normalised_auc(self) -> float | np.ndarray:
        """Area under the curve, by trapezoids over the steps and divided by n; `[T]` for T targets.

        Each step counts the same, whatever its pixels: so RISE's code does it, whose last step may
        be smaller than the others.
        """
        values = self.values.astype(np.float64)
        return (values[..., 1:] + values[..., :-1]).mean(axis=-1) / 2


def deletion(
    predictor: Callable,
    image,
    heatmap,
    *,
    target: int | Sequence[int] | None = None,
    segments=None,
    step: int | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Curve:
    """The output while the most salient pixels or segments are removed first; lower is better.

    Pixels go by falling score, `step` at a time, in ceil(H W / step) steps until all are hidden.
    Equal scores go in the order of reading (segments: of their labels). The published metric fills
    with black: `lmjax.Replace("black")`.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`; it decides how pixels are
        hidden.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[H, W]`, higher = more salient; with segments also `[S]`, the segments' own scores.
      target: class or classes whose output is followed; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1, none missing. Whole segments go then, by falling mean
        of the heatmap, and `step` counts segments.
      step: features to remove in each step. None: as many pixels as the image is wide (224 at
        224 x 224, the setting of RISE's code), or one segment.
      output: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `Curve` from the whole image (fraction 0) to none of it (fraction 1); the metric is its
      `normalised_auc`.

    Raises:
      ValueError: shapes that do not match, a heatmap with NaN, a step below 1, and all that
        `lmjax.evaluate` raises.

    References:
      Petsiuk, Das & Saenko 2018, "RISE" (arXiv 1806.07421), section 4, and `evaluation.py` of
      their code. Xplique instead takes 10 steps, of equal size but for rounding.
    """
    found = _features(image, heatmap, segments)
    return follow(
        predictor,
        image,
        found,
        _stops(found, step, segments is None),
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )


def insertion(
    predictor: Callable,
    image,
    heatmap,
    *,
    target: int | Sequence[int] | None = None,
    segments=None,
    step: int | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Curve:
    """The output while the most salient pixels or segments appear first; higher is better.

    The reverse of `deletion`, whose arguments it takes: from none of the image to all of it. The
    published metric starts from the image under a Gaussian blur, 11 pixels wide with sigma 5:
    `lmjax.Replace("blur", sigma=5, radius=5)`.

    Args:
      predictor: (image, masks) -> logits; it decides what stands where pixels are still hidden.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[H, W]`, higher = more salient; with segments also `[S]`, the segments' own scores.
      target: class or classes whose output is followed; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1, none missing: whole segments appear.
      step: features that appear in each step; None: as many pixels as the image is wide, or one
        segment.
      output: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `Curve` from none of the image (fraction 0) to the whole (fraction 1); the metric is its
      `normalised_auc`.

    Raises:
      ValueError: as `deletion`.

    References:
      Petsiuk, Das & Saenko 2018, "RISE" (arXiv 1806.07421), section 4, and `evaluation.py` of
      their code.
    """
    found = _features(image, heatmap, segments)
    return follow(
        predictor,
        image,
        found,
        _stops(found, step, segments is None),
        reveal=True,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )


def follow(
    predictor: Callable,
    image,
    found: Features,
    stops: np.ndarray,
    *,
    order: np.ndarray | None = None,
    reveal: bool = False,
    **options,
) -> Curve:
    """The curve of features that go (or, with `reveal`, come) in an order.

    Args:
      predictor, image, options: as in `lmjax.attribution.game.answer`.
      found: the features.
      stops: `[n + 1]` ints, how many features have gone after each step, from 0 (to all of them,
        with `reveal`).
      order: `[F]`, the features, first to go first; None takes them by falling score.
    """
    order = found.order if order is None else order
    # The whole image, at one end of the curve, is among the answers anyway.
    partly = stops[:-1] if reveal else stops[1:]
    ends = np.zeros_like(partly) if reveal else np.full_like(partly, len(order))
    ranges = np.stack([ends, partly] if reveal else [partly, ends], axis=1)
    answers = answer(predictor, image, RankRanges(found.ranks(order), ranges), **options)
    values, whole = answers.values.T, answers.whole[..., None]
    pixels = np.append(0, found.sizes[order].cumsum())[stops]
    return Curve(
        fractions=pixels / found.labels.size,
        values=np.concatenate([values, whole] if reveal else [whole, values], axis=-1),
        target=answers.target,
    )


def _features(image, heatmap, segments) -> Features:
    check_image(image)
    return features(heatmap, segments, np.shape(image)[:2])


def _stops(found: Features, step: int | None, pixelwise: bool) -> np.ndarray:
    count = len(found.scores)
    if step is None:
        step = found.labels.shape[1] if pixelwise else 1
    step = check_count(step, "step")
    return np.minimum(np.arange(-(-count // step) + 1) * step, count)
