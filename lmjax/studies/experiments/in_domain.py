"""The study of in-domain judges: networks fine-tuned with the removal that judges explanations."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np
import pyarrow as pa

from lmjax._utils.checks import (
    check_choice,
    check_choices,
    check_distinct,
    check_number,
    check_whole,
    set_plain_numbers,
)
from lmjax._utils.renamed import renamed
from lmjax._utils.text import counted
from lmjax.attribution import Attribution, methods
from lmjax.evaluation.outputs import OUTPUTS, Output
from lmjax.masks.segments import cells
from lmjax.metrics import f_fidelity, idsds
from lmjax.metrics.agreement import pearson, ranked
from lmjax.removals import title as removal_title
from lmjax.studies.about import About
from lmjax.studies.figures import Rows, by_network, dots, group_rows, layer_masking_first
from lmjax.studies.images import ImageBatch, geometry
from lmjax.studies.settings import check_removals
from lmjax.studies.statistics import (
    estimates,
    groups,
    means,
    paired_differences,
    ranks,
    summaries,
)
from lmjax.studies.study import Study

OWN = "own"
_SCORES = {
    "idsds": "IDSDS (higher is better)",
    "ffid_plus": "FFid+ (higher is better)",
    "ffid_minus": "FFid- (lower is better)",
}
Found = list[tuple[dict[str, Any], dict[str, np.ndarray]]]  # keys of groups, and arrays by name


@renamed(samples="num_samples")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InDomainJudges(Study):
    """Scores of attribution methods by networks that were fine-tuned with the removal that judges.

    A judge is a network and a removal. It is in-domain where the network was trained with that
    removal, in the amounts that it removes (`lmjax train --augmentations cell:REMOVAL few:REMOVAL`:
    the first for IDSDS, the second for F-Fidelity); give such networks beside a plain one.
    A row for each image, judge and method has `idsds`, `ffid_plus` and `ffid_minus` (means over
    sizes) of the method's heatmap, which is made under the judge's removal and explains the class
    that the explained network predicts. Tables rank the methods by IDSDS, and compare the rankings
    of judges by Spearman's correlation of the methods' means.

    Attributes:
      removals: which judge, and under which maps are made: names of removals.
      methods: names of attribution methods, but those that need soft masks; comparisons are with
        the first.
      explained: whose maps are judged: "own", those of the judging network, as IDSDS is defined; or
        the name of one network, as F-Fidelity judges a network's maps by its fine-tuned copy.
      grid_size: side of the squares that methods explain and F-Fidelity removes, in pixels.
      num_samples: variants of a method that samples.
      objective: what methods explain of the predicted class: probability, logit, or margin, the
        logit minus the highest of the others; by default each method's own.
      patches: of IDSDS, along each side.
      sizes: of F-Fidelity, shares of the squares that count as the explanation.
      draws: of F-Fidelity, random parts for each size.
      most: of F-Fidelity, the largest share of all squares that is removed on average.

    References:
      `lmjax.metrics.idsds` (Hesse et al. 2024, arXiv 2407.11910) and `lmjax.metrics.f_fidelity`
      (Zheng et al. 2025, arXiv 2410.02970), which have the defaults of `patches`, `draws` and
      `most`. The sizes are fewer than theirs.
    """

    name: ClassVar[str] = "in_domain"
    title: ClassVar[str] = "In-domain judges of attribution methods"
    about: ClassVar[About] = About(
        question=(
            "Do networks that were fine-tuned with a removal rank attribution methods as others do?"
        ),
        method=(
            "Each network judges the maps of each method by IDSDS and F-Fidelity, which remove "
            "parts of the image as the network has seen it in training, or has not."
        ),
        reading=(
            "High IDSDS and FFid+ are good, and low FFid-. Agreement of 1 means that two judges "
            "rank the methods alike."
        ),
        higher=("idsds", "ffid_plus", "spearman"),
        lower=("ffid_minus", "rank"),
        columns={
            "idsds": "IDSDS",
            "ffid_plus": "FFid+",
            "ffid_minus": "FFid-",
        },
        tables={
            "scores": "Scores",
            "agreement": "Agreement of judges",
        },
    )
    removals: tuple[str, ...] = ("grey", "layer")
    methods: tuple[str, ...] = ("lime", "rise", "occlusion", "gradient", "integrated_gradients")
    explained: str = OWN
    grid_size: int = 16
    num_samples: int = 1024
    objective: Output | None = None
    patches: int = 4
    sizes: tuple[float, ...] = (0.1, 0.3, 0.5)
    draws: int = 50
    most: float = 0.1

    def __post_init__(self):
        set_plain_numbers(self)
        check_removals(self.removals, segments=True)
        object.__setattr__(self, "methods", tuple(map(methods.new_name, self.methods)))
        check_choices("methods", self.methods, _binary_methods())
        if self.objective is not None:
            check_choice("objective", self.objective, OUTPUTS)
            methods.check_objective_of(self.methods)
        for option in ("grid_size", "draws"):
            check_whole(option, getattr(self, option), least=1)
        check_whole("num_samples", self.num_samples, least=2)
        check_whole("patches", self.patches, least=2)
        for size in self.sizes:
            check_number("sizes", size, above=0, below=1)
        check_distinct("sizes", self.sizes)
        check_number("most", self.most, above=0, most=1)

    def check(self, networks) -> None:
        super().check(networks)
        if self.explained != OWN:
            check_choice("explained", self.explained, (OWN, *networks))
            shapes = {geometry(network.preprocessing) for network in networks.values()}
            if len(shapes) > 1:
                raise ValueError(
                    f"explained must be {OWN} for networks that see images in different ways: the "
                    f"maps of {self.explained} do not fit all of {', '.join(networks)}"
                )

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        self._check_samples(batch)
        rows = []
        for i, removal in itertools.product(range(len(batch.samples)), self.removals):
            maps = {}
            for network in batch.networks:
                explained = network if self.explained == OWN else self.explained
                if explained not in maps:
                    maps[explained] = self._maps(batch, explained, removal, i)
                for method, found in maps[explained].items():
                    about = {"removal": removal, "method": method, "target": found.target}
                    scores = self._judge(batch, network, removal, i, found)
                    rows.append(self._whole(batch, network, i) | about | scores)
        return rows

    def _check_samples(self, batch: ImageBatch) -> None:
        """Raises ValueError, before anything costs time, where a method needs more samples."""
        sampling = [name for name in self.methods if methods.get(name).budget is not None]
        for network in batch.networks if sampling else ():
            squares = batch.segments(network, "grid", size=self.grid_size)
            methods.check_samples(sampling, self.num_samples, int(squares.max()) + 1)

    def _maps(
        self, batch: ImageBatch, network: str, removal: str, i: int
    ) -> dict[str, Attribution]:
        """Explains the class that a network predicts for image `i`, by method."""
        image, segments = batch.images(network)[i], self._segments(batch, network, i)
        evaluator = batch.evaluator(network, removal, i, segments)
        target = int(batch.whole_predictions(network)[i])
        keys = [jax.random.fold_in(batch.keys[i], number) for number in range(len(self.methods))]
        found = {}
        for method, key in zip(self.methods, keys, strict=True):
            with batch.part(method):
                found[method] = methods.attribute(
                    method,
                    evaluator,
                    image,
                    segments,
                    key=key,
                    num_samples=self.num_samples,
                    target=target,
                    objective=self.objective,
                )
        return found

    def _judge(
        self, batch: ImageBatch, network: str, removal: str, i: int, found: Attribution
    ) -> dict[str, float]:
        """Returns the scores of an attribution of image `i`."""
        image, segments = batch.images(network)[i], self._segments(batch, network, i)
        judge = batch.evaluator(network, removal, i, segments)
        of: dict[str, Any] = {"heatmap": found.heatmap, "target": found.target}
        patches = cells(image.shape[:2], self.patches)
        with batch.part("IDSDS"):
            correlation = idsds(judge, image, **of, segments=patches)
        with batch.part("F-Fidelity"):
            fidelity = f_fidelity(
                judge,
                image,
                **of,
                key=jax.random.fold_in(batch.keys[i], len(self.methods)),
                segments=segments,
                sizes=self.sizes,
                most=self.most,
                num_samples=self.draws,
            )
        return {
            "idsds": float(correlation),
            "ffid_plus": float(fidelity.plus.mean()),
            "ffid_minus": float(fidelity.minus.mean()),
        }

    def _segments(self, batch: ImageBatch, network: str, i: int) -> np.ndarray:
        return batch.segments(network, "grid", size=self.grid_size)[i]

    def _whole(self, batch: ImageBatch, network: str, i: int) -> dict[str, Any]:
        """Returns the columns that say which image and which network's answer a row is of."""
        whole = batch.whole_logits(network)[i : i + 1]
        (row,) = batch.predictions(network, whole, [i])
        return {name: row[name] for name in ("image", "id", "network", "label", "prediction")}

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        images = len(rows.column("image").unique())
        found = [
            (group.key, {name: group.columns[name] for name in _SCORES})
            for group in groups(rows, ("network", "removal", "method"))
        ]
        comparable = _means_over_shared_images(found)
        scores = summaries(({**key, "images": images}, each) for key, each in found)
        tables = {
            "scores": _ranked(scores, [each["idsds"][0] for _, each in comparable]),
            "differences": paired_differences(found, "method", of_images=True),
            "agreement": _agreement(comparable),
        }
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        from lmjax import plots

        return {
            network: plots.dots(
                [_panel(found["scores"], name) for name in _SCORES],
                title=f"{network}, {counted(found['scores'][0]['images'], 'image')}",
            )
            for network, found in by_network({"scores": tables["scores"]}).items()
        }


def _binary_methods() -> tuple[str, ...]:
    """Returns the names of the methods that run under every removal, or under none."""
    return tuple(name for name in methods.names() if methods.get(name).under != "blending")


def _means_over_shared_images(found: Found) -> Found:
    """Returns means over the images on which all methods of a judge have a score, by name.

    Methods without a score on any image are left aside.
    """
    known: dict[tuple, np.ndarray] = {}
    for key, values in found:
        for name, each in values.items():
            judge, finite = (key["network"], key["removal"], name), np.isfinite(each)
            if finite.any():
                known[judge] = known.get(judge, True) & finite

    def shared(key: dict[str, Any], name: str, values: np.ndarray) -> np.ndarray:
        return np.where(known.get((key["network"], key["removal"], name), False), values, np.nan)

    return [
        (key, means({name: shared(key, name, each) for name, each in values.items()}))
        for key, values in found
    ]


def _ranked(rows: Rows, means: Sequence[float]) -> Rows:
    """Adds each method's rank by IDSDS among those of its judge, on images that all share."""
    for row, mean in zip(rows, means, strict=True):
        row["rank"] = mean
    for rivals in group_rows(rows, "network", "removal").values():
        for row, rank in zip(rivals, ranks([row["rank"] for row in rivals]), strict=True):
            row["rank"] = rank
    return rows


def _agreement(found: Found) -> Rows:
    """Correlates the methods' means of each two judges, where there are three methods or more."""
    judges: dict[tuple[str, str], list[dict[str, np.ndarray]]] = {}
    for key, statistics in found:
        judges.setdefault((key["network"], key["removal"]), []).append(statistics)
    rows = []
    for (first, own), (second, other) in itertools.combinations(judges.items(), 2):
        if len(own) < 3:
            continue
        names = ("network", "removal", "against_network", "against_removal")
        correlations = {name: _rank_correlation(own, other, name) for name in _SCORES}
        rows.append(dict(zip(names, (*first, *second))) | estimates(correlations))
    return rows


def _rank_correlation(
    own: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]], name: str
) -> np.ndarray:
    """Returns Spearman's correlation of the means of two judges, `[1 + draws]`."""
    first, second = (np.stack([each[name] for each in of], axis=1) for of in (own, other))
    known = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    correlations = np.full(len(first), np.nan)
    correlations[known] = pearson(ranked(first[known]), ranked(second[known]))
    return correlations


def _panel(rows: Rows, name: str):
    """Makes the panel of a score: a line for each method, dots for each removal."""
    from lmjax import plots

    by_removal = group_rows(layer_masking_first(rows), "removal")
    names = [methods.get(row["method"]).title for row in next(iter(by_removal.values()))]
    shown = [
        dots(removal_title(removal), chosen, name, removal=removal)
        for removal, chosen in by_removal.items()
    ]
    return plots.DotPanel(_SCORES[name], "mean over images", names, shown)
