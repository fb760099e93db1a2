"""The study of baselines: how much do maps and their scores depend on how pixels are hidden?"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmjax.masks.families import Masks
from lmjax.masks.segments import grid
from lmjax.metrics import kendall, spearman, ssim, top_k_jaccard
from lmjax.studies.experiments import baseline_figures
from lmjax.studies.experiments.baseline_figures import MEASURES
from lmjax.studies.experiments.heatmaps import (
    METRICS,
    Occlusion,
    Rise,
    path,
    probabilities,
    probability,
)
from lmjax.studies.images import Block
from lmjax.studies.statistics import Group, bootstrap, differences, estimates, groups
from lmjax.studies.study import Study, check_choices, check_removals

GENERATORS = ("rise", "occlusion")
_NOT_HERE = dict.fromkeys(
    (
        *("kind", "generator", "setting", "removal", "against", "masks"),
        *(*MEASURES, "scorer", "metric", "score"),
    )
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineDependence(Study):
    """Maps of RISE and occlusion under several removals and settings: how alike are they?

    Maps explain the probability of the class that is predicted on the whole image. All removals are
    asked about the same masks, all binary. Rows for each image and network, of four kinds:

    - "removals": two maps that differ only in the `removal` (the other is `against`);
    - "settings": two maps of a generator that differ only in its `setting`, under one removal;
    - "masks": the map of RISE of so many `masks`, against that of "all" or that of "others", as
      many, drawn apart from them;
    - "scores": the `score` of a map by a `metric` under a removal, the `scorer`: area under the
      curve of the probability.

    The first three have `spearman`, `ssim` and `top`: Jaccard index of the most salient pixels.
    Tables rank the maps of an image by their scores, and compare rankings of two scorers by
    Kendall's tau. The same features in the same steps, MoRF would be deletion, and LeRF insertion
    read backwards: so MoRF and LeRF take squares, deletion and insertion take pixels.

    Attributes:
      removals: under which maps are made, names as in `lmjax explain`
        (`lmjax.removals.names()`), layer, no_padding and partial also with a depth, as in
        layer@2; comparisons are with the first.
      scorers: removals under which maps are scored.
      generators: "rise", "occlusion".
      metrics: "morf", "lerf", "deletion", "insertion"; none asks for no scores.
      rise_masks: numbers of masks, rising. All but the last are for convergence, and cost nothing:
        their maps are of the first of the same masks.
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
        check_removals(self.removals)
        check_removals(self.scorers, "scorers")
        check_choices("generators", self.generators, GENERATORS)
        if self.metrics:
            check_choices("metrics", self.metrics, METRICS)
        _check_numbers("rise_masks", self.rise_masks, 1, rising=True)
        _check_numbers("rise_grids", self.rise_grids, 1)
        _check_numbers("windows", self.windows, 1)
        _check_shares("rise_keeps", self.rise_keeps, below=1.0)
        _check_shares("strides", self.strides)
        _check_shares("top", (self.top,))
        _check_numbers("steps", (self.steps,), 2)
        _check_numbers("region", (self.region,), 1)

    def asked_under(self) -> tuple[str, ...]:
        return *self.removals, *self.scorers

    def rows(self, block: Block) -> list[dict[str, Any]]:
        rows = []
        for network in block.networks:
            for i, maps, converging in self._maps(block, network):
                sample = block.samples[i]
                about = {"image": sample.index, "id": sample.id, "network": network}
                found = [
                    *self._between_removals(maps),
                    *self._between_settings(maps),
                    *converging,
                    *self._scores(block, network, i, maps),
                ]
                rows += [about | _NOT_HERE | row for row in found]
        return rows

    def settings_of_maps(self) -> list[Rise | Occlusion]:
        """Settings of generators, for each first the one that all others are varied from."""
        rise = _one_at_a_time(self.rise_grids, self.rise_keeps)
        windows = _one_at_a_time(self.windows, self.strides)
        found = {
            "rise": [Rise(size, keep, self.rise_masks) for size, keep in rise],
            "occlusion": [Occlusion(w, max(round(share * w), 1)) for w, share in windows],
        }
        return [each for name in self.generators for each in dict.fromkeys(found[name])]

    def _maps(self, block: Block, network: str) -> Iterator[tuple[int, dict, list]]:
        """For each image maps by setting and removal, and rows on their convergence."""
        shape = block.images(network).shape[1:3]
        classes, whole = _predicted(block, network)
        asked = {
            (i, setting): setting.family(shape, jax.random.fold_in(key, number))
            for i, key in enumerate(block.keys)
            for number, setting in enumerate(self.settings_of_maps())
        }
        families = [(i, family) for (i, _), family in asked.items()]
        values = probabilities(block, network, self.removals, families, classes)
        values = dict(zip(asked, zip(*values.values())))
        for i in range(len(block.samples)):
            maps, converging = {}, []
            for setting in self.settings_of_maps():
                family = asked[i, setting]
                found = setting.maps(family, np.stack(values[i, setting], axis=1), whole[i])
                for number, removal in enumerate(self.removals):
                    nested = {masks: each[number] for masks, each in found.items()}
                    maps[setting, removal] = nested[0, len(family)]
                    converging += self._converging(nested, setting, removal)
            yield i, maps, converging

    def _between_removals(self, maps: dict) -> Iterator[dict[str, Any]]:
        for setting, (removal, against) in itertools.product(
            self.settings_of_maps(), itertools.combinations(self.removals, 2)
        ):
            alike = self._alike(maps[setting, removal], maps[setting, against])
            about = {"setting": str(setting), "removal": removal, "against": against}
            yield {"kind": "removals", "generator": setting.generator, **about, **alike}

    def _between_settings(self, maps: dict) -> Iterator[dict[str, Any]]:
        for (setting, against), removal in itertools.product(
            itertools.combinations(self.settings_of_maps(), 2), self.removals
        ):
            if setting.generator == against.generator:
                alike = self._alike(maps[setting, removal], maps[against, removal])
                about = {"setting": str(setting), "removal": removal, "against": str(against)}
                yield {"kind": "settings", "generator": setting.generator, **about, **alike}

    def _converging(self, nested: dict, setting: Rise | Occlusion, removal: str) -> list[dict]:
        last, rows = max(stop for _, stop in nested), []
        for start, stop in nested:
            if (start, stop) == (0, last):
                continue
            masks, against = (start, "others") if start else (stop, "all")
            other = nested[start, stop] if start else nested[0, last]
            about = {"setting": str(setting), "removal": removal, "against": against}
            about |= {"kind": "masks", "generator": setting.generator, "masks": masks}
            rows.append(about | self._alike(nested[0, masks], other))
        return rows

    def _alike(self, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
        return {
            "spearman": spearman(first, second),
            "ssim": ssim(first, second),
            "top": top_k_jaccard(first, second, k=max(round(self.top * first.size), 1)),
        }

    def _scores(self, block: Block, network: str, i: int, maps: dict) -> Iterator[dict[str, Any]]:
        if not self.metrics:
            return
        classes, whole = _predicted(block, network)
        regions = grid(block.images(network)[i], size=self.region)
        paths = {
            (*about, metric): path(metric, found, steps=self.steps, regions=regions)
            for about, found in maps.items()
            for metric in self.metrics
        }
        asked = [(i, each.family) for each in paths.values()]
        asked.append((i, _nothing(regions.shape)))
        values = probabilities(block, network, self.scorers, asked, classes)
        for scorer, (*answers, (nothing,)) in values.items():
            for ((setting, removal, metric), each), own in zip(paths.items(), answers):
                about = {"setting": str(setting), "removal": removal, "scorer": scorer}
                about |= {"kind": "scores", "generator": setting.generator, "metric": metric}
                yield about | {"score": each.score(own, whole[i], nothing)}

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        maps = ("network", "generator")
        settings = _similarities(_of_kind(rows, "settings"), (*maps, "removal"))
        removals = _similarities(_mirrored(_of_kind(rows, "removals")), (*maps, "removal"))
        taus, scores = _taus(_of_kind(rows, "scores")), _of_kind(rows, "scores")
        rankings = _means(taus, ("network", "metric", "scorer"), ("tau",))
        pairs = {
            "setting_pairs": ("settings", (*maps, "setting", "against", "removal")),
            "removal_pairs": ("removals", (*maps, "removal", "against")),
            "convergence": ("masks", ("network", "setting", "against", "masks", "removal")),
        }
        tables = {
            "settings": _summaries(settings),
            "settings_differences": differences(_without_images(settings)),
            "removals": _summaries(removals),
            "removals_differences": differences(_without_images(removals)),
            "rankings": _summaries(rankings),
            "rankings_differences": differences(_without_images(rankings), "scorer"),
            **{
                name: _summaries(_similarities(_of_kind(rows, kind), by))
                for name, (kind, by) in pairs.items()
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
    """All pairs of the first of one with any of the other."""
    return [(each, second[0]) for each in first] + [(first[0], each) for each in second[1:]]


def _check_numbers(argument: str, given: tuple[int, ...], least: int, *, rising=False) -> None:
    good = given and len({*given}) == len(given) and min(given) >= least
    if not good or (rising and sorted(given) != list(given)):
        raise ValueError(
            f"{argument} must be whole numbers, {least} or more, each once"
            f"{' and rising' if rising else ''}; got {given!r}"
        )


def _check_shares(argument: str, given: tuple[float, ...], *, below: float | None = None) -> None:
    good = given and len({*given}) == len(given) and min(given) > 0 and max(given) <= 1
    if not good or (below is not None and max(given) >= below):
        raise ValueError(
            f"{argument} must be above 0 and {'at most 1' if below is None else f'below {below:g}'}"
            f", each once; got {given!r}"
        )


def _predicted(block: Block, network: str) -> tuple[np.ndarray, np.ndarray]:
    """`[M]` each: the classes predicted on whole images, and their probabilities."""
    classes = block.whole(network).argmax(axis=1)
    return classes, probability(block.whole(network), classes)


def _nothing(shape: tuple[int, int]) -> Masks:
    return Masks(np.zeros((1, *shape), bool))


def _of_kind(rows: pa.Table, kind: str) -> pa.Table:
    return rows.filter(pc.equal(rows.column("kind"), kind))


def _mirrored(rows: pa.Table) -> pa.Table:
    """Each pair of removals twice, either way round."""
    names = {"removal": "against", "against": "removal"}
    other = rows.rename_columns([names.get(name, name) for name in rows.column_names])
    return pa.concat_tables([rows, other.select(rows.column_names)])


def _by_image(group: Group, name: str) -> np.ndarray:
    """A column as `[images, rows of an image]`, in the order of rows."""
    images = group.columns["image"]
    order = np.argsort(images, kind="stable")
    return group.columns[name][order].reshape(len(np.unique(images)), -1)


def _known_mean(values: np.ndarray) -> np.ndarray:
    """`[N]`, means along the last axis, NaN left out."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _means(rows: pa.Table, by: tuple[str, ...], names: tuple[str, ...]) -> list[tuple]:
    """Key, number of images and statistics of each group: means over images of their own means."""
    found = []
    if rows.num_rows == 0:
        return found
    for group in groups(rows, by):
        values = {name: _known_mean(_by_image(group, name)) for name in names}
        images = len(values[names[0]])
        statistics = {k: bootstrap(images).known_means(each) for k, each in values.items()}
        found.append((group.key, images, statistics))
    return found


def _similarities(rows: pa.Table, by: tuple[str, ...]) -> list[tuple]:
    return _means(rows, by, tuple(MEASURES))


def _summaries(found: list[tuple]) -> list[dict[str, Any]]:
    return [{**key, "images": images, **estimates(each)} for key, images, each in found]


def _without_images(found: list[tuple]) -> list[tuple]:
    return [(key, statistics) for key, _, statistics in found]


def _taus(rows: pa.Table) -> pa.Table:
    """For each image, metric and scorer, and every other one, tau of their rankings of maps."""
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
                tau = kendall(own, of_scorers[against][image])
                found.append({"image": image, **about, "tau": tau})
    return pa.Table.from_pylist(found)
