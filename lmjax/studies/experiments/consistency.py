"""The study of consistency: how much do explanations depend on the removal and on the network?"""

import dataclasses
import functools
import itertools
from typing import Any, ClassVar

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmjax.metrics import spearman
from lmjax.removals import registry as by_name
from lmjax.studies.experiments.explanation_study import ExplanationStudy, order
from lmjax.studies.figures import by_network, line, split
from lmjax.studies.images import Block, geometry, random_order
from lmjax.studies.statistics import Group, estimate, estimates, groups, means
from lmjax.studies.study import check_removals

RANDOM = "random"
_COLUMNS = (
    *("image", "id", "network", "part", "k"),
    *("first", "second", "redrawn", "jaccard", "chance", "spearman"),
    *("explained", "removal", "removed", "visible"),
    *("label", "whole_prediction", "prediction", "probability", "correct", "unchanged"),
)
_AGREEMENT = ("image", "network", "redrawn", "first", "second", "k", *_COLUMNS[8:11])
_ABLATION = ("image", "network", "removal", "explained", "k", "correct", "unchanged")
# Numbers of what is drawn for an image: two matrices of coalitions, and an order.
_FIRST, _SECOND, _ORDER = range(3)
_CHARTS_BESIDE = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consistency(ExplanationStudy):
    """Explanations by LIME under several removals, compared; and those of a network on another.

    Rows are of two parts; what does not apply to a part is null there.

    "agreement": explanations of one image and network under two removals, `first` and `second`.
    `jaccard` is that of the sets of the k segments of highest score (shared by both, over in
    either), `chance` what it is on average for two random orders, `spearman` the rank correlation
    of all scores (0 where one is constant). Explanations share a matrix of coalitions, and so a
    part of the noise of sampling it. Where `redrawn` is true, the second comes from another matrix,
    drawn independently: with `first` equal to `second` it says how much of the disagreement is that
    noise, and is the yardstick for other redrawn pairs.

    "ablation": the k segments of highest score of the explanation of network `explained` are
    removed, by the `removal` that it was made with, from the image shown to `network`; or the
    first k of an order drawn for the image (explained is "random"). Rows have `prediction`, its
    `probability`, `label`, `correct`, `unchanged`, the number of segments `removed` and the share
    of pixels `visible`. A second seed of an architecture is one more network.

    Attributes:
      removals: names as in `lmjax explain` (`lmjax.removals.names()`), layer, no_padding and
        partial also with a depth, as in layer@2.
      redrawn: removals whose explanations are also made from a second matrix, as far as they are
        among `removals`; each costs as much as one removal more.

    References:
      Jain et al. 2022, "Missingness bias in model debugging" (arXiv 2204.08945), section 4, and
      their code: eight colours (it does not say which), 16 x 16 patches, 1000 samples, k from 1 to
      49; ablation under black only, of two networks and a random order.
    """

    name: ClassVar[str] = "consistency"
    title: ClassVar[str] = "Consistency of explanations"
    removals: tuple[str, ...] = (
        *("layer", "black", "white", "grey", "red", "green", "blue"),
        *("blur", "gaussian_noise"),
    )
    redrawn: tuple[str, ...] = ("layer", "grey")
    ks: tuple[int, ...] = tuple(range(1, 50))

    def __post_init__(self):
        super().__post_init__()
        check_removals(self.removals, segments=True)
        if self.redrawn:
            check_removals(self.redrawn, "redrawn", segments=True)

    def check(self, networks) -> None:
        super().check(networks)
        geometries = {geometry(network.preprocessing) for network in networks.values()}
        if len(geometries) > 1:
            raise ValueError(
                "networks must resize and crop images alike, so that they have the same segments; "
                f"got {sorted(map(str, geometries))}; give those of one kind"
            )
        if RANDOM in networks:
            raise ValueError(f"networks must not be called {RANDOM!r}, which is the random order")

    def rows(self, block: Block) -> list[dict[str, Any]]:
        scores = {
            network: self.explain(block, network, self.removals, draw=_FIRST)
            for network in block.networks
        }
        rows = []
        for network in block.networks:
            rows += self._agreement(block, network, scores[network])
            rows += self._ablation(block, network, scores)
        return [dict.fromkeys(_COLUMNS) | row for row in rows]

    def _agreement(self, block: Block, network: str, scores) -> list[dict[str, Any]]:
        again_of = [each for each in self.removals if each in self.redrawn]
        again = [()] * len(scores)
        if again_of:
            again = self.explain(block, network, again_of, draw=_SECOND)
        rows = []
        for sample, first, second in zip(block.samples, scores, again):
            first, second = dict(zip(self.removals, first)), dict(zip(again_of, second))
            pairs = [(a, b, False, first[b]) for a, b in itertools.combinations(first, 2)]
            pairs += [(a, b, True, second[b]) for a in first for b in second]
            chance = _chance(len(first[self.removals[0]]), self.ks)
            for a, b, redrawn, of_b in pairs:
                about = {"image": sample.index, "id": sample.id, "network": network}
                about |= {"part": "agreement", "first": a, "second": b, "redrawn": redrawn}
                about["spearman"] = _rank_correlation(first[a], of_b)
                measured = zip(self.ks, _jaccards(first[a], of_b, self.ks), chance)
                for k, jaccard, by_chance in measured:
                    rows.append({**about, "k": k, "jaccard": jaccard, "chance": by_chance})
        return rows

    def _ablation(self, block: Block, network: str, scores) -> list[dict[str, Any]]:
        counts = self.segments(block, network).max(axis=(1, 2)) + 1
        shuffled = [
            random_order(int(count), jax.random.fold_in(key, _ORDER))
            for count, key in zip(counts, block.keys)
        ]
        rows = []
        for r, removal in enumerate(self.removals):
            orders = {name: [order(each[r]) for each in found] for name, found in scores.items()}
            orders[RANDOM] = shuffled
            answers = self.ablate(block, network, removal, list(orders.values()))
            for explained, of_orders in zip(orders, answers, strict=True):
                about = {"part": "ablation", "explained": explained, "removal": removal}
                rows += [{**answer, **about} for answer in of_orders]
        return rows

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        tables = {**_agreement_tables(rows), **_ablation_tables(rows)}
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        from lmjax import plots

        shown = {}
        for network, found in by_network(tables).items():
            images = f"{found['ablation'][0]['images']} images"
            if "pairs" in found:
                shown[f"{network} agreement"] = plots.charts(
                    [_agreement_charts(found["agreement_curves"])],
                    title=f"Agreement of explanations of {network}, {images}",
                )
                shown[f"{network} pairs"] = plots.matrices(
                    [_matrices(found["pairs"], self.removals)],
                    title=f"Agreement of explanations of {network}, {images}\n"
                    "(diagonal: from another matrix of coalitions)",
                )
            charts = [_ablation_chart(found["ablation_curves"], name) for name in self.removals]
            columns = -(-len(charts) // -(-len(charts) // _CHARTS_BESIDE))
            shown[f"{network} ablation"] = plots.charts(
                [charts[i : i + columns] for i in range(0, len(charts), columns)],
                title=f"Top segments removed from what {network} is shown, {images}",
            )
        return shown


def _jaccards(first: np.ndarray, second: np.ndarray, ks: tuple[int, ...]) -> list[float]:
    """Of the sets of the k highest scores, for each k: `lmjax.metrics.top_k_jaccard`."""
    ranks = np.maximum(np.argsort(order(first)), np.argsort(order(second)))
    shared = np.bincount(ranks, minlength=len(ranks)).cumsum()
    k = np.minimum(ks, len(ranks))
    return (shared[k - 1] / (2 * k - shared[k - 1])).tolist()


@functools.cache
def _chance(count: int, ks: tuple[int, ...]) -> list[float]:
    """The Jaccard index of two random sets of k of so many segments, on average."""
    from scipy.stats import hypergeom

    expected = []
    for k in np.minimum(ks, count):
        shared = np.arange(k + 1)
        expected.append(float(hypergeom.pmf(shared, count, k, k) @ (shared / (2 * k - shared))))
    return expected


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    found = spearman(first, second) if len(first) > 1 else np.nan
    return float(np.nan_to_num(found))


def _part(rows: pa.Table, part: str, columns: tuple[str, ...]) -> pa.Table:
    return rows.filter(pc.equal(rows.column("part"), part)).select(columns)


def _agreement_tables(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    pairs, sets = [], {}
    for group in groups(_part(rows, "agreement", _AGREEMENT), _AGREEMENT[1:5]):
        jaccard, rank = group.matrix("jaccard", "k"), group.matrix("spearman", "k")[:, 0]
        network, redrawn, first, second = group.key.values()
        found = means({"jaccard": jaccard.mean(axis=1), "spearman": rank})
        pairs.append({**group.key, "images": len(rank), **estimates(found)})
        key = network, redrawn, _set(first, second)
        sets.setdefault(key, []).append((jaccard, rank, group))
    agreement, differences, curves, reference = [], [], [], {}
    for (network, redrawn, name), members in sets.items():
        jaccard, rank = (np.mean([each[i] for each in members], axis=0) for i in range(2))
        key = {"network": network, "redrawn": redrawn, "set": name}
        about = {"pairs": len(members), "images": len(rank)}
        by_k = means({"jaccard": jaccard})["jaccard"]
        overall = {"jaccard": by_k.mean(axis=1), **means({"spearman": rank})}
        agreement.append({**key, **about, **estimates(overall)})
        against, of_first = reference.setdefault((network, redrawn), (name, overall))
        if against != name:
            gained = {metric: overall[metric] - of_first[metric] for metric in overall}
            differences.append({**key, "against": against, **estimates(gained)})
        chance = members[0][2].matrix("chance", "k").mean(axis=0)
        for i, k in enumerate(_steps(members[0][2])):
            at_k = estimate("jaccard", by_k[:, i])
            curves.append({**key, "k": k, **about, **at_k, "chance": float(chance[i])})
    return {
        "agreement": agreement,
        "agreement_differences": differences,
        "pairs": pairs,
        "agreement_curves": curves,
    }


def _set(first: str, second: str) -> str:
    """What a pair counts as: baselines are of one kind, other removals each of their own."""
    if first == second:
        return f"{by_name.title(first)} again"
    kinds = (
        "baselines" if by_name.paints(each) else by_name.title(each) for each in (first, second)
    )
    return " and ".join(sorted({*kinds}, key=lambda kind: (kind == "baselines", kind)))


def _ablation_tables(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    ablation, differences, curves, found = [], [], [], {}
    for group in groups(_part(rows, "ablation", _ABLATION), _ABLATION[1:4]):
        values = {
            "accuracy": group.matrix("correct", "k"),
            "unchanged": group.matrix("unchanged", "k"),
        }
        statistics, images = means(values), len(values["accuracy"])
        overall = {name: each.mean(axis=1) for name, each in statistics.items()}
        ablation.append({**group.key, "images": images, **estimates(overall)})
        found[tuple(group.key.values())] = overall
        for i, k in enumerate(_steps(group)):
            at_k = estimates({name: each[:, i] for name, each in statistics.items()})
            curves.append({**group.key, "k": k, "images": images, **at_k})
    for (network, removal, explained), overall in found.items():
        if explained != network:
            own = found[network, removal, network]
            gained = {name: overall[name] - own[name] for name in overall}
            key = {"network": network, "removal": removal, "explained": explained}
            differences.append({**key, "against": network, **estimates(gained)})
    return {
        "ablation": ablation,
        "ablation_differences": differences,
        "ablation_curves": curves,
    }


def _steps(group: Group) -> list[int]:
    return np.unique(group.columns["k"]).tolist()


def _agreement_charts(rows: list[dict]) -> list:
    """A chart for pairs that share a matrix of coalitions, and one for those that do not."""
    from lmjax import plots

    charts = []
    for redrawn, chosen in split(rows, "redrawn").items():
        by_set = split(chosen, "set")
        lines = [line(name, of_set, "k", "jaccard") for name, of_set in by_set.items()]
        of_set = next(iter(by_set.values()))  # chance is the same for all
        lines.append(
            plots.Line("random orders", *([row[c] for row in of_set] for c in ("k", "chance")))
        )
        title = f"{'other' if redrawn else 'same'} coalitions"
        charts.append(plots.Chart(title, "k", "Jaccard index of the top k", lines))
    return charts


def _matrices(rows: list[dict], removals: tuple[str, ...]) -> list:
    from lmjax import plots

    labels = [by_name.title(removal) for removal in removals]
    made = []
    for metric, title in (
        ("jaccard", "Jaccard index of the top k, mean over k"),
        ("spearman", "Spearman's correlation of scores"),
    ):
        values = np.full((len(removals), len(removals)), np.nan)
        for row in rows:
            i, j = removals.index(row["first"]), removals.index(row["second"])
            if row["redrawn"] == (i == j):
                values[i, j] = values[j, i] = row[metric]
        made.append(plots.Matrix(title, labels, labels, values))
    return made


def _ablation_chart(rows: list[dict], removal: str):
    from lmjax import plots

    lines = []
    for explained, chosen in split(split(rows, "removal")[removal], "explained").items():
        label = "random order" if explained == RANDOM else f"explanations of {explained}"
        lines.append(line(label, chosen, "k", "unchanged"))
    return plots.Chart(by_name.title(removal), "segments removed", "unchanged predictions", lines)
