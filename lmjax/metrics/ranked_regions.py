"""What metrics take away and put back: pixels or segments, each with a score."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lmjax.masks.segments import check_segments


class Features(NamedTuple):
    """The parts of an image that a heatmap scores.

    Attributes:
      labels: int32 `[H, W]`, the feature that a pixel belongs to, 0..F-1.
      scores: float64 `[F]`.
    """

    labels: np.ndarray
    scores: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """`[F]`, pixels of each feature."""
        return np.bincount(self.labels.ravel(), minlength=len(self.scores))

    @property
    def order(self) -> np.ndarray:
        """`[F]`, features by falling score. Equal scores keep the order of their labels, which for
        pixels is the order of reading."""
        return np.argsort(-self.scores, kind="stable")

    def ranks(self, order: np.ndarray | None = None) -> np.ndarray:
        """int32 `[H, W]`, the place of each pixel's feature in an order; None takes `order`."""
        ranks = np.empty(len(self.scores), np.int32)
        ranks[self.order if order is None else order] = np.arange(len(self.scores))
        return ranks[self.labels]


def features(
    heatmap, segments=None, shape: tuple[int, int] | None = None, *, by: str = "mean"
) -> Features:
    """The features of a heatmap.

    Args:
      heatmap: `[H, W]`, or with segments also `[S]`, the segments' own scores.
      segments: `[H, W]` ints, labels 0..S-1, none missing. None: every pixel is a feature.
      shape: the image's (H, W), where there is an image to match.
      by: how pixels make the score of their segment: "mean" or "sum".

    Raises:
      ValueError: shapes that do not match, scores that are no finite numbers, bad labels.
    """
    heatmap = check_scores(heatmap, "heatmap")
    if segments is None:
        _check_map(heatmap, shape)
        pixels = np.arange(heatmap.size, dtype=np.int32).reshape(heatmap.shape)
        return Features(pixels, heatmap.ravel())
    segments = check_segments(segments, shape)
    num_segments = int(segments.max()) + 1
    if heatmap.shape == (num_segments,):
        return Features(segments, heatmap)
    if heatmap.shape != segments.shape:
        raise ValueError(
            f"heatmap must be {segments.shape} like the segments, or [{num_segments}], a score for "
            f"each of them; got shape {heatmap.shape}"
        )
    scores = np.bincount(segments.ravel(), heatmap.ravel())
    found = Features(segments, scores)
    return found if by == "sum" else found._replace(scores=scores / found.sizes)


def check_scores(scores, name: str) -> np.ndarray:
    """Checked scores as float64; raises ValueError unless they are finite numbers."""
    scores = np.asarray(scores)
    if scores.dtype != bool and not jnp.issubdtype(scores.dtype, jnp.number):
        raise ValueError(f"{name} must hold numbers, got dtype {scores.dtype}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{name} holds NaN or infinity in {(~np.isfinite(scores)).sum()} places")
    return scores.astype(np.float64)


def check_count(value, name: str, most: int | None = None) -> int:
    """Raises ValueError unless `value` is a whole number from 1 (to `most`)."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        limit = "1 or more" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name} must be a whole number, {limit}; got {value!r}")
    return int(value)


def _check_map(heatmap: np.ndarray, shape: tuple[int, int] | None) -> None:
    if heatmap.ndim != 2 or heatmap.size == 0:
        raise ValueError(
            f"heatmap must be [H, W], got shape {heatmap.shape}; scores of segments need segments="
        )
    if shape is not None and heatmap.shape != tuple(shape):
        raise ValueError(
            f"heatmap must be {tuple(shape)} like the image, got shape {heatmap.shape}"
        )
