"""The study of mask-shape bias: does a network read the object off the shape of its hole?"""

import dataclasses
import itertools
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lmjax._utils.checks import check_whole, set_plain_numbers
from lmjax._utils.text import counted
from lmjax.studies.about import About
from lmjax.studies.figures import (
    X_LABELS,
    chance,
    group_rows,
    lines_of_removals,
    note_of_shares,
)
from lmjax.studies.images import ImageBatch
from lmjax.studies.settings import check_removals, check_whole_numbers, for_tables
from lmjax.studies.statistics import (
    Group,
    bootstrap,
    correctly_classified,
    estimate,
    groups,
    mean_shares,
    number_of_classes,
    paired_differences,
)
from lmjax.studies.study import Study

HOLES = ("object", "swapped")
_LABELS = {
    "object": ("object removed", "accuracy"),
    "swapped": ("swapped mask removed", "accuracy"),
    "ratio": ("object / swapped", "ratio of accuracies"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskShape(Study):
    """Removal of the object exactly, or of its mask with the quadrants swapped diagonally.

    An accuracy that survives the first and not the second comes from the shape of the hole. Tables
    are of images that the network classifies correctly as they are. A row for each image, network,
    removal, margin and `hole` ("object" or "swapped"), with `prediction`, its `probability`,
    `label`, `correct`, `unchanged`, the share of pixels that are `hidden`, and the share `shown`,
    which is less than the others where token dropping hides patches that the hole cuts.

    Attributes:
      removals: names of removals (`lmjax.removals.names()`), those through the layers also with a
        depth, as in layer@2, or with a file of `lmjax data`, as in calibrated@FILE; comparisons are
        with the first.
      margins: pixels by which the object's mask is grown before it is swapped: it takes in all
        pixels within that distance. The papers grow no mask, and report no other margin.
      tight: take the source's tight masks (digit scenes have them: where the digit is at least half
        opaque), not those of all pixels that belong to the object in part.
      least_images: classes with more images than this have rows of their own.

    References:
      Balasubramanian & Feizi 2022 (arXiv 2211.14646), section 4.2.
    """

    name: ClassVar[str] = "shape"
    title: ClassVar[str] = "Mask-shape bias"
    about: ClassVar[About] = About(
        question="Does a network read the object off the shape of its hole?",
        method=(
            "The object is removed exactly, or a hole of the same size, whose mask is the "
            "object's with its quadrants swapped. Counted are images that the network classifies "
            "correctly as they are."
        ),
        reading=(
            "Without the object a network should be no better than chance, so low is good; "
            "without the swapped mask it should still see the object, so high is good. The ratio "
            "of both should be low."
        ),
        higher=("swapped",),
        lower=("object", "ratio"),
        columns={
            "object": "accuracy without the object",
            "swapped": "accuracy without the swapped mask",
            "ratio": "ratio of both",
        },
        tables={
            "accuracies": "Accuracies",
            "classes": "Accuracies of classes",
        },
        hidden="object",
    )
    removals: tuple[str, ...] = ("layer", "no_padding", "partial", "black", "grey", "blur")
    margins: tuple[int, ...] = (0, 2, 4, 8)
    tight: bool = False
    least_images: int = for_tables(10)

    def __post_init__(self):
        set_plain_numbers(self)
        check_removals(self.removals)
        check_whole_numbers("margins", self.margins, least=0, rising=True)
        check_whole("least_images", self.least_images, least=1)

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        rows = []
        for network in batch.networks:
            objects = batch.object_masks(network, tight=self.tight)
            made = [
                (i, {"margin": margin, "hole": hole}, _hole(grow(objects[i], margin), hole))
                for i, margin, hole in itertools.product(range(len(objects)), self.margins, HOLES)
            ]
            image_of, about, holes = zip(*made)
            masks, image_of = ~np.stack(holes), np.array(image_of)
            for removal in self.removals:
                logits = batch.logits(network, removal, masks, image_of)
                shown = batch.shares_shown(network, removal, masks, image_of).tolist()
                predictions = batch.predictions(network, logits, image_of)
                for prediction, each, hole, share in zip(
                    predictions, about, holes, shown, strict=True
                ):
                    shares = {"hidden": float(hole.mean()), "shown": share}
                    rows.append({**prediction, "removal": removal, **each, **shares})
        return rows

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        classes = number_of_classes(rows)
        rows = correctly_classified(rows)
        overall, found = [], []
        for group in groups(rows, ("network", "margin", "removal")):
            object_removed, swapped = _accuracies(group)
            overall.append(_summary(group, object_removed, swapped) | {"classes": classes})
            ratio = _ratio(object_removed, swapped)
            statistics = {"object": object_removed, "swapped": swapped, "ratio": ratio}
            found.append((group.key, statistics))
        of_classes = [
            _summary(group, *_accuracies(group))
            for group in groups(rows, ("network", "margin", "removal", "label"))
            if len(group.columns["image"]) > len(HOLES) * self.least_images
        ]
        tables = {
            "accuracies": overall,
            "differences": paired_differences(found),
            "classes": of_classes,
        }
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        from lmjax import plots

        shown = {}
        for network, rows in group_rows(tables["accuracies"], "network").items():
            shown[network] = plots.charts(
                [[_chart(rows, name) for name in (*HOLES, "ratio")]],
                title=f"{network}, {counted(rows[0]['images'], 'image')} classified correctly"
                + note_of_shares(rows),
            )
        return shown


def grow(mask: np.ndarray, margin: int) -> np.ndarray:
    """Grows a mask `[H, W]` by all pixels within a distance of `margin` pixels."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask)) <= margin if mask.any() else mask


def _hole(mask: np.ndarray, hole: str) -> np.ndarray:
    """Returns the mask, or swaps its quadrants diagonally."""
    height, width = mask.shape
    return mask if hole == "object" else np.roll(mask, (height // 2, width // 2), axis=(0, 1))


def _accuracies(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Returns accuracies without the object and without the swapped mask, `[1 + draws]` each."""
    correct = group.matrix("correct", "hole")  # HOLES are in alphabetical order
    return tuple(bootstrap(len(correct)).means(correct).T)


def _summary(group: Group, object_removed: np.ndarray, swapped: np.ndarray) -> dict[str, Any]:
    """Returns a row of the accuracies of a group."""
    images = len(np.unique(group.columns["image"]))
    return {
        **group.key,
        "images": images,
        **{name: share for name, (share,) in mean_shares(group).items()},
        **estimate("object", object_removed),
        **estimate("swapped", swapped),
        **estimate("ratio", _ratio(object_removed, swapped)),
    }


def _ratio(object_removed: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """Divides the accuracies; NaN where that without the swapped mask is 0."""
    undefined = np.full_like(swapped, np.nan)
    return np.divide(object_removed, swapped, out=undefined, where=swapped > 0)


def _chart(rows: list[dict], metric: str):
    """Makes the chart of a metric, with a line for each removal."""
    from lmjax import plots

    title, y_label = _LABELS[metric]
    lines = lines_of_removals(rows, "margin", metric)
    reference = None if metric == "ratio" else chance(rows)
    return plots.Chart(title, X_LABELS["margin"], y_label, lines, reference=reference)
