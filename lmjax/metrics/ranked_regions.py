"""Ranked regions: the pixels or segments of an image, each with a score, that metrics remove."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_numbers
from lmjax.masks.families import RankRanges
from lmjax.masks.orders import segment_salience
from lmjax.masks.segments import check_segments


class RankedRegions(NamedTuple):
    """The regions of an image that a heatmap scores: its segments or its pixels.

    Attributes:
      labels: int32 `[H, W]`, the region of each pixel, 0..R-1.
      scores: float64 `[R]`.
    """

    labels: np.ndarray
    scores: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Number of pixels in each region, `[R]`."""
        return np.bincount(self.labels.ravel(), minlength=len(self.scores))

    @property
    def order(self) -> np.ndarray:
        """Regions by falling score, `[R]`.

        Equal scores keep the order of their labels, which for pixels is the reading order.
        """
        return np.argsort(-self.scores, kind="stable")

    def ranks(self, order: np.ndarray | None = None) -> np.ndarray:
        """Returns the rank of each pixel's region in an order, int32 `[H, W]`; None takes `order`.

        Args:
          order: `[R]`, a permutation of the regions.
        """
        ranks = np.empty(len(self.scores), np.int32)
        ranks[self.order if order is None else order] = np.arange(len(self.scores))
        return ranks[self.labels]

    def removed(self, counts: np.ndarray, order: np.ndarray | None = None) -> RankRanges:
        """Returns masks that hide the first regions of an order, as many as each count says.

        Args:
          counts: ints `[N]`, from 0 to R.
          order: as in `ranks`.
        """
        ends = np.full_like(counts, len(self.scores))
        return RankRanges(self.ranks(order), np.stack([counts, ends], axis=1))

    def kept(self, counts: np.ndarray, order: np.ndarray | None = None) -> RankRanges:
        """Returns masks that show only the first regions of an order, as many as each count says.

        Args:
          counts: ints `[N]`, from 0 to R.
          order: as in `ranks`.
        """
        return RankRanges(self.ranks(order), np.stack([np.zeros_like(counts), counts], axis=1))


def rank_regions(
    heatmap: ArrayLike,
    segments: ArrayLike | None = None,
    shape: tuple[int, int] | None = None,
    *,
    by: Literal["mean", "sum"] = "mean",
) -> RankedRegions:
    """Scores the segments of an image, or its pixels, by a heatmap.

    Args:
      heatmap: `[H, W]`, or with segments also `[S]`, the segments' own scores.
      segments: `[H, W]` ints, labels 0..S-1, none missing. None: every pixel is a region.
      shape: the image's (H, W), where there is an image to match.
      by: how pixels make the score of their segment: "mean" or "sum".

    Raises:
      ValueError: shapes that do not match, scores that are not finite numbers, bad labels.
    """
    heatmap = check_scores(heatmap, "heatmap")
    if segments is None:
        _check_map(heatmap, shape)
        pixels = np.arange(heatmap.size, dtype=np.int32).reshape(heatmap.shape)
        return RankedRegions(pixels, heatmap.ravel())
    segments = check_segments(segments, shape)
    num_segments = int(segments.max()) + 1
    if heatmap.shape == (num_segments,):
        return RankedRegions(segments, heatmap)
    if heatmap.shape != segments.shape:
        raise ValueError(
            f"heatmap must be {segments.shape} like the segments, or [{num_segments}], a score for "
            f"each of them; got shape {heatmap.shape}"
        )
    return RankedRegions(segments, segment_salience(heatmap, segments, by=by))


def check_scores(scores: ArrayLike, name: str) -> np.ndarray:
    """Returns scores as float64; raises ValueError unless they are finite numbers."""
    scores = check_numbers(name, scores)
    if not np.isfinite(scores).all():
        raise ValueError(f"{name} holds NaN or infinity in {(~np.isfinite(scores)).sum()} places")
    return scores


def map_of(explain: Callable[[Any], ArrayLike], subject: Any) -> np.ndarray:
    """Returns what `explain` gives of a subject, float64; raises ValueError unless it is finite."""
    return check_scores(explain(subject), "explain's map")


def _check_map(heatmap: np.ndarray, shape: tuple[int, int] | None) -> None:
    """Raises ValueError unless a heatmap is `[H, W]`, like the image where there is one."""
    if heatmap.ndim != 2 or heatmap.size == 0:
        raise ValueError(
            f"heatmap must be [H, W], got shape {heatmap.shape}; scores of segments need segments="
        )
    if shape is not None and heatmap.shape != tuple(shape):
        raise ValueError(
            f"heatmap must be {tuple(shape)} like the image, got shape {heatmap.shape}"
        )
