"""The study of baselines: how much do heatmaps and their scores depend on the removal?"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import numpy as np
import pyarrow as pa

from lmjax._utils.checks import (
    check_choices,
    check_distinct,
    check_number,
    check_whole,
    set_plain_numbers,
)
from lmjax.masks.families import MaskFamily, Masks, shares
from lmjax.masks.segments import grid
from lmjax.metrics import kendall, spearman, ssim, top_k_jaccard
from lmjax.studies.about import About
from lmjax.studies.experiments import baseline_figures
from lmjax.studies.experiments.baseline_figures import MEASURES
from lmjax.studies.heatmaps import (
    METRICS,
    Occlusion,
    Rise,
    path,
    probabilities,
    probability,
)
from lmjax.studies.images import ImageBatch
from lmjax.studies.settings import check_fit, check_removals, check_whole_numbers
from lmjax.studies.statistics import (
    Group,
    equal,
    groups,
    mean_shares,
    paired_differences,
    summaries,
)
from lmjax.studies.study import Study

GENERATORS = ("rise", "occlusion")
_NO_VALUES = dict.fromkeys(
    (
        *("kind", "generator", "setting", "removal", "against", "masks"),
        *(*MEASURES, "scorer", "metric", "score", "visible", "shown"),
    )
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineDependence(Study):
    """Similarity of heatmaps by RISE and occlusion across removals and settings, and their scores.

    Heatmaps explain the probability of the class that is predicted on the whole image. All removals
    get the same masks, all binary. Rows for each image and network, of four kinds and a fifth:

    - "removals": two heatmaps that differ only in the `removal` (the other is `against`);
    - "settings": two heatmaps of a generator that differ only in its `setting`, under one removal;
    - "masks": the heatmap of RISE from the first `masks` masks, against that of "all" or that of
      "others", the same number of masks after the first ones;
    - "scores": the `score` of a heatmap by a `metric` under a removal, the `scorer`: area under the
      curve of the probability.

    The fifth, "shares", is of removals that drop tokens: the mean share of pixels that the masks of
    a setting leave `visible`, and the share `shown`, which is less where masks cut patches.

    The first three have `spearman`, `ssim` and `top`: Jaccard index of the most salient pixels.
    Tables rank the heatmaps of an image by their scores, and compare rankings of two scorers by
    Kendall's tau. With the same features and steps, MoRF would be deletion, and LeRF insertion read
    backwards: so MoRF and LeRF take squares, deletion and insertion take pixels.

    Attributes:
      removals: under which heatmaps are made, names of removals (`lmjax.removals.names()`), those
        through the layers also with a depth, as in layer@2, or with a file of `lmjax data`, as in
        calibrated@FILE; comparisons are with the first.
      scorers: removals under which heatmaps are scored.
      generators: "rise", "occlusion".
      metrics: "morf", "lerf", "deletion", "insertion"; no metric, no scores.
      rise_masks: numbers of masks, rising. All but the last are for convergence, and cost nothing:
        their heatmaps are of the first of the same masks.
      rise_grids: cells along each side of the image. Settings vary one at a time, while the others
        are the first named.
      rise_keeps: how likely a cell is visible.
      windows: sides of occlusion's windows, in pixels.
      strides: of occlusion, in sides of the window.
      top: share of the pixels that are the most salient ones.
      steps: of the curves of metrics.
      region: side of the squares of MoRF and LeRF, in pixels.

    References:
      Brunke, Agrawal & George 2020, "Evaluating input perturbation methods for interpreting CNNs
      and saliency map comparison" (arXiv 2101.10977), for the question: baselines and settings of
      generators, and baselines of metrics. Its grids of settings are not reproduced here; all
      numbers are ours, but for the first settings of RISE (Petsiuk et al. 2018, arXiv 1806.07421,
      section 4), and squares of 9 pixels (Samek et al. 2017, arXiv 1509.06321).
    """

    name: ClassVar[str] = "baselines"
    title: ClassVar[str] = "Dependence on baselines and settings"
    about: ClassVar[About] = About(
        question=(
            "How much do heatmaps, and rankings of heatmaps by metrics, depend on the removal and"
            " on settings?"
        ),
        method=(
            "RISE and occlusion explain the predicted class under each removal and with each "
            "setting, one setting varied at a time. Heatmaps are compared by Spearman's "
            "correlation, SSIM and the most salient pixels; rankings of heatmaps by Kendall's "
            "tau."
        ),
        reading=(
            "High agreement is good: the choice matters little. Heatmaps of RISE also differ "
            "because their masks are drawn anew; the table of convergence says how much."
        ),
        higher=("spearman", "ssim", "top", "tau"),
        columns={
            "top": "Jaccard index of the most salient pixels",
            "tau": "Kendall's tau",
            "score": "area under the curve",
            "scorer": "scored under",
            "generator": "heatmaps by",
        },
        tables={
            "convergence": "Agreement with more masks",
            "ranking_pairs": "Rankings of each pair of scoring removals",
            "rankings": "Rankings under two scoring removals",
            "rankings_differences": "Rankings, differences",
            "removal_pairs": "Heatmaps of each pair of removals",
            "removals": "Heatmaps of two removals",
            "removals_differences": "Heatmaps of two removals, differences",
            "setting_pairs": "Heatmaps of each pair of settings",
            "settings": "Heatmaps of two settings",
            "settings_differences": "Heatmaps of two settings, differences",
        },
        first="removals",
    )
    removals: tuple[str, ...] = ("layer", "black", "grey", "image_mean", "blur", "gaussian_noise")
    scorers: tuple[str, ...] = ("layer", "black", "grey", "blur")
    generators: tuple[str, ...] = GENERATORS
    metrics: tuple[str, ...] = METRICS
    rise_masks: tuple[int, ...] = (250, 500, 1000, 2000, 4000)
    rise_grids: tuple[int, ...] = (7, 4, 14)
    rise_keeps: tuple[float, ...] = (0.5, 0.25, 0.75)
    windows: tuple[int, ...] = (16, 8, 32)
    strides: tuple[float, ...] = (0.5, 0.25, 1.0)
    top: float = 0.1
    steps: int = 20
    region: int = 9

    def __post_init__(self):
        set_plain_numbers(self)
        check_removals(self.removals)
        check_removals(self.scorers, "scorers")
        check_choices("generators", self.generators, GENERATORS)
        if self.metrics:
            check_choices("metrics", self.metrics, METRICS)
        check_whole_numbers("rise_masks", self.rise_masks, rising=True)
        check_whole_numbers("rise_grids", self.rise_grids)
        check_whole_numbers("windows", self.windows)
        _check_shares("rise_keeps", self.rise_keeps, below=1)
        _check_shares("strides", self.strides, most=1)
        check_number("top", self.top, above=0, most=1)
        check_whole("steps", self.steps, least=2)
        check_whole("region", self.region, least=1)

    def check(self, networks) -> None:
        check_fit(networks, (*self.removals, *self.scorers))

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        rows = []
        for network in batch.networks:
            for i, heatmaps, convergence in self._heatmaps(batch, network):
                sample = batch.samples[i]
                about = {"image": sample.index, "id": sample.id, "network": network}
                found = [
                    *self._between_removals(heatmaps),
                    *self._between_settings(heatmaps),
                    *convergence,
                    *self._scores(batch, network, i, heatmaps),
                ]
                rows += [about | _NO_VALUES | row for row in found]
        return rows

    def heatmap_settings(self) -> list[Rise | Occlusion]:
        """Returns the settings of generators; the first of each is the one that others vary."""
        rise = _one_at_a_time(self.rise_grids, self.rise_keeps)
        windows = _one_at_a_time(self.windows, self.strides)
        found = {
            "rise": [Rise(size, keep, self.rise_masks) for size, keep in rise],
            "occlusion": [Occlusion(w, max(round(share * w), 1)) for w, share in windows],
        }
        return [each for name in self.generators for each in dict.fromkeys(found[name])]

    def _heatmaps(self, batch: ImageBatch, network: str) -> Iterator[tuple[int, dict, list]]:
        """Yields each image's place, its heatmaps, and its "masks" and "shares" rows."""
        shape = batch.images(network).shape[1:3]
        classes, whole = _predicted(batch, network)
        made: dict[tuple[int, Rise | Occlusion], Any] = {
            (i, setting): setting.family(shape, jax.random.fold_in(key, number))
            for i, key in enumerate(batch.keys)
            for number, setting in enumerate(self.heatmap_settings())
        }
        families = [(i, family) for (i, _), family in made.items()]
        parts = [setting.generator for _, setting in made]
        values = probabilities(batch, network, self.removals, families, classes, parts)
        values = dict(zip(made, zip(*values.values())))
        for i in range(len(batch.samples)):
            heatmaps, convergence = {}, []
            for setting in self.heatmap_settings():
                family = made[i, setting]
                found = setting.heatmaps(family, np.stack(values[i, setting], axis=1), whole[i])
                for number, removal in enumerate(self.removals):
                    nested = {masks: each[number] for masks, each in found.items()}
                    heatmaps[setting, removal] = nested[0, len(family)]
                    convergence += self._convergence(nested, setting, removal)
                    convergence += _shares(batch, network, setting, removal, family)
            yield i, heatmaps, convergence

    def _between_removals(self, heatmaps: dict) -> Iterator[dict[str, Any]]:
        """Yields the "removals" rows of an image."""
        for setting, (removal, against) in itertools.product(
            self.heatmap_settings(), itertools.combinations(self.removals, 2)
        ):
            similarity = self._similarity(heatmaps[setting, removal], heatmaps[setting, against])
            about = {"setting": str(setting), "removal": removal, "against": against}
            yield {"kind": "removals", "generator": setting.generator, **about, **similarity}

    def _between_settings(self, heatmaps: dict) -> Iterator[dict[str, Any]]:
        """Yields the "settings" rows of an image."""
        for (setting, against), removal in itertools.product(
            itertools.combinations(self.heatmap_settings(), 2), self.removals
        ):
            if setting.generator == against.generator:
                similarity = self._similarity(
                    heatmaps[setting, removal], heatmaps[against, removal]
                )
                about = {"setting": str(setting), "removal": removal, "against": str(against)}
                yield {"kind": "settings", "generator": setting.generator, **about, **similarity}

    def _convergence(self, nested: dict, setting: Rise | Occlusion, removal: str) -> list[dict]:
        """Returns the "masks" rows of heatmaps by their range of masks."""
        last, rows = max(stop for _, stop in nested), []
        for start, stop in nested:
            if (start, stop) == (0, last):
                continue
            masks, against = (start, "others") if start else (stop, "all")
            other = nested[start, stop] if start else nested[0, last]
            about = {"setting": str(setting), "removal": removal, "against": against}
            about |= {"kind": "masks", "generator": setting.generator, "masks": masks}
            rows.append(about | self._similarity(nested[0, masks], other))
        return rows

    def _similarity(self, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
        """Returns the measures of similarity of two heatmaps."""
        return {
            "spearman": spearman(first, second),
            "ssim": ssim(first, second),
            "top": top_k_jaccard(first, second, k=max(round(self.top * first.size), 1)),
        }

    def _scores(
        self, batch: ImageBatch, network: str, i: int, heatmaps: dict
    ) -> Iterator[dict[str, Any]]:
        """Yields the "scores" rows of image `i`."""
        if not self.metrics:
            return
        classes, whole = _predicted(batch, network)
        regions = grid(batch.images(network)[i], size=self.region)
        paths = {
            (*about, metric): path(metric, found, steps=self.steps, regions=regions)
            for about, found in heatmaps.items()
            for metric in self.metrics
        }
        variants = [*((i, each.family) for each in paths.values()), (i, _nothing(regions.shape))]
        parts = [*(metric for *_, metric in paths), "nothing visible"]
        values = probabilities(batch, network, self.scorers, variants, classes, parts)
        for scorer, (*along_paths, (nothing,)) in values.items():
            for ((setting, removal, metric), each), own in zip(paths.items(), along_paths):
                about = {"setting": str(setting), "removal": removal, "scorer": scorer}
                about |= {"kind": "scores", "generator": setting.generator, "metric": metric}
                yield about | {"score": each.score(own, whole[i], nothing)}

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        by = ("network", "generator")
        settings = _similarities(_of_kind(rows, "settings"), (*by, "removal"))
        removals = _similarities(_mirrored(_of_kind(rows, "removals")), (*by, "removal"))
        taus, scores = _taus(_of_kind(rows, "scores")), _of_kind(rows, "scores")
        rankings = _means(taus, ("network", "metric", "scorer"), ("tau",))
        pairs = {
            "setting_pairs": ("settings", (*by, "setting", "against", "removal")),
            "removal_pairs": ("removals", (*by, "removal", "against")),
            "convergence": ("masks", ("network", "setting", "against", "masks", "removal")),
        }
        shown = _of_kind(rows, "shares")
        tables = {
            "shares": [
                {**group.key, **{name: share for name, (share,) in mean_shares(group).items()}}
                for group in groups(shown, (*by, "setting", "removal"))
            ],
            "settings": _summaries(settings),
            "settings_differences": paired_differences(settings, of_images=True),
            "removals": _summaries(removals),
            "removals_differences": paired_differences(removals, of_images=True),
            "rankings": _summaries(rankings),
            "rankings_differences": paired_differences(rankings, "scorer", of_images=True),
            **{
                name: _summaries(_similarities(_of_kind(rows, kind), columns))
                for name, (kind, columns) in pairs.items()
            },
            "ranking_pairs": _summaries(
                _means(taus, ("network", "metric", "scorer", "against"), ("tau",))
            ),
            "scores": _summaries(
                _means(scores, ("network", "metric", "scorer", "removal"), ("score",))
            ),
        }
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        return baseline_figures.figures(tables, self.removals, self.scorers)


def _one_at_a_time(first: tuple, second: tuple) -> list[tuple]:
    """Pairs each value of one setting with the first of the other, and the other way round."""
    return [(each, second[0]) for each in first] + [(first[0], each) for each in second[1:]]


def _check_shares(
    name: str, values: tuple[float, ...], *, below: float | None = None, most: float | None = None
) -> None:
    """Raises ValueError unless there are numbers above 0 within bounds, none of them twice."""
    for value in values:
        check_number(name, value, above=0, below=below, most=most)
    check_distinct(name, values)


def _shares(
    batch: ImageBatch, network: str, setting: Rise | Occlusion, removal: str, family: MaskFamily
) -> list[dict[str, Any]]:
    """Returns the "shares" row of a setting's masks, where the removal drops tokens."""
    patch_size = batch.patch_size(network, removal)
    if patch_size is None:
        return []
    about = {"kind": "shares", "generator": setting.generator, "setting": str(setting)}
    visible, shown = shares(family).mean(), shares(family, patch_size=patch_size).mean()
    return [{**about, "removal": removal, "visible": float(visible), "shown": float(shown)}]


def _predicted(batch: ImageBatch, network: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes predicted on whole images and their probabilities, `[M]` each."""
    classes = batch.whole_predictions(network)
    return classes, probability(batch.whole_logits(network), classes)


def _nothing(shape: tuple[int, int]) -> Masks:
    """Returns a mask that hides everything."""
    return Masks(np.zeros((1, *shape), bool))


def _of_kind(rows: pa.Table, kind: str) -> pa.Table:
    """Selects the rows of a kind."""
    return rows.filter(equal(rows.column("kind"), kind))


def _mirrored(rows: pa.Table) -> pa.Table:
    """Adds each pair of removals the other way round."""
    names = {"removal": "against", "against": "removal"}
    other = rows.rename_columns([names.get(name, name) for name in rows.column_names])
    both = [rows, other.select(rows.column_names)]
    return pa.concat_tables(both, promote_options="permissive")  # of one removal: against is null


def _by_image(group: Group, name: str) -> np.ndarray:
    """Returns a column as `[images, rows of an image]`, in the order of rows."""
    images = group.columns["image"]
    order = np.argsort(images, kind="stable")
    return group.columns[name][order].reshape(len(np.unique(images)), -1)


def _known_mean(values: np.ndarray) -> np.ndarray:
    """Returns `[N]`, means along the last axis without NaN."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _means(rows: pa.Table, by: tuple[str, ...], names: tuple[str, ...]) -> list[tuple]:
    """Returns the key of each group, and by name the means `[N]` within its images."""
    found = []
    if rows.num_rows == 0:
        return found
    for group in groups(rows, by):
        found.append((group.key, {name: _known_mean(_by_image(group, name)) for name in names}))
    return found


def _similarities(rows: pa.Table, by: tuple[str, ...]) -> list[tuple]:
    """Returns `_means` of the measures of similarity."""
    return _means(rows, by, tuple(MEASURES))


def _summaries(found: list[tuple]) -> list[dict[str, Any]]:
    """Returns a table of `_means`."""
    return summaries(
        ({**key, "images": len(next(iter(values.values())))}, values) for key, values in found
    )


def _taus(rows: pa.Table) -> pa.Table:
    """Returns Kendall's tau of the rankings of heatmaps, by image, metric and pair of scorers."""
    if rows.num_rows == 0:
        return rows
    scores, found = {}, []
    for group in groups(rows, ("network", "metric", "scorer")):
        network, metric, scorer = group.key.values()
        images = np.unique(group.columns["image"])
        by_image = dict(zip(images, _by_image(group, "score")))
        scores.setdefault((network, metric), {})[scorer] = by_image
    for (network, metric), of_scorers in scores.items():
        for scorer, against in itertools.permutations(of_scorers, 2):
            about = {"network": network, "metric": metric, "scorer": scorer, "against": against}
            for image, own in of_scorers[scorer].items():
                several = len(own) > 1  # a single heatmap has no ranking
                tau = kendall(own, of_scorers[against][image]) if several else np.nan
                found.append({"image": image, **about, "tau": tau})
    return pa.Table.from_pylist(found)
