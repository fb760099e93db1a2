"""The study of LIME: under which removal does it find the object, and what the network needs?"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lmjax._utils.checks import check_distinct, check_whole
from lmjax._utils.renamed import renamed
from lmjax._utils.text import counted
from lmjax.metrics import alignment, top_k_iou
from lmjax.removals import check_name
from lmjax.removals import title as removal_title
from lmjax.studies.about import About
from lmjax.studies.explanation_study import ExplanationStudy, ranking
from lmjax.studies.figures import (
    by_network,
    chance,
    group_rows,
    lines_of_removals,
    note_of_shares,
)
from lmjax.studies.images import ImageBatch
from lmjax.studies.settings import check_fit, check_removals
from lmjax.studies.statistics import (
    Group,
    bootstrap,
    correctly_classified,
    estimate,
    groups,
    mean_shares,
    number_of_classes,
    paired_differences,
    summaries,
)

OWN = "own"
ALL = "all others"
_CURVE = ("network", "evaluated_under", "removal")
_LOCALISATION = {"alignment": "alignment with the object", "iou": "IoU of the top segments"}


@renamed(samples="num_samples")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LimeQuality(ExplanationStudy):
    """Quality of LIME under several removals: how well it finds the object and what is needed.

    All removals share one matrix of coalitions for each image and network; the predicted class is
    explained. Tables are of images that the network classifies correctly when nothing is removed,
    as in the paper. A row for each image, network, removal, `evaluated_under` and `k` has
    `alignment` and `iou` of the explanation; and for the image without the k segments of highest
    score, removed as `evaluated_under` says, `prediction`, its `probability`, `correct`,
    `unchanged`, `removed` (k, or all segments where there are fewer), the share of pixels that are
    `visible`, and the share `shown`, which is less where token dropping hides patches that segments
    cut.

    `alignment` is the cosine of the scores w and of g, with g_i the sum over segment i of (object
    mask - its mean over the image): `lmjax.metrics.alignment`. `iou` is that of the object and the
    `top` segments of highest score: `lmjax.metrics.top_k_iou`. Where the object has the same share
    of every segment, `alignment` is NaN: tables leave it out, and count the others.

    Attributes:
      removals: names of removals (`lmjax.removals.names()`), those through the layers also with a
        depth, as in layer@2, or with a file of `lmjax data`, as in calibrated@FILE; comparisons are
        with the first.
      evaluated_under: how the k segments are removed: "own", as they were for the explanation, or
        the name of a removal, the same for all explanations. It can decide which removal wins.
      top: how many segments are compared with the object.

    References:
      Balasubramanian & Feizi 2022 (arXiv 2211.14646), the LIME experiments, and their code: 512
      samples shared by black, grey and layer masking, the top 20, evaluated under black only.
    """

    name: ClassVar[str] = "lime"
    title: ClassVar[str] = "Quality of LIME"
    about: ClassVar[About] = About(
        question="Under which removal does LIME find the object, and what the network needs?",
        method=(
            "LIME explains the predicted class under each removal, with the same coalitions. Its "
            "scores are compared with the object's mask; then the segments of highest score are "
            "removed in several ways. Counted are images that the network classifies correctly as"
            " they are."
        ),
        reading=(
            "Good are high alignment and IoU with the object, and low accuracy after the top "
            "segments are removed: what was removed was needed. How segments are removed decides "
            "who wins, so compare under all ways."
        ),
        higher=("alignment", "iou", "wins"),
        lower=("accuracy", "accuracy_own", "accuracy_*"),
        columns={
            "accuracy": "accuracy without the top segments",
            "accuracy_own": "accuracy, segments removed as explained",
            "accuracy_*": "accuracy, segments removed under {}",
            "wins": "share of images won",
        },
        tables={
            "wins": "Who wins",
        },
    )
    removals: tuple[str, ...] = ("layer", "black", "grey")
    evaluated_under: tuple[str, ...] = (OWN, "grey", "layer")
    top: int = 20

    def __post_init__(self):
        super().__post_init__()
        check_removals(self.removals, segments=True)
        for under in self.evaluated_under:
            if under != OWN:
                check_name(under, argument=f"evaluated_under, unless {OWN!r},")
        check_distinct("evaluated_under", self.evaluated_under)
        check_whole("top", self.top, least=1)

    def check(self, networks) -> None:
        super().check(networks)
        check_fit(networks, [under for under in self.evaluated_under if under != OWN])

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        rows = []
        batch.labels()
        for network in batch.networks:
            batch.object_masks(network)  # first: an image without one costs no explanation
            scores = self.explain(batch, network, self.removals)
            found = self.localisation(batch, network, scores)
            ablated = self._ablated(batch, network, scores)
            for (r, removal), under in itertools.product(
                enumerate(self.removals), self.evaluated_under
            ):
                about = {"removal": removal, "evaluated_under": under}
                image_of = np.repeat(np.arange(len(scores)), len(self.ks))
                predictions = ablated[removal, removal if under == OWN else under]
                for row, i in zip(predictions, image_of, strict=True):
                    rows.append({**row, **about, **found[i][r]})
        return rows

    def localisation(self, batch: ImageBatch, network: str, scores) -> list[list[dict[str, float]]]:
        """Measures how well explanations find the object, by image and removal."""
        images = zip(scores, self.segments(batch, network), batch.object_masks(network))
        return [
            [
                {
                    "segments": len(each),
                    "alignment": alignment(each, segments, mask),
                    "iou": top_k_iou(each, mask, segments=segments, k=min(self.top, len(each))),
                }
                for each in of_removals
            ]
            for of_removals, segments, mask in images
        ]

    def _ablated(
        self, batch: ImageBatch, network: str, scores
    ) -> dict[tuple[str, str], list[dict]]:
        """Returns predictions by removal explained and removal of the evaluation."""
        orders = [[ranking(each[r]) for each in scores] for r in range(len(self.removals))]
        orders = dict(zip(self.removals, orders, strict=True))
        own = self.removals if OWN in self.evaluated_under else ()
        predictions = {}
        for under in dict.fromkeys((*self.evaluated_under, *own)):
            if under != OWN:
                explained = self.removals if under in self.evaluated_under else (under,)
                found = self.ablate(batch, network, under, [orders[each] for each in explained])
                predictions |= {(each, under): rows for each, rows in zip(explained, found)}
        return predictions

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        classes = number_of_classes(rows)
        rows = correctly_classified(rows)
        curves, found, wins, values = [], [], [], {}
        for group in groups(rows, _CURVE):
            curves += [row | {"classes": classes} for row in _curve(group)]
            network, under, removal = group.key.values()
            measured = values.setdefault(network, {}).setdefault(removal, {})
            for name in _LOCALISATION:
                measured[name] = group.matrix(name, "k")[:, 0]
            measured[f"accuracy_{under}"] = group.matrix("correct", "k").mean(axis=1)
        for network, by_removal in values.items():
            for removal, each in by_removal.items():
                key = {"network": network, "removal": removal, "images": len(each["alignment"])}
                found.append((key, each))
            wins += _wins(network, by_removal)
        tables = {
            "means": summaries(found),
            "differences": paired_differences(found, of_images=True),
            "wins": summaries(wins),
            "curves": curves,
        }
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        from lmjax import plots

        shown = {}
        for network, found in by_network(tables).items():
            images = found["means"][0]["images"]
            about = f"{network}, {counted(images, 'image')} classified correctly"
            shown[network] = plots.charts(
                [[_chart(found["curves"], under) for under in self.evaluated_under]],
                title=f"Accuracy without LIME's top segments\n{about}"
                + note_of_shares([_as_removed(row) for row in found["curves"]]),
            )
            if len(found["means"]) > 1:
                shown[f"{network} wins"] = plots.matrices(
                    _matrices(found["wins"]),
                    title=f"Share of images on which the row beats the column\n{about}",
                )
        return shown


def _curve(group: Group) -> Iterator[dict[str, Any]]:
    """Makes a row for each k."""
    correct = group.matrix("correct", "k")
    accuracy = bootstrap(len(correct)).means(correct)
    removed, shares = group.matrix("removed", "k").mean(axis=0), mean_shares(group, "k")
    for i, k in enumerate(np.unique(group.columns["k"]).tolist()):
        key = {**group.key, "k": k, "removed": float(removed[i])}
        key |= {name: share[i] for name, share in shares.items()}
        yield {**key, "images": len(correct), **estimate("accuracy", accuracy[:, i])}


def _as_removed(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with the removal by which its top segments were removed."""
    under = row["evaluated_under"]
    return row if under == OWN else row | {"removal": under}


def _wins(
    network: str, by_removal: dict[str, dict[str, np.ndarray]]
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Yields on which images a removal beats another, and all others.

    Ties count half, or their share. Where one of the removals has no value (NaN), neither wins.
    """
    removals = list(by_removal)
    for metric in next(iter(by_removal.values())):
        scores = np.stack([by_removal[removal][metric] for removal in removals], axis=1)
        scores = scores if metric in _LOCALISATION else -scores  # low accuracy: it was needed
        best = (scores == scores.max(axis=1, keepdims=True)).astype(np.float64)
        best[np.isnan(scores).any(axis=1)] = np.nan
        for i, removal in enumerate(removals):
            others = {
                other: (np.sign(scores[:, i] - scores[:, j]) + 1) / 2
                for j, other in enumerate(removals)
                if j != i
            }
            if len(others) > 1:
                others[ALL] = best[:, i] / best.sum(axis=1)
            for against, won in others.items():
                key = {"network": network, "metric": metric, "removal": removal}
                yield {**key, "against": against}, {"wins": won}


def _chart(rows: list[dict], under: str):
    """Makes the chart of an evaluation, with a line for each removal that was explained."""
    from lmjax import plots

    chosen = group_rows(rows, "evaluated_under")[under]
    lines = lines_of_removals(chosen, "k", "accuracy", prefix="explained by ")
    return plots.Chart(
        _title(under), "top segments removed", "accuracy", lines, reference=chance(chosen)
    )


def _title(under: str) -> str:
    """Returns an evaluation as figures show it."""
    return "under its own removal" if under == OWN else f"under {removal_title(under)}"


def _matrices(rows: list[dict]) -> list[list]:
    """Makes a row of matrices for localisation, and one for accuracies without the top segments."""
    from lmjax import plots

    grid = [[], []]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        wins = {(r["removal"], r["against"]): r["wins"] for r in rows if r["metric"] == metric}
        removals = dict.fromkeys(removal for removal, _ in wins)
        removals = sorted(removals, key=lambda removal: not plots.is_emphasised(removal))
        values = [[wins.get((a, b), np.nan) for b in removals] for a in removals]
        labels = [removal_title(removal) for removal in removals]
        title = _LOCALISATION.get(metric) or f"lower accuracy {_title(metric.partition('_')[2])}"
        matrix = plots.Matrix(title, labels, labels, values, diverging=True)
        grid[metric not in _LOCALISATION].append(matrix)
    return grid
