"""Does an attribution point at the object? Heatmaps against object masks."""

import numpy as np


def relevance_rank_accuracy(heatmap, object_mask) -> float:
    """Share of the object found by the highest pixels of a heatmap, as many as the object has.

    Where pixels of equal value straddle the limit (all pixels of a segment have one value), they
    count by the share of them that fits: the mean over all ways to break the tie.

    Args:
      heatmap: `[H, W]`, higher = more relevant.
      object_mask: `[H, W]` bool, True = object.

    Returns:
      A share in [0, 1]. A constant heatmap gets the object's share of the image.

    Raises:
      ValueError: shapes that differ, an object without pixels, or non-finite heatmaps.

    References:
      Arras, Osman & Samek 2022, "CLEVR-XAI" (arXiv 2003.07258), section 3.3.
    """
    heatmap, object_mask = np.asarray(heatmap), np.asarray(object_mask, bool)
    if heatmap.ndim != 2 or heatmap.shape != object_mask.shape:
        raise ValueError(
            f"heatmap and object_mask must both be [H, W], got shapes {heatmap.shape} and "
            f"{object_mask.shape}"
        )
    if not np.isfinite(heatmap).all():
        raise ValueError("heatmap holds NaN or infinity")
    size = int(object_mask.sum())
    if size == 0:
        raise ValueError("object_mask has no object pixel; True = object")
    threshold = np.partition(heatmap, -size, axis=None)[-size]
    above, equal = heatmap > threshold, heatmap == threshold
    fitting = (size - above.sum()) / equal.sum()
    return float((object_mask[above].sum() + fitting * object_mask[equal].sum()) / size)
