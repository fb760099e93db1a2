"""Agreement of two maps, and statistics over a set of images."""

import dataclasses

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_flag, check_number, check_whole
from lmjax._utils.keys import check_key
from lmjax.metrics.ranked_regions import check_scores


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Computes Spearman's rank correlation of two maps; equal scores share the mean of their ranks.

    Example:
      >>> round(lmjax.metrics.spearman([1, 2, 3], [1, 4, 9]), 2)
      1.0

    Args:
      first: scores of any shape, such as `[H, W]` or `[S]`.
      second: scores of the same shape.

    Returns:
      A number in [-1, 1]; NaN where a map is constant.

    Raises:
      ValueError: shapes that differ, fewer than 2 scores, NaN or infinity.

    References:
      Spearman 1904. As `scipy.stats.spearmanr`; for heatmaps: Adebayo et al. 2018, "Sanity checks
      for saliency maps" (arXiv 1810.03292).
    """
    return float(pearson(*map(ranked, _flat(first, second))))


def kendall(first: ArrayLike, second: ArrayLike) -> float:
    """Computes Kendall's rank correlation of two maps: tau-b, which corrects for equal scores.

    Example:
      >>> round(lmjax.metrics.kendall([1, 2, 3], [3, 2, 1]), 2)
      -1.0

    Args:
      first: scores of any shape, such as `[H, W]` or `[S]`.
      second: scores of the same shape.

    Returns:
      A number in [-1, 1]; NaN where a map is constant.

    Raises:
      ValueError: shapes that differ, fewer than 2 scores, NaN or infinity.

    References:
      Kendall 1945; `scipy.stats.kendalltau`.
    """
    from scipy.stats import kendalltau

    found = kendalltau(*_flat(first, second))
    return float(found.statistic)  # pyright: ignore[reportAttributeAccessIssue]  # SciPy is untyped


def cosine_similarity(first: ArrayLike, second: ArrayLike) -> float:
    """Computes the cosine of the angle between two maps, as vectors.

    Example:
      >>> round(lmjax.metrics.cosine_similarity([1, 0], [1, 1]), 2)
      0.71

    Args:
      first: scores of any shape, such as `[H, W]` or `[S]`.
      second: scores of the same shape.

    Returns:
      A number in [-1, 1]; NaN where a map is all zeros.

    Raises:
      ValueError: shapes that differ, fewer than 2 scores, NaN or infinity.
    """
    first, second = _flat(first, second)
    return float(_divide(first @ second, np.sqrt((first @ first) * (second @ second))))


def top_k_jaccard(first: ArrayLike, second: ArrayLike, *, k: int) -> float:
    """Computes the Jaccard index of the k highest scores of two maps: intersection over union.

    Example:
      >>> round(lmjax.metrics.top_k_jaccard([4, 3, 2, 1], [4, 1, 3, 2], k=2), 2)
      0.33

    Args:
      first: scores of any shape, such as `[H, W]` or `[S]`.
      second: scores of the same shape.
      k: number of highest scores; of equal scores the first in reading order count.

    Returns:
      A number in [0, 1].

    Raises:
      ValueError: shapes that differ, k not within 1 and the number of scores, NaN or infinity.

    References:
      Jaccard 1901. Ghorbani, Abid & Zou 2019, "Interpretation of neural networks is fragile" (arXiv
      1710.10547), count the same intersection but divide it by k.
    """
    first, second = _flat(first, second)
    k = check_whole("k", k, least=1, most=first.size)
    one, other = (np.argsort(-scores, kind="stable")[:k] for scores in (first, second))
    shared = len(np.intersect1d(one, other))
    return shared / (2 * k - shared)


def ssim(first: ArrayLike, second: ArrayLike, *, window: int = 7) -> float:
    """Computes the structural similarity of two heatmaps, each rescaled to [0, 1] first.

    Example:
      >>> round(lmjax.metrics.ssim(heatmap, heatmap), 2)
      1.0

    Args:
      first: `[H, W]`, 3 x 3 or larger.
      second: of the same shape.
      window: side of the square windows, in pixels: odd, 3 or more, no larger than the maps. 7 is
        scikit-image's.

    Returns:
      A number in [-1, 1]. A constant map is rescaled to zeros.

    Raises:
      ValueError: other shapes, windows that do not fit, NaN or infinity.

    References:
      Wang et al. 2004, "Image quality assessment", by `skimage.metrics.structural_similarity` with
      its constants. Adebayo et al. 2018 (arXiv 1810.03292) also rescale each map, so that scale and
      offset do not count.
    """
    from skimage.metrics import structural_similarity

    shape = np.shape(first)
    if len(shape) != 2 or min(shape) < 3:
        raise ValueError(f"first must be [H, W], 3 x 3 or larger; got shape {shape}")
    window = check_whole("window", window, least=3, most=min(shape))
    if window % 2 == 0:
        raise ValueError(f"window must be odd, got {window}")
    first, second = (_rescale(each).reshape(shape) for each in _flat(first, second))
    similarity = structural_similarity(first, second, win_size=window, data_range=1.0)
    return float(similarity)  # pyright: ignore[reportArgumentType]  # a number without full=True


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """A mean over images, with its bootstrap confidence interval.

    Attributes:
      mean: of any shape.
      low: lower end of the interval, in the same shape; NaN of a single image, which does not say
        how images differ.
      high: upper end, likewise.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrap_mean(
    values: ArrayLike, *, key: jax.Array, num_resamples: int = 1000, confidence: float = 0.95
) -> Estimate:
    """Averages over images, with a bootstrap confidence interval.

    Example:
      >>> float(lmjax.metrics.bootstrap_mean([1.0, 2.0, 3.0], key=key).mean)
      2.0

    Args:
      values: `[N, ...]`, one for each of N images.
      key: random key; the same key gives the same interval.
      num_resamples: number of times that N images are drawn, with replacement.
      confidence: share of the resampled means within the interval.

    Returns:
      `Estimate` of shape `[...]`; of one image its interval is NaN.

    Raises:
      ValueError: no images, NaN or infinity, options out of range.

    References:
      Efron 1979; the percentile interval, as `scipy.stats.bootstrap(method="percentile")`.
    """
    values = check_scores(values, "values")
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"values must be [N, ...] of 1 or more images, got shape {values.shape}")
    check_key(key)
    confidence = check_number("confidence", confidence, above=0, below=1)
    count = check_whole("num_resamples", num_resamples, least=1)
    flat = values.reshape(len(values), -1)
    means = np.empty((count, flat.shape[1]))
    draws = np.asarray(jax.random.randint(key, (count, len(values)), 0, len(values), np.int32))
    for mean, drawn in zip(means, draws):
        mean[:] = np.bincount(drawn, minlength=len(values)) @ flat / len(values)
    tail = (1 - confidence) / 2
    if len(values) < 2:
        means[:] = np.nan
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    shape = values.shape[1:]
    return Estimate(values.mean(axis=0), low.reshape(shape), high.reshape(shape))


def win_rates(
    scores: ArrayLike,
    *,
    key: jax.Array,
    higher_is_better: bool = True,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """Computes how often each method beats each other one over a set of images; ties count half.

    Example:
      >>> rates = lmjax.metrics.win_rates([[3, 1], [2, 1]], key=key)  # two images, two methods
      >>> rates.mean.tolist()
      [[0.5, 1.0], [0.0, 0.5]]

    Args:
      scores: `[N, M]`, a metric's value for N images and M methods.
      key: random key of the bootstrap.
      higher_is_better: False for metrics such as deletion.
      num_resamples: as in `bootstrap_mean`.
      confidence: as in `bootstrap_mean`.

    Returns:
      `Estimate` `[M, M]`: in row i and column j, the share of images on which method i beats method
      j, with its bootstrap interval over images. 0.5 on the diagonal.

    Raises:
      ValueError: another shape, NaN or infinity, options out of range.
    """
    scores = check_scores(scores, "scores")
    if scores.ndim != 2:
        raise ValueError(f"scores must be [N, M], images by methods; got shape {scores.shape}")
    gap = scores[:, :, None] - scores[:, None, :]
    higher_is_better = check_flag("higher_is_better", higher_is_better)
    wins = (np.sign(gap if higher_is_better else -gap) + 1) / 2
    return bootstrap_mean(wins, key=key, num_resamples=num_resamples, confidence=confidence)


def pearson(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes Pearson's correlation along the last axis; NaN where one is constant."""
    # Relative to the first value, constants are exactly 0 and small differences keep their digits.
    first, second = first - first[..., :1], second - second[..., :1]
    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    product = (first * second).sum(axis=-1)
    return _divide(product, np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1)))


def ranked(scores: np.ndarray) -> np.ndarray:
    """Ranks scores along the last axis; equal scores share the mean of their ranks."""
    from scipy.stats import rankdata

    return rankdata(scores, axis=-1)


def _divide(product: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Divides and clips to [-1, 1]; NaN where a norm is 0."""
    ratio = np.where(norms > 0, product, np.nan) / np.where(norms > 0, norms, 1)
    return np.clip(ratio, -1, 1)


def _flat(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns two checked maps as float64 vectors."""
    first, second = check_scores(first, "first"), check_scores(second, "second")
    if first.shape != second.shape or first.size < 2:
        raise ValueError(
            "first and second must have the same shape and 2 or more scores, got shapes "
            f"{first.shape} and {second.shape}"
        )
    return first.ravel(), second.ravel()


def _rescale(scores: np.ndarray) -> np.ndarray:
    """Maps scores linearly to [0, 1]; equal ones to 0."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low if high > low else 1)
