"""The contest of removals: how good is each, by several judges, and what does it cost?"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lmjax._utils.checks import (
    check_choice,
    check_choices,
    check_distinct,
    check_whole,
    set_plain_numbers,
)
from lmjax._utils.renamed import renamed
from lmjax._utils.sizes import power_of_two
from lmjax._utils.summary import brief
from lmjax.evaluation.outputs import Output, predicted_classes
from lmjax.masks import ImageCoalitions
from lmjax.masks import segments as segmenters
from lmjax.metrics.occlusion import mean_height, step_counts
from lmjax.removals import check_name
from lmjax.studies.about import About
from lmjax.studies.experiments.contest_figures import draw
from lmjax.studies.experiments.contest_tables import summarise
from lmjax.studies.experiments.lime_quality import OWN, LimeQuality
from lmjax.studies.experiments.removal import SegmentRemoval
from lmjax.studies.experiments.shape import MaskShape
from lmjax.studies.explanation_study import ranking
from lmjax.studies.images import ImageBatch
from lmjax.studies.settings import check_fit, check_removals, check_whole_numbers
from lmjax.studies.statistics import interval
from lmjax.studies.study import Study

PARTS = ("random", "shape", "lime")
_LEAST_PIXELS = 2  # of a segment, on average
_TIMED_VARIANTS = 64
_TIMED_CALLS = 5


@renamed(samples="num_samples")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RemovalContest(Study):
    """All removals judged on the same images: what survives, what leaks, what LIME finds, the cost.

    "random" removes growing fractions of an image's segments, of several sizes, in a random order
    which all removals share: R-OMS, unchanged predictions, entropy of predicted classes, accuracy.
    "shape" removes the object as the shape study does: an accuracy that is left comes from the
    shape of the hole. "lime" explains under each removal and measures alignment and IoU with the
    object, and under each judge the symmetric relevance gain and for how long the prediction stays
    while the top segments are removed. "shape" and "lime" need object masks,
    and their results are of images that are classified correctly as they are.

    Milliseconds a variant are measured once for a run on one of its images, and are not among the
    rows.

    Attributes:
      removals: names of removals (`lmjax.removals.names()`), those through the layers also with a
        depth, as in layer@2, or with a file of `lmjax data`, as in calibrated@FILE; comparisons are
        with the first.
      parts: of the contest: "random", "shape", "lime".
      n_segments: for "random", about how many segments; a number that would leave an image fewer
        than two pixels a segment is left out.
      segmenter: for "random", one of `lmjax.segments.names()`. With grid, squares that make about
        as many.
      fractions: for "random", of the segments to remove, from 0 to 1. R-OMS is the area over them.
      margins: for "shape", pixels by which the object's mask is grown.
      tight: for "shape", take the source's tight masks.
      grid_size: for "lime", side of the squares that are explained, in pixels.
      num_samples: for "lime", coalitions that all removals share.
      objective: for "lime", what is explained of the predicted class: probability, logit, or
        margin, the logit minus the highest of the others.
      top: for "lime", how many squares are compared with the object.
      judges: for "lime", under which removals segments are removed: "own", that of the explanation,
        or a removal's name.
      steps: for "lime", points of the curves behind the gain and the predictions that stay.

    References:
      Bluecher, Vielhaben & Strodthoff 2024 (arXiv 2401.06654): R-OMS and the gain
      (`lmjax.metrics.r_oms`, `lmjax.metrics.symmetric_relevance_gain`), with 25 to 5000 SLIC
      superpixels. The other parts follow the studies removal, shape and lime.
    """

    name: ClassVar[str] = "contest"
    title: ClassVar[str] = "Contest of removals"
    about: ClassVar[About] = About(
        question="Which removal is best, by which judge, and what does it cost?",
        method=(
            "Removals are put side by side on the same images: segments of several sizes are "
            "removed at random, the object or a swapped mask is removed, LIME explains under each"
            " removal, and a variant's time is measured."
        ),
        reading=(
            "High R-OMS, unchanged predictions, accuracy, entropy, alignment, IoU and gain are "
            "good; accuracy without the object and predictions unchanged without the top segments "
            "should be low. R-OMS alone rewards what removes too little: read it beside the "
            "accuracy without the object."
        ),
        higher=(
            *("r_oms", "r_oms_*", "unchanged", "accuracy", "entropy", "swapped_removed"),
            *("alignment", "iou", "gain_own", "gain_*", "probability"),
        ),
        lower=(
            *("rank", "object_removed", "milliseconds", "first_call_seconds"),
            *("top_unchanged_own", "top_unchanged_*"),
        ),
        columns={
            "r_oms": "R-OMS",
            "r_oms_*": "R-OMS, about {} segments",
            "object_removed": "accuracy without the object",
            "swapped_removed": "accuracy without the swapped mask",
            "gain_own": "relevance gain, segments removed as explained",
            "gain_*": "relevance gain under {}",
            "top_unchanged_own": "unchanged without the top segments, removed as explained",
            "top_unchanged_*": "unchanged without the top segments, under {}",
            "milliseconds": "milliseconds a variant",
            "first_call_seconds": "seconds of the first call",
            "n_segments": "segments asked for",
            "removed": "share of pixels removed",
        },
        tables={
            "removals": "Removals",
            "shape": "Accuracy without the object, by margin",
            "costs": "Cost",
        },
    )
    removals: tuple[str, ...] = (
        *("layer", "ring", "harmonic", "noisy_linear", "histogram", "samples"),
        *("grey", "black", "blur"),
    )
    parts: tuple[str, ...] = PARTS
    n_segments: tuple[int, ...] = (25, 100, 500, 5000)
    segmenter: str = "slic_near"
    fractions: tuple[float, ...] = tuple(i / 10 for i in range(11))
    margins: tuple[int, ...] = (0, 2, 4, 8)
    tight: bool = False
    grid_size: int = 16
    num_samples: int = 256
    objective: Output = "probability"
    top: int = 20
    judges: tuple[str, ...] = (OWN, "layer", "grey")
    steps: int = 10

    def __post_init__(self):
        set_plain_numbers(self)
        check_removals(self.removals, segments="shape" not in self.parts)
        check_choices("parts", self.parts, PARTS)
        check_whole_numbers("n_segments", self.n_segments, rising=True)
        check_choice("segmenter", self.segmenter, segmenters.names())
        if len(self.fractions) < 2:
            raise ValueError(
                f"fractions must be two or more, from 0 to 1; got {brief(self.fractions)}"
            )
        check_whole("steps", self.steps, least=1)
        for judge in self.judges:
            if judge != OWN:
                check_name(judge, argument=f"judges, unless {OWN!r},")
        check_distinct("judges", self.judges)
        _ = self._random, self._shape, self._lime  # which check what is theirs

    def check(self, networks) -> None:
        super().check(networks)
        check_fit(networks, [judge for judge in self.judges if judge != OWN])

    @functools.cached_property
    def _random(self) -> SegmentRemoval:
        """The settings of "random" as of the removal study."""
        orders, fractions = ("random",), self.fractions
        return SegmentRemoval(removals=("black",), orders=orders, fractions=fractions)

    @functools.cached_property
    def _shape(self) -> MaskShape:
        """The settings of "shape" as of the shape study."""
        removals = self.removals if "shape" in self.parts else ("black",)
        return MaskShape(removals=removals, margins=self.margins, tight=self.tight)

    @functools.cached_property
    def _lime(self) -> LimeQuality:
        """The settings of "lime" as of the study of LIME."""
        return LimeQuality(
            removals=self.removals,
            grid_size=self.grid_size,
            num_samples=self.num_samples,
            objective=self.objective,
            top=self.top,
            ks=(1,),
            seed=self.seed,
        )

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        measure = {"random": self._random_rows, "shape": self._shape_rows, "lime": self._lime_rows}
        self._check_masks(batch)
        rows = [{"part": part, **row} for part in self.parts for row in measure[part](batch)]
        columns = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in columns} for row in rows]

    def _check_masks(self, batch: ImageBatch) -> None:
        """Raises ValueError, before anything costs time, for an image without an object mask."""
        for sample in batch.samples:
            if sample.object_mask is None and self.parts != ("random",):
                raise ValueError(
                    f"image {sample.id} has no object_mask, which the parts shape and lime need; "
                    "take parts=random alone (--parts random)"
                )

    def _random_rows(self, batch: ImageBatch) -> Iterator[dict[str, Any]]:
        """Rows of each image, network, number of segments, removal and fraction."""
        for network, number in itertools.product(batch.networks, self.n_segments):
            segments = self._segments(batch, network, number)
            if segments is None:
                continue
            keep, image_of, described = self._random.variants(batch, network, segments)
            for removal in self.removals:
                logits = batch.coalition_logits(network, removal, segments, keep, image_of)
                kept = self._kept(batch, network, logits, image_of)
                predictions = batch.predictions(network, logits, image_of)
                shown = batch.shares_shown(
                    network, removal, ImageCoalitions(segments, keep), image_of
                )
                found = zip(predictions, described, kept, shown.tolist(), strict=True)
                for row, about, p, share in found:
                    about = {**about, "shown": share, "kept": p}
                    yield {**row, "removal": removal, "n_segments": number, **about}

    def _segments(self, batch: ImageBatch, network: str, number: int) -> np.ndarray | None:
        """Returns about `number` segments of each image; None where images are too small."""
        height, width = batch.images(network).shape[1:3]
        if number * _LEAST_PIXELS > height * width:
            return None
        side = max(round((height * width / number) ** 0.5), 1)
        return batch.segments(network, self.segmenter, size=side, n_segments=number)

    def _kept(
        self, batch: ImageBatch, network: str, logits: np.ndarray, image_of: np.ndarray
    ) -> list[float]:
        """Returns the probabilities of the classes that are predicted on whole images, `[N]`."""
        target = batch.whole_predictions(network)[image_of]
        chosen = np.take_along_axis(logits, target[:, None], axis=1)[:, 0]
        return np.exp(chosen - np.logaddexp.reduce(logits, axis=1)).tolist()

    def _shape_rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        """Rows of the shape study."""
        return self._shape.rows(batch)

    def _lime_rows(self, batch: ImageBatch) -> Iterator[dict[str, Any]]:
        """Rows of each image, network, removal and judge."""
        for network in batch.networks:
            scores = self._lime.explain(batch, network, self.removals)
            found = self._lime.localisation(batch, network, scores)
            judged = {judge: self._judged(batch, network, judge, scores) for judge in self.judges}
            predictions = batch.predictions(
                network, batch.whole_logits(network), np.arange(len(scores))
            )
            for (r, removal), judge in itertools.product(enumerate(self.removals), self.judges):
                about = {"removal": removal, "judge": judge}
                for row, of_image, answers in zip(
                    predictions, found, judged[judge][r], strict=True
                ):
                    yield {**row, **about, **of_image[r], **answers}

    def _judged(
        self, batch: ImageBatch, network: str, judge: str, scores: Sequence[np.ndarray]
    ) -> list[list[dict[str, float]]]:
        """Removes segments as each removal's explanations rank them, of each image.

        Returns:
          For each removal and image `gain`, the symmetric relevance gain, and `top_unchanged`, the
          area under unchanged predictions while the most relevant segments go first.
        """
        segments = self._lime.segments(batch, network)
        columns = power_of_two(int(segments.max()) + 1)
        under = self.removals if judge == OWN else [judge] * len(self.removals)
        target, found = batch.whole_predictions(network), []
        for r, removal in enumerate(under):
            curves = [
                _flipped(each, labels, columns, self.steps)
                for each, labels in zip([of_image[r] for of_image in scores], segments, strict=True)
            ]
            keep = np.concatenate([keep for keep, _ in curves])
            image_of = np.repeat(np.arange(len(curves)), [len(keep) for keep, _ in curves])
            logits = batch.coalition_logits(network, removal, segments, keep, image_of)
            kept = np.array(self._kept(batch, network, logits, image_of))
            same = predicted_classes(logits) == target[image_of]
            answers = []
            for i, (_, shares) in enumerate(curves):
                heights = np.stack([kept, same])[:, image_of == i].reshape(2, *shares.shape)
                (morf, lerf), (top, _) = mean_height(shares, heights)
                answers.append({"gain": lerf - morf, "top_unchanged": top})
            found.append(answers)
        return found

    def measure(self, batch: ImageBatch) -> list[dict[str, Any]]:
        """Measures milliseconds a variant, of coalitions of squares, half of them hidden.

        Removals take turns, so that other work on the machine meets them alike.
        """
        found = []
        for network in batch.networks:
            segments = batch.segments(network, "grid", size=self.grid_size)[:1]
            rng = np.random.default_rng(self.seed)
            keep = rng.random((_TIMED_VARIANTS, int(segments.max()) + 1)) < 0.5
            coalitions, image_of = ImageCoalitions(segments, keep), np.zeros(len(keep), int)
            seconds = {removal: [] for removal in self.removals}
            for _, removal in itertools.product(range(1 + _TIMED_CALLS), self.removals):
                start = time.perf_counter()
                batch.logits(network, removal, coalitions, image_of)
                seconds[removal].append(time.perf_counter() - start)
            found += [_cost(network, removal, times) for removal, times in seconds.items()]
        return found

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        return summarise(rows)

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        return draw(tables)


def _cost(network: str, removal: str, seconds: list[float]) -> dict[str, Any]:
    """Returns the measurement of a removal: a first call, which compiles, and others."""
    first, steady = seconds[0], np.array(seconds[1:])
    times = 1000 / _TIMED_VARIANTS * np.array([np.median(steady), steady.min(), steady.max()])
    return {
        **{"network": network, "removal": removal, "variants": _TIMED_VARIANTS},
        **interval("milliseconds", *times),
        "first_call_seconds": first - float(np.median(steady)),
    }


def _flipped(
    scores: np.ndarray, labels: np.ndarray, columns: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Removes an image's segments, most relevant first and then least relevant first.

    Returns:
      bool `[2 * F, columns]`, which segments are kept, and the shares of pixels removed, `[2, F]`.
    """
    area = np.bincount(labels.ravel(), minlength=columns) / labels.size
    ranks = np.full((2, columns), -1)
    order = ranking(scores)
    ranks[0, order], ranks[1, order[::-1]] = np.arange(len(order)), np.arange(len(order))
    keep = ranks[:, None] >= step_counts(len(order), steps)[:, None]
    return keep.reshape(-1, columns), 1 - keep @ area
