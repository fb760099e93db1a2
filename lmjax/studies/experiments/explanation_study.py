"""What studies of explanations share: LIME under several removals, and ablation of its ranking."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lmjax._utils.sizes import power_of_two
from lmjax.attribution import lime_regression
from lmjax.masks.coalitions import random_keep
from lmjax.studies.images import SEGMENTERS, Block, segmenter_options
from lmjax.studies.study import Study, check_choices


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplanationStudy(Study):
    """How images are explained.

    Attributes:
      segmenter: "grid", "slic", "quickshift" or "felzenszwalb".
      grid_size: side of the squares of "grid", in pixels.
      n_segments: about how many segments "slic" makes.
      samples: coalitions in a matrix, the whole image among them.
      ks: how many of the segments of highest score count, rising from 1; of an image that has
        fewer segments, all.
    """

    segmenter: str = "grid"
    grid_size: int = 16
    n_segments: int = 50
    samples: int = 512
    ks: tuple[int, ...] = tuple(range(1, 51))

    def __post_init__(self):
        check_choices("segmenter", (self.segmenter,), SEGMENTERS)
        for option, least in (("grid_size", 1), ("n_segments", 1), ("samples", 2)):
            if getattr(self, option) < least:
                raise ValueError(f"{option} must be {least} or more, got {getattr(self, option)!r}")
        if not self.ks or sorted({*self.ks}) != list(self.ks) or self.ks[0] < 1:
            raise ValueError(f"ks must rise from 1 segment or more, got {self.ks!r}")

    def segments(self, block: Block, network: str) -> np.ndarray:
        """int32 `[M, H, W]`, the label map of each image."""
        options = segmenter_options(
            self.segmenter, grid_size=self.grid_size, n_segments=self.n_segments
        )
        return block.segments(network, self.segmenter, **options)

    def explain(
        self, block: Block, network: str, removals: Sequence[str], *, draw: int = 0
    ) -> list[np.ndarray]:
        """Explanations of the predicted classes: scores `[R, S]` for each image.

        They are those of `lmjax.attribution.lime` with its defaults, and share a matrix of
        coalitions: an image's scores differ by nothing but the removal.

        Args:
          block: the images.
          network: its name.
          removals: R names.
          draw: number of the matrix; another is independent of it.
        """
        segments = self.segments(block, network)
        drawn = [
            np.asarray(random_keep(count, self.samples, key=jax.random.fold_in(key, draw)))
            for count, key in zip(_counts(segments), block.keys)
        ]
        columns = power_of_two(int(segments.max()) + 1)
        keep = np.concatenate([np.pad(x, ((0, 0), (0, columns - x.shape[1]))) for x in drawn])
        image_of = np.repeat(np.arange(len(drawn)), self.samples)
        targets = block.whole(network).argmax(axis=1)[image_of]
        outputs = []
        for removal in removals:
            logits = block.coalition_logits(network, removal, segments, keep, image_of)
            chosen = np.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
            outputs.append(np.exp(chosen - np.logaddexp.reduce(logits, axis=1)))
        outputs = np.stack(outputs, axis=1).reshape(len(drawn), self.samples, len(removals))
        return [np.asarray(lime_regression(x, y)[0]) for x, y in zip(drawn, outputs)]

    def ablate(
        self, block: Block, network: str, removal: str, orders: Sequence[Sequence[np.ndarray]]
    ) -> list[list[dict[str, Any]]]:
        """What a network answers when the first segments of some orders are removed.

        Args:
          block: the images.
          network: its name.
          removal: how they are removed.
          orders: for each explanation, an order of segments for each image.

        Returns:
          For each explanation, a row for each image and k: `block.answers` with `k`, the number of
          segments `removed` and the share of pixels `visible`.
        """
        segments = self.segments(block, network)
        counts, columns = _counts(segments), power_of_two(int(segments.max()) + 1)
        areas = [np.bincount(each.ravel(), minlength=columns) / each.size for each in segments]
        keep, about, image_of = [], [], []
        for of_images in orders:
            for i, order in enumerate(of_images):
                ranks = np.full(columns, -1)
                ranks[order] = np.arange(len(order))
                for k in self.ks:
                    keep.append(ranks >= k)
                    removed, visible = min(k, counts[i]), float(areas[i] @ keep[-1])
                    about.append({"k": k, "removed": removed, "visible": visible})
                    image_of.append(i)
        logits = block.coalition_logits(network, removal, segments, np.array(keep), image_of)
        answers = block.answers(network, logits, image_of)
        rows = [{**answer, **each} for answer, each in zip(answers, about, strict=True)]
        of_each = len(rows) // len(orders)
        return [rows[i : i + of_each] for i in range(0, len(rows), of_each)]


def order(scores: np.ndarray) -> np.ndarray:
    """Segments by falling score; equals stand in the order of their labels."""
    return np.argsort(-scores, kind="stable")


def _counts(segments: np.ndarray) -> list[int]:
    """How many segments each image has."""
    return [int(each.max()) + 1 for each in segments]
