"""Localisation: whether heatmaps highlight the object that a mask marks."""

import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_number, check_whole
from lmjax.masks.segments import check_segments
from lmjax.metrics.agreement import cosine_similarity
from lmjax.metrics.ranked_regions import check_scores, rank_regions


def alignment(scores: ArrayLike, segments: ArrayLike, object_mask: ArrayLike) -> float:
    """Computes the cosine between the scores of segments and their overlap with the object.

    The overlap of segment i is g_i = sum over its pixels of (object mask - mean of the object
    mask): above 0 where the object's share of the segment exceeds its share of the image.

    Example:
      >>> round(lmjax.metrics.alignment([1, 0, 0, 0], segments, object_mask), 2)
      0.87

    Args:
      scores: `[S]`, higher = more relevant.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      object_mask: `[H, W]` bool, True = object; or 1 and 0, no other values.

    Returns:
      A number in [-1, 1]; 0 for scores that are all 0, NaN where the object has the same share of
      every segment.

    Raises:
      ValueError: shapes that differ, a single segment, an object without pixels or without
        background, scores with NaN.

    References:
      Balasubramanian & Feizi 2022 (arXiv 2211.14646), the LIME experiments, and their code, whose
      1e-8 in the denominator is left out here.
    """
    object_mask = _object(object_mask)
    if object_mask.all():
        raise ValueError(
            "object_mask marks every pixel as object: no segment overlaps more than another"
        )
    segments = check_segments(segments, object_mask.shape)
    regions = rank_regions(scores, segments)
    if regions.scores.shape != np.shape(scores):
        raise ValueError(f"scores must be [{len(regions.scores)}], got shape {np.shape(scores)}")
    # In whole numbers, times the number of pixels: equal shares are exactly 0.
    inside = np.bincount(segments.ravel()[object_mask.ravel()], minlength=len(regions.scores))
    overlap = inside * segments.size - np.bincount(segments.ravel()) * object_mask.sum()
    if len(regions.scores) < 2:
        raise ValueError("segments must be two or more, since overlaps are compared; got one")
    if not regions.scores.any():
        return 0.0
    return cosine_similarity(regions.scores, overlap)


def top_k_iou(
    heatmap: ArrayLike,
    object_mask: ArrayLike,
    *,
    segments: ArrayLike | None = None,
    k: int | None = None,
) -> float:
    """Computes intersection over union of the object and the k regions of highest score.

    Example:
      >>> lmjax.metrics.top_k_iou([1, 0, 0, 0], object_mask, segments=segments, k=2)
      0.5

    Args:
      heatmap: `[H, W]`, higher = more relevant; with segments also `[S]`, the segments' own scores.
      object_mask: `[H, W]` bool, True = object; or 1 and 0, no other values.
      segments: `[H, W]` ints, labels 0..S-1: the regions, scored by their mean. None: pixels.
      k: number of regions. None takes the fewest that have as many pixels as the object. Of equal
        scores the first in reading order (segments: in the order of their labels) count.

    Returns:
      A share in [0, 1].

    Raises:
      ValueError: shapes that differ, an object without pixels, k out of range, NaN or infinity.

    References:
      Balasubramanian & Feizi 2022 (arXiv 2211.14646): their code takes the 20 best segments.
    """
    object_mask = _object(object_mask)
    regions = rank_regions(heatmap, segments, object_mask.shape)
    if k is None:
        k = 1 + np.searchsorted(regions.sizes[regions.order].cumsum(), object_mask.sum())
    top = regions.ranks() < check_whole("k", k, least=1, most=len(regions.scores))
    return float((top & object_mask).sum() / (top | object_mask).sum())


def pointing_game(heatmap: ArrayLike, object_mask: ArrayLike, *, tolerance: float = 15) -> float:
    """Returns whether the highest pixel of a heatmap hits the object, within a tolerance.

    Where several pixels are highest (all pixels of a segment are equal), it is the share of them
    that hit: the mean over all ways to break the tie.

    Example:
      >>> lmjax.metrics.pointing_game(object_mask, object_mask, tolerance=0)
      1.0

    Args:
      heatmap: `[H, W]`, higher = more relevant.
      object_mask: `[H, W]` bool, True = object; or 1 and 0, no other values.
      tolerance: distance to the object that still hits, in pixels between their centres; 0 requires
        the object itself.

    Returns:
      1 (hit), 0 (miss) or a share; the metric of a set is the mean over its images (in the paper,
      over the classes' means).

    Raises:
      ValueError: shapes that differ, an object without pixels, a tolerance below 0, NaN or
        infinity.

    References:
      Zhang et al. 2018, "Top-down neural attention by excitation backprop" (arXiv 1608.00507), with
      its tolerance of 15 pixels. TorchRay hits below the tolerance, not at it, so that 0 never
      hits; it takes the first highest pixel. Quantus has no tolerance, and hits if any highest
      pixel does.
    """
    from scipy.ndimage import distance_transform_edt

    heatmap, object_mask = _maps(heatmap, object_mask)
    tolerance = check_number("tolerance", tolerance, least=0, note="pixels")
    distance = np.asarray(distance_transform_edt(~object_mask))
    return float((distance[heatmap == heatmap.max()] <= tolerance).mean())


def relevance_mass_accuracy(heatmap: ArrayLike, object_mask: ArrayLike) -> float:
    """Computes the share of the positive relevance that lies in the object.

    Example:
      >>> lmjax.metrics.relevance_mass_accuracy(1 + object_mask, object_mask)
      0.4

    Args:
      heatmap: `[H, W]`, higher = more relevant. Negative scores count as 0.
      object_mask: `[H, W]` bool, True = object; or 1 and 0, no other values.

    Returns:
      A share in [0, 1]; NaN where no score is positive.

    Raises:
      ValueError: shapes that differ, an object without pixels, NaN or infinity.

    References:
      Arras, Osman & Samek 2022, "CLEVR-XAI" (arXiv 2003.07258), section 3.3, whose heatmaps have no
      negative scores. Quantus divides signed sums, which leaves [0, 1].
    """
    heatmap, object_mask = _maps(heatmap, object_mask)
    positive = np.maximum(heatmap, 0)
    total = positive.sum()
    return float(positive[object_mask].sum() / total) if total > 0 else float("nan")


def relevance_rank_accuracy(heatmap: ArrayLike, object_mask: ArrayLike) -> float:
    """Computes the share of the object's pixels among the highest pixels of a heatmap.

    The highest pixels are as many as the object has. Where pixels of equal value straddle the limit
    (all pixels of a segment are equal), they count by the share of them that fits: the mean over
    all ways to break the tie.

    Example:
      >>> lmjax.metrics.relevance_rank_accuracy(object_mask, object_mask)
      1.0

    Args:
      heatmap: `[H, W]`, higher = more relevant.
      object_mask: `[H, W]` bool, True = object; or 1 and 0, no other values.

    Returns:
      A share in [0, 1]. A constant heatmap gets the object's share of the image.

    Raises:
      ValueError: shapes that differ, an object without pixels, or non-finite heatmaps.

    References:
      Arras, Osman & Samek 2022, "CLEVR-XAI" (arXiv 2003.07258), section 3.3. Quantus breaks ties by
      its sort.
    """
    heatmap, object_mask = _maps(heatmap, object_mask)
    size = int(object_mask.sum())
    threshold = np.partition(heatmap, -size, axis=None)[-size]
    above, equal = heatmap > threshold, heatmap == threshold
    fitting = (size - above.sum()) / equal.sum()
    return float((object_mask[above].sum() + fitting * object_mask[equal].sum()) / size)


def _object(object_mask: ArrayLike) -> np.ndarray:
    """Returns an object mask as bool `[H, W]`; raises ValueError where it marks no pixel."""
    object_mask = np.asarray(object_mask)
    if object_mask.ndim != 2:
        raise ValueError(f"object_mask must be [H, W], got shape {object_mask.shape}")
    bad = object_mask[~((object_mask == 0) | (object_mask == 1))]
    if bad.size:
        named = ", ".join(map(str, np.unique(bad)[:5]))
        raise ValueError(
            f"object_mask must hold only True (object) and False, or 1 and 0; got {named}; make it "
            "bool, for example object_mask > 0.5"
        )
    object_mask = object_mask.astype(bool)
    if not object_mask.any():
        raise ValueError("object_mask has no object pixel; True = object")
    return object_mask


def _maps(heatmap: ArrayLike, object_mask: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns a checked heatmap and an object mask of its shape."""
    heatmap = check_scores(heatmap, "heatmap")
    if heatmap.ndim != 2 or heatmap.shape != np.shape(object_mask):
        raise ValueError(
            f"heatmap and object_mask must both be [H, W], got shapes {heatmap.shape} and "
            f"{np.shape(object_mask)}"
        )
    return heatmap, _object(object_mask)
