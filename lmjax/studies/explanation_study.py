"""Base class of the studies of explanations: LIME under removals, and ablation of its ranking."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lmjax._utils.checks import check_choice, check_whole, set_plain_numbers
from lmjax._utils.sizes import power_of_two
from lmjax.attribution import lime_regression
from lmjax.evaluation.outputs import OUTPUTS, Output, output_values
from lmjax.masks import segments
from lmjax.masks.coalitions import ImageCoalitions, random_keep
from lmjax.studies.images import ImageBatch
from lmjax.studies.settings import check_whole_numbers
from lmjax.studies.sizes import shared_patch_size
from lmjax.studies.study import Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplanationStudy(Study):
    """Settings of explanations, and how they are computed and ablated.

    Attributes:
      segmenter: one of `lmjax.segments.names()`, such as "grid" or "slic".
      grid_size: side of the squares of "grid", in pixels; by default that of the patches which
        segments snap to, and 16 where there are none.
      n_segments: about how many segments "slic" and "slic_near" make.
      snap_to_patches: where there is a transformer among networks that see images alike, make
        segments of its whole patches.
      num_samples: coalitions in a matrix, the whole image among them.
      objective: what is explained of the predicted class: probability, logit, or margin, the logit
        minus the highest of the others.
      ks: numbers of segments of highest score, rising from 1; of an image that has fewer segments,
        all.
    """

    segmenter: str = "grid"
    grid_size: int | None = None
    n_segments: int = 50
    snap_to_patches: bool = True
    num_samples: int = 512
    objective: Output = "probability"
    ks: tuple[int, ...] = tuple(range(1, 51))

    def __post_init__(self):
        set_plain_numbers(self)
        check_choice("segmenter", self.segmenter, segments.names())
        check_choice("objective", self.objective, OUTPUTS)
        for option, least in (("grid_size", 1), ("n_segments", 1), ("num_samples", 2)):
            if getattr(self, option) is not None:
                check_whole(option, getattr(self, option), least=least)
        check_whole_numbers("ks", self.ks, rising=True)

    def check(self, networks) -> None:
        super().check(networks)
        if self.snap_to_patches:
            shared_patch_size(networks)

    def segments(self, batch: ImageBatch, network: str) -> np.ndarray:
        """Returns int32 `[M, H, W]`, the label map of each image."""
        sizes = {"size": self.grid_size, "n_segments": self.n_segments}
        snap = {"snap_to_patches": self.snap_to_patches}
        return batch.segments(network, self.segmenter, **snap, **sizes)

    def explain(
        self, batch: ImageBatch, network: str, removals: Sequence[str], *, draw: int = 0
    ) -> list[np.ndarray]:
        """Explains the predicted classes, as `lmjax.attribution.lime` does with its defaults.

        All removals share a matrix of coalitions: an image's scores differ only by the removal.

        Args:
          batch: the images.
          network: its name.
          removals: R names.
          draw: number of the matrix; those of different numbers are independent.

        Returns:
          Scores `[R, S]` for each image.
        """
        segments = self.segments(batch, network)
        drawn = [
            np.asarray(random_keep(count, self.num_samples, key=jax.random.fold_in(key, draw)))
            for count, key in zip(_counts(segments), batch.keys)
        ]
        columns = power_of_two(int(segments.max()) + 1)
        keep = np.concatenate([np.pad(x, ((0, 0), (0, columns - x.shape[1]))) for x in drawn])
        image_of = np.repeat(np.arange(len(drawn)), self.num_samples)
        targets = batch.whole_predictions(network)[image_of]
        outputs = []
        for removal in removals:
            with batch.part("LIME"):
                logits = batch.coalition_logits(network, removal, segments, keep, image_of)
            values = output_values(logits, self.objective)
            outputs.append(np.take_along_axis(values, targets[:, None], axis=1)[:, 0])
        outputs = np.stack(outputs, axis=1).reshape(len(drawn), self.num_samples, len(removals))
        return [np.asarray(lime_regression(x, y)[0]) for x, y in zip(drawn, outputs)]

    def ablate(
        self, batch: ImageBatch, network: str, removal: str, orders: Sequence[Sequence[np.ndarray]]
    ) -> list[list[dict[str, Any]]]:
        """Evaluates a network while the first segments of some orders are removed.

        Args:
          batch: the images.
          network: its name.
          removal: how they are removed.
          orders: for each explanation, an order of segments for each image.

        Returns:
          For each explanation, a row for each image and k: `batch.predictions` with `k`, the number
          of segments `removed`, the share of pixels that are `visible` and the share `shown`.
        """
        segments = self.segments(batch, network)
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
        keep, image_of = np.array(keep), np.array(image_of)
        with batch.part("ablation"):
            logits = batch.coalition_logits(network, removal, segments, keep, image_of)
        shown = batch.shares_shown(network, removal, ImageCoalitions(segments, keep), image_of)
        predictions = batch.predictions(network, logits, image_of)
        rows = [
            {**row, **each, "shown": share}
            for row, each, share in zip(predictions, about, shown.tolist(), strict=True)
        ]
        length = len(rows) // len(orders)
        return [rows[i : i + length] for i in range(0, len(rows), length)]


def ranking(scores: np.ndarray) -> np.ndarray:
    """Ranks segments by falling score; equal scores keep the order of their labels."""
    return np.argsort(-scores, kind="stable")


def _counts(segments: np.ndarray) -> list[int]:
    """Returns how many segments each image has."""
    return [int(each.max()) + 1 for each in segments]
