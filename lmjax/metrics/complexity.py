"""Complexity of maps: on how few parts of an image an explanation rests."""

import numpy as np
from jax.typing import ArrayLike

from lmjax.metrics.ranked_regions import check_scores


def sparseness(heatmap: ArrayLike) -> float:
    """Computes the Gini index of a map's absolute scores.

    Scores of equal size have 0, a single score that is not 0 among n has 1 - 1/n.

    Example:
      >>> round(lmjax.metrics.sparseness([0, 0, 0, 1]), 2)
      0.75

    Args:
      heatmap: scores of any shape, such as `[H, W]` or `[S]`; a map that repeats the scores of
        segments weighs them by their pixels.

    Returns:
      A number in [0, 1); NaN where all scores are 0.

    Raises:
      ValueError: no scores, NaN or infinity.

    References:
      Hurley & Rickard 2009, "Comparing measures of sparsity" (arXiv 0811.4706); for attributions:
      Chalasani et al. 2020, "Concise explanations of neural networks using adversarial training"
      (arXiv 1810.06583). Quantus adds 1e-7 to each score first.
    """
    shares = np.sort(_shares(heatmap))
    rank = np.arange(1, len(shares) + 1)
    return float((2 * rank - len(shares) - 1) @ shares / len(shares))


def entropy_complexity(heatmap: ArrayLike) -> float:
    """Computes the entropy of the shares that parts of an image have in a map, in nats.

    Example:
      >>> round(lmjax.metrics.entropy_complexity([1, 1, 1, 1]), 2)  # ln 4
      1.39

    Args:
      heatmap: scores of any shape, such as `[H, W]` or `[S]`, n in all; a map that repeats the
        scores of segments counts each of their pixels.

    Returns:
      A number from 0, where a single score is not 0, to log n, where all have equal size; NaN where
      all scores are 0.

    Raises:
      ValueError: no scores, NaN or infinity.

    References:
      Bhatt, Weller & Moura 2020, "Evaluating and aggregating feature-based model explanations"
      (arXiv 2005.00631). As Quantus.
    """
    shares = _shares(heatmap)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares != 0)
    return float(abs(shares @ logs))


def _shares(heatmap: ArrayLike) -> np.ndarray:
    """Returns absolute scores as shares of their sum, `[n]`, NaN where that is 0."""
    sizes = np.abs(check_scores(heatmap, "heatmap")).ravel()
    if sizes.size == 0:
        raise ValueError("heatmap must hold one or more scores, got none")
    largest = sizes.max()
    if largest == 0:
        return np.full_like(sizes, np.nan)
    sizes = sizes / largest  # sums of very small or large numbers leave the range of floats
    return sizes / sizes.sum()
