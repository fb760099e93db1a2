"""Heatmaps of a batch's images under several removals, and scores of heatmaps by curves.

All masks are binary, so that they are the same for all removals.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import ClassVar

import jax
import numpy as np

from lmjax.attribution.occlusion import effects_of_pixels, sliding_windows
from lmjax.masks.families import (
    Grids,
    MaskFamily,
    RankRanges,
    Windows,
    random_grids,
    weighted_sum,
)
from lmjax.metrics.curves import Curve
from lmjax.metrics.occlusion import step_counts
from lmjax.metrics.ranked_regions import RankedRegions, rank_regions
from lmjax.studies.images import ImageBatch

METRICS = ("morf", "lerf", "deletion", "insertion")
Heatmaps = dict[tuple[int, int], np.ndarray]
"""Heatmaps `[T, H, W]` of T targets, by the range of masks (start, stop) that they are made of."""

# Masks in one call, and masks made at once: pieces have few different lengths, since each length
# is compiled.
_PIXELS_PER_CALL = 2**27
_PIECE = 512


@dataclasses.dataclass(frozen=True)
class Rise:
    """Settings of RISE with binary masks (`lmjax.attribution.rise`).

    Attributes:
      grid: cells along each side.
      keep: how likely a cell is visible.
      masks: numbers of masks, rising.
    """

    generator: ClassVar[str] = "rise"
    grid: int
    keep: float
    masks: tuple[int, ...]

    def __str__(self) -> str:
        return f"grid {self.grid}, keep {self.keep:g}"

    def family(self, shape: tuple[int, int], key: jax.Array) -> Grids:
        """Draws the masks of an image of (H, W)."""
        options = {"grid": self.grid, "keep_probability": self.keep}
        return random_grids(shape, self.masks[-1], key=key, **options)

    def heatmaps(self, family: Grids, values: np.ndarray, whole: float) -> Heatmaps:
        """Averages, for each pixel, the values of the variants that show it.

        Args:
          family: N masks.
          values: `[N, T]`, probabilities under them.
          whole: probability of the whole image, which RISE does not use.

        Returns:
          A heatmap of the first n masks for each number n, (0, n); and where there are 2 n masks,
          one of the next n, (n, 2 n).
        """
        ranges = [(0, n) for n in self.masks]
        ranges += [(n, 2 * n) for n in self.masks if 2 * n <= self.masks[-1]]
        cuts = sorted({end for each in ranges for end in each})
        centre = values.mean(axis=0)  # counted from it, small differences keep their digits
        sums = {0: np.zeros((1 + values.shape[1], *family.spatial_shape))}
        for start, stop in itertools.pairwise(cuts):
            part = dataclasses.replace(
                family, cells=family.cells[start:stop], shifts=family.shifts[start:stop]
            )
            weights = np.c_[np.ones(stop - start), values[start:stop] - centre]
            sums[stop] = sums[start] + weighted_sum(part, weights)
        found = {}
        for start, stop in ranges:
            count, *totals = sums[stop] - sums[start]
            unseen = values[start:stop].mean(axis=0) - centre
            means = np.where(count > 0, totals / np.maximum(count, 1), unseen[:, None, None])
            found[start, stop] = centre[:, None, None] + means
        return found


@dataclasses.dataclass(frozen=True)
class Occlusion:
    """Settings of occlusion (`lmjax.attribution.occlusion`).

    Attributes:
      window: side in pixels.
      stride: step in pixels.
    """

    generator: ClassVar[str] = "occlusion"
    window: int
    stride: int

    def __str__(self) -> str:
        return f"window {self.window}, stride {self.stride}"

    def family(self, shape: tuple[int, int], key: jax.Array) -> Windows:
        """Makes the masks of any image of (H, W); the key is not used."""
        return sliding_windows(shape, self.window, self.stride)

    def heatmaps(self, family: Windows, values: np.ndarray, whole: float) -> Heatmaps:
        """Averages, for each pixel, by how much the value falls when a window over it is hidden.

        Args:
          family: N masks.
          values: `[N, T]`, probabilities under them.
          whole: probability of the whole image.

        Returns:
          One heatmap, (0, N).
        """
        return {(0, len(family)): effects_of_pixels(family, whole - values)}


def probabilities(
    batch: ImageBatch,
    network: str,
    removals: Sequence[str],
    variants: Sequence[tuple[int, MaskFamily]],
    classes: np.ndarray,
    parts: Sequence[str],
) -> dict[str, list[np.ndarray]]:
    """Evaluates the probabilities of a class under masks, for several images and removals.

    Args:
      batch: the images.
      network: its name.
      removals: their names.
      variants: places of images in the batch, and their masks.
      classes: `[M]`, the class of each of the batch's images.
      parts: of the study, for each family of masks; see `ImageBatch.part`.

    Returns:
      For each removal, float64 `[N]` for each family of masks.
    """
    found = {removal: [np.empty(len(family)) for _, family in variants] for removal in removals}
    if not variants:
        return found
    height, width = variants[0][1].spatial_shape
    most = max(_PIXELS_PER_CALL // (height * width), _PIECE)
    total = sum(len(family) for _, family in variants)
    for pieces in _calls([len(family) for _, family in variants], most):
        masks = np.concatenate([np.asarray(variants[n][1].masks(rows)) for n, rows in pieces])
        lengths = [rows.stop - rows.start for _, rows in pieces]
        image_of = np.repeat([variants[n][0] for n, _ in pieces], lengths)
        of_parts = [(parts[n], length) for (n, _), length in zip(pieces, lengths)]
        for removal in removals:
            logits = batch.logits(network, removal, masks, image_of, total=total, parts=of_parts)
            values = probability(logits, classes[image_of])
            for (n, rows), part in zip(pieces, np.split(values, np.cumsum(lengths)[:-1])):
                found[removal][n][rows] = part
    return found


def probability(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns float64 `[N]`, of a class for each of `[N, K]`; keeps digits of values close to 1."""
    logits = logits.astype(np.float64)
    chosen = np.take_along_axis(logits, classes[:, None], axis=1)[:, 0]
    return np.exp(chosen - np.logaddexp.reduce(logits, axis=1))


def _calls(lengths: Sequence[int], most: int) -> Iterator[list[tuple[int, slice]]]:
    """Divides families of these lengths into calls of at most `most` masks.

    Yields:
      (number of the family, its rows) of all pieces in a call.
    """
    call, size = [], 0
    for n, length in enumerate(lengths):
        for start in range(0, length, _PIECE):
            rows = slice(start, min(start + _PIECE, length))
            if call and size + rows.stop - rows.start > most:
                yield call
                call, size = [], 0
            call.append((n, rows))
            size += rows.stop - rows.start
    if call:
        yield call


@dataclasses.dataclass(frozen=True)
class Path:
    """Path of a metric: the masks between the whole image and none of it.

    Attributes:
      family: the visible pixels after each step but the first and last.
      stops: `[n + 1]`, regions removed (for insertion: revealed) after each step.
      reveal: whether regions are revealed, so that the whole image comes last.
    """

    family: RankRanges
    stops: np.ndarray
    reveal: bool

    def score(self, values: np.ndarray, whole: float, nothing: float) -> float:
        """Returns the area under the curve of `values` `[n - 1]` between the values at its ends."""
        first, last = (nothing, whole) if self.reveal else (whole, nothing)
        curve = np.concatenate([[first], values, [last]])
        return float(Curve(self.stops / self.stops[-1], curve, target=0).normalised_auc)


def path(metric: str, heatmap: np.ndarray, *, steps: int, regions: np.ndarray) -> Path:
    """Makes the path of a metric along a heatmap.

    Args:
      metric: one of `METRICS`: "deletion" and "insertion" remove or reveal pixels, most salient
        first (`lmjax.metrics.deletion`); "morf" and "lerf" remove regions, most or least salient
        first (`lmjax.metrics.region_perturbation`).
      heatmap: `[H, W]`.
      steps: n; where there are fewer regions, one step for each.
      regions: `[H, W]` ints, the regions of "morf" and "lerf".
    """
    ranked = _ranked(metric, heatmap, regions)
    stops = step_counts(len(ranked.scores), steps)
    order = ranked.order[::-1] if metric == "lerf" else ranked.order
    reveal = metric == "insertion"
    masks = ranked.kept if reveal else ranked.removed
    return Path(masks(stops[1:-1], order), stops, reveal)


def _ranked(metric: str, heatmap: np.ndarray, regions: np.ndarray) -> RankedRegions:
    """Returns the pixels or regions that a metric removes or reveals, with their scores."""
    if metric in ("deletion", "insertion"):
        return rank_regions(heatmap)
    return rank_regions(heatmap, regions, by="sum")
