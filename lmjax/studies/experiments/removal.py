"""The removal study: what networks predict while more and more segments are removed."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lmjax._utils.checks import check_choices, check_whole, set_plain_numbers
from lmjax._utils.sizes import power_of_two
from lmjax._utils.summary import brief
from lmjax._utils.text import counted
from lmjax.masks import ImageCoalitions
from lmjax.masks import segments as segmenters
from lmjax.masks.orders import segment_salience
from lmjax.metrics import class_similarity
from lmjax.studies.about import About
from lmjax.studies.figures import (
    X_LABELS,
    chance,
    group_rows,
    lines_of_removals,
    note_of_shares,
)
from lmjax.studies.images import ImageBatch, random_order
from lmjax.studies.settings import check_removals, for_tables
from lmjax.studies.sizes import shared_patch_size
from lmjax.studies.statistics import (
    bootstrap,
    estimates,
    groups,
    mean_shares,
    number_of_classes,
    paired_differences,
)
from lmjax.studies.study import Study

ORDERS = ("random", "most_salient", "least_salient")
OBJECT = "object"
SOURCE = "source"
_CURVE = ("network", "segmenter", "order", "removal")
_METRICS = {
    "accuracy": "accuracy",
    "unchanged": "unchanged predictions",
    "entropy": "entropy of predicted classes",
    "similarity": "class similarity",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentRemoval(Study):
    """Removal of growing fractions of an image's segments, in several orders and several ways.

    A row for each image, network, segmenter, order, removal and fraction, with `prediction`, its
    `probability`, `label`, `correct` and `unchanged` (whether it is the class predicted on the
    whole image), the share of pixels that are `visible`, and the share `shown`, which is less where
    token dropping hides patches that segments cut. Segments of equal salience go in the image's
    random order.

    Attributes:
      removals: names of removals (`lmjax.removals.names()`), those through the layers also with a
        depth, as in layer@2, or with a file of `lmjax data`, as in calibrated@FILE; comparisons are
        with the first.
      segmenters: of `lmjax.segments.names()`, such as "grid" and "slic".
      orders: "random", "most_salient" (first) or "least_salient" (first).
      fractions: of the segments to remove, from 0 to 1.
      saliency: "object", the share of a segment that is the object's; "source", the source's own
        heatmap; or the name of a network, for the gradient of its prediction: the mean over a
        segment.
      grid_size: side of the squares of "grid", in pixels; by default that of the patches which
        segments snap to, and 16 where there are none.
      n_segments: about how many segments "slic" and "slic_near" make.
      snap_to_patches: where there is a transformer among networks that see images alike, make
        segments of its whole patches.
      similarity: `.npy` file with a matrix [K, K] of how similar classes are, such as
        lmjax.metrics.wordnet_similarity gives, for the metric of that name.

    References:
      Jain et al. 2022, "Missingness bias in model debugging" (arXiv 2204.08945), section 3: 16 x 16
      patches, three orders, metrics. Balasubramanian & Feizi 2022 (arXiv 2211.14646), section 4.1,
      whose ablation of padding and depth is this study with removals such as "no_padding" and
      "layer@2".
    """

    name: ClassVar[str] = "removal"
    title: ClassVar[str] = "Removing segments"
    about: ClassVar[About] = About(
        question="What does a network answer while more and more of an image is removed?",
        method=(
            "Growing shares of an image's segments are removed, at random, the most salient ones "
            "first, or the least salient ones first, in several ways on the same images."
        ),
        reading=(
            "A removal that only removes keeps answers as they were for as long as the object is "
            "in sight: high accuracy, unchanged predictions and entropy, which falls where a "
            "removal drives all images into the same few classes. With the most salient segments "
            "first, the answer should go with the object."
        ),
        higher=("accuracy", "unchanged", "entropy", "similarity"),
        columns={
            "similarity": "class similarity",
        },
    )
    removals: tuple[str, ...] = ("layer", "no_padding", "partial", "black", "grey", "blur")
    segmenters: tuple[str, ...] = ("grid",)
    orders: tuple[str, ...] = ORDERS
    fractions: tuple[float, ...] = tuple(i / 10 for i in range(11))
    saliency: str = OBJECT
    grid_size: int | None = None
    n_segments: int = 50
    snap_to_patches: bool = True
    similarity: str | None = for_tables(None)

    def __post_init__(self):
        set_plain_numbers(self)
        check_removals(self.removals, segments=True)
        check_choices("segmenters", self.segmenters, segmenters.names())
        check_choices("orders", self.orders, ORDERS)
        steps = np.diff(self.fractions, prepend=-1e-9, append=1 + 1e-9)
        if len(self.fractions) == 0 or not (steps > 0).all():
            raise ValueError(
                f"fractions must rise from 0 to 1 at most, got {brief(self.fractions)}"
            )
        for option in ("grid_size", "n_segments"):
            if getattr(self, option) is not None:
                check_whole(option, getattr(self, option), least=1)

    def check(self, networks) -> None:
        super().check(networks)
        if self.snap_to_patches:
            shared_patch_size(networks)
        if self.similarity is not None:
            classes = len(_matrix(self.similarity))
            for name, network in networks.items():
                count = getattr(getattr(network, "module", None), "num_classes", 0)
                if count > classes:
                    raise ValueError(
                        f"similarity has {classes} classes, but network {name} has {count}"
                    )
        if self.saliency not in (OBJECT, SOURCE, *networks):
            raise ValueError(
                f"saliency must be {OBJECT!r}, {SOURCE!r} or one of the networks "
                f"{', '.join(networks)}; got {brief(self.saliency)}"
            )

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        rows = []
        for network, segmenter in itertools.product(batch.networks, self.segmenters):
            options: dict[str, Any] = {"size": self.grid_size, "n_segments": self.n_segments}
            options["snap_to_patches"] = self.snap_to_patches
            segments = batch.segments(network, segmenter, **options)
            keep, image_of, described = self.variants(batch, network, segments)
            coalitions = ImageCoalitions(segments, keep)
            for removal in self.removals:
                with batch.part(segmenter):
                    logits = batch.coalition_logits(network, removal, segments, keep, image_of)
                shown = batch.shares_shown(network, removal, coalitions, image_of).tolist()
                about = {"segmenter": segmenter, "removal": removal}
                predictions = batch.predictions(network, logits, image_of)
                rows += [
                    {**prediction, **about, **row, "shown": share}
                    for prediction, row, share in zip(predictions, described, shown, strict=True)
                ]
        return rows

    def variants(
        self, batch: ImageBatch, network: str, segments: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Returns the variants of all images, orders and fractions, of segments `[M, H, W]`.

        Returns:
          The segments that each keeps, bool `[N, S]`; its image, ints `[N]`; and the columns that
          describe it.
        """
        salience = [None] * len(segments)
        if set(self.orders) != {"random"}:
            heatmaps = self._heatmaps(batch, network)
            salience = [segment_salience(*each) for each in zip(heatmaps, segments)]
        columns = power_of_two(int(segments.max()) + 1)
        kept, image_of, described = [], [], []
        for i, (labels, scores) in enumerate(zip(segments, salience)):
            count = int(labels.max()) + 1
            shuffled = random_order(count, batch.keys[i])
            area = np.bincount(labels.ravel(), minlength=columns) / labels.size
            for order in self.orders:
                ranks = np.full(columns, columns)
                ranks[_ordered(shuffled, scores, order)] = np.arange(count)
                for fraction in self.fractions:
                    removed = int(fraction * count + 0.5)
                    keep = (ranks >= removed) & (ranks < columns)
                    row = {"order": order, "fraction": float(fraction), "removed": removed}
                    kept.append(keep)
                    image_of.append(i)
                    described.append({**row, "visible": float(area @ keep)})
        return np.array(kept), np.array(image_of), described

    def _heatmaps(self, batch: ImageBatch, network: str) -> np.ndarray:
        """Returns `[M, H, W]`, what `saliency` says that segments are ordered by."""
        if self.saliency == OBJECT:
            for sample in batch.samples:
                if sample.object_mask is None:
                    raise ValueError(
                        f"image {sample.id} has no object_mask, which orders by salience need; "
                        f"take orders=random, saliency={SOURCE} or saliency=NAME of a network "
                        "(--orders random)"
                    )
            return batch.object_masks(network)
        if self.saliency == SOURCE:
            return batch.saliency(network)
        return batch.gradients(network, of=self.saliency)

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        similarity = None if self.similarity is None else _matrix(self.similarity)
        curves, means, found = [], [], []
        classes = number_of_classes(rows)
        for group in groups(rows, _CURVE):
            fractions = np.unique(group.columns["fraction"])
            statistics = _statistics(group, similarity)
            images = len(group.matrix("correct", "fraction"))
            shares = mean_shares(group, "fraction")
            for i, fraction in enumerate(fractions):
                of_step = {name: share[i] for name, share in shares.items()}
                row = {**group.key, "fraction": fraction, **of_step, "images": images}
                row["classes"] = classes
                curves.append(row | estimates({k: x[:, i] for k, x in statistics.items()}))
            overall = {name: x.mean(axis=1) for name, x in statistics.items()}
            found.append(({**group.key, "images": images}, overall))
            means.append({**group.key, "images": images, **estimates(overall)})
        tables = {
            "curves": curves,
            "means": means,
            "differences": paired_differences(found),
            "network_differences": paired_differences(found, along="network"),
        }
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        from lmjax import plots

        shown = {}
        for (network, segmenter), rows in group_rows(
            tables["curves"], "network", "segmenter"
        ).items():
            metrics = [name for name in _METRICS if name in rows[0]]
            grid = [[_chart(rows, metric, order) for order in self.orders] for metric in metrics]
            if len(self.orders) == 1:  # side by side, not one above the other
                grid = [[chart for (chart,) in grid]]
            shown[f"{network} {segmenter}"] = plots.charts(
                grid,
                title=f"{network}, {segmenter} segments, {counted(rows[0]['images'], 'image')}"
                + note_of_shares(rows),
            )
        return shown


def _ordered(shuffled: np.ndarray, salience: np.ndarray | None, order: str) -> np.ndarray:
    """Returns segments in the order in which they are removed."""
    if order == "random" or salience is None:
        return shuffled
    salience = salience if order == "least_salient" else -salience
    return shuffled[np.argsort(salience[shuffled], kind="stable")]


def _matrix(path: str) -> np.ndarray:
    """Reads the matrix of class similarities in a file."""
    try:
        matrix = np.asarray(np.load(Path(path)), np.float64)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ValueError(f"similarity must be a .npy file that can be read: {error}") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(f"similarity must be a finite matrix [K, K], got {matrix.shape} in {path}")
    return matrix


def _statistics(group, similarity: np.ndarray | None) -> dict[str, np.ndarray]:
    """Returns metrics `[1 + draws, fractions]` by name."""
    predictions = group.matrix("prediction", "fraction")
    draws = bootstrap(len(predictions))
    statistics = {
        "accuracy": draws.means(group.matrix("correct", "fraction")),
        "unchanged": draws.means(group.matrix("unchanged", "fraction")),
        "entropy": draws.entropies(predictions),
    }
    if similarity is not None:
        labels = group.matrix("label", "fraction")
        alike = class_similarity(predictions[..., None], labels[..., None], similarity)
        statistics["similarity"] = draws.means(np.asarray(alike))
    return statistics


def _chart(rows: list[dict], metric: str, order: str):
    """Makes the chart of a metric for one order, with a line for each removal."""
    from lmjax import plots

    chosen = group_rows(rows, "order")[order]
    return plots.Chart(
        title=f"{order.replace('_', ' ')}{'' if order == 'random' else ' first'}",
        x_label=X_LABELS["fraction"],
        y_label=_METRICS[metric],
        lines=lines_of_removals(chosen, "fraction", metric),
        reference=chance(chosen) if metric == "accuracy" else None,
    )
