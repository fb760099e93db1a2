"""The study of consistency: how much do explanations depend on the removal and on the network?"""

import dataclasses
import functools
import itertools
from typing import Any, ClassVar

import jax
import numpy as np
import pyarrow as pa

from lmjax._utils.renamed import renamed
from lmjax._utils.text import counted
from lmjax.metrics import spearman
from lmjax.removals import paints
from lmjax.removals import title as removal_title
from lmjax.studies.about import About
from lmjax.studies.explanation_study import ExplanationStudy, ranking
from lmjax.studies.figures import by_network, group_rows, line, note_of_shares
from lmjax.studies.images import ImageBatch, geometry, random_order
from lmjax.studies.settings import check_removals
from lmjax.studies.statistics import (
    Group,
    equal,
    estimate,
    estimates,
    groups,
    mean_shares,
    means,
)

RANDOM = "random"
_COLUMNS = (
    *("image", "id", "network", "part", "k"),
    *("first", "second", "redrawn", "jaccard", "chance", "spearman"),
    *("explained", "removal", "removed", "visible", "shown"),
    *("label", "whole_prediction", "prediction", "probability", "correct", "unchanged"),
)
_AGREEMENT = ("image", "network", "redrawn", "first", "second", "k", *_COLUMNS[8:11])
_ABLATION = (
    *("image", "network", "removal", "explained", "k"),
    *("correct", "unchanged", "visible", "shown"),
)
# Numbers of the draws for an image: two matrices of coalitions, and an order.
_FIRST, _SECOND, _ORDER = range(3)
_CHARTS_BESIDE = 3


@renamed(samples="num_samples")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Consistency(ExplanationStudy):
    """Agreement of LIME's explanations under several removals, and their use for other networks.

    Rows are of two parts; columns that do not apply to a part are null there.

    "agreement": explanations of one image and network under two removals, `first` and `second`.
    `jaccard` is the Jaccard index of the sets of the k segments of highest score (shared by both,
    over in either), `chance` its expectation for two random orders, `spearman` the rank correlation
    of all scores (0 where one is constant). Explanations share a matrix of coalitions, and so a
    part of the noise of sampling it. Where `redrawn` is true, the second comes from another matrix,
    drawn independently: with `first` equal to `second` it says how much of the disagreement is that
    noise, and is the yardstick for other redrawn pairs.

    "ablation": the k segments of highest score in the explanation of network `explained` are
    removed, by the `removal` that it was made with, from the image that `network` is evaluated on;
    or the first k of a random order of the image's segments (explained is "random"). Rows
    have `prediction`, its `probability`, `label`, `correct`, `unchanged`, the number of segments
    `removed`, the share of pixels that are `visible`, and the share `shown`, which is less where
    token dropping hides patches that segments cut. A second seed of an architecture is another
    network.

    Attributes:
      removals: names of removals (`lmjax.removals.names()`), those through the layers also with a
        depth, as in layer@2, or with a file of `lmjax data`, as in calibrated@FILE.
      redrawn: removals whose explanations are also made from a second matrix, as far as they are
        among `removals`; each costs as much as another removal.

    References:
      Jain et al. 2022, "Missingness bias in model debugging" (arXiv 2204.08945), section 4, and
      their code: eight colours (it does not say which), 16 x 16 patches, 1000 samples, k from 1 to
      49; ablation under black only, of two networks and a random order.
    """

    name: ClassVar[str] = "consistency"
    title: ClassVar[str] = "Consistency of explanations"
    about: ClassVar[About] = About(
        question=(
            "How alike are explanations of one image under several removals, and are they of the "
            "network or of the image?"
        ),
        method=(
            "LIME explains the predicted class under each removal. The segments of highest score "
            "are compared between removals; then they are removed from the image that the same "
            "network, or another, looks at."
        ),
        reading=(
            "High agreement is good, as far as it is above chance. Explanations from one matrix "
            "of coalitions share a part of its noise: compare redrawn pairs with a removal and "
            "itself redrawn. In the ablation an explanation says something of a network where its"
            " own does more harm than another's: lower accuracy."
        ),
        higher=("jaccard", "spearman"),
        lower=("accuracy", "unchanged"),
        columns={
            "jaccard": "Jaccard index of the top segments",
            "set": "pairs of removals",
        },
        tables={
            "ablation": "Accuracy without the top segments",
            "ablation_curves": "Accuracy without the top segments, step by step",
            "ablation_differences": "Accuracy without the top segments, differences",
            "agreement": "Agreement",
            "agreement_curves": "Agreement, step by step",
            "agreement_differences": "Agreement, differences",
            "pairs": "Agreement of each pair of removals",
        },
        first="agreement",
    )
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
                f"got {sorted(map(str, geometries))}; give networks with one preprocessing"
            )
        if RANDOM in networks:
            raise ValueError(f"networks must not be called {RANDOM!r}, which is the random order")

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        scores = {
            network: self.explain(batch, network, self.removals, draw=_FIRST)
            for network in batch.networks
        }
        rows = []
        for network in batch.networks:
            rows += self._agreement(batch, network, scores[network])
            rows += self._ablation(batch, network, scores)
        return [dict.fromkeys(_COLUMNS) | row for row in rows]

    def _agreement(self, batch: ImageBatch, network: str, scores) -> list[dict[str, Any]]:
        """Returns the rows of "agreement" for a network; `scores` `[R, S]` are of each image."""
        again_of = [each for each in self.removals if each in self.redrawn]
        again = [()] * len(scores)
        if again_of:
            again = self.explain(batch, network, again_of, draw=_SECOND)
        rows = []
        for sample, first, second in zip(batch.samples, scores, again):
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

    def _ablation(self, batch: ImageBatch, network: str, scores) -> list[dict[str, Any]]:
        """Returns the rows of "ablation" for a network; `scores` are those of each network."""
        counts = self.segments(batch, network).max(axis=(1, 2)) + 1
        shuffled = [
            random_order(int(count), jax.random.fold_in(key, _ORDER))
            for count, key in zip(counts, batch.keys)
        ]
        rows = []
        for r, removal in enumerate(self.removals):
            orders = {name: [ranking(each[r]) for each in found] for name, found in scores.items()}
            orders[RANDOM] = shuffled
            ablated = self.ablate(batch, network, removal, list(orders.values()))
            for explained, predictions in zip(orders, ablated, strict=True):
                about = {"part": "ablation", "explained": explained, "removal": removal}
                rows += [{**prediction, **about} for prediction in predictions]
        return rows

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        tables = {**_agreement_tables(rows), **_ablation_tables(rows)}
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        from lmjax import plots

        shown = {}
        in_order = tuple(sorted(self.removals, key=lambda name: not plots.is_emphasised(name)))
        for network, found in by_network(tables).items():
            images = counted(found["ablation"][0]["images"], "image")
            if "pairs" in found:
                shown[f"{network} agreement"] = plots.charts(
                    [_agreement_charts(found["agreement_curves"], self.removals)],
                    title=f"Agreement of explanations of {network}, {images}",
                )
                shown[f"{network} pairs"] = plots.matrices(
                    [_matrices(found["pairs"], in_order)],
                    title=f"Agreement of explanations of {network}, {images}\n"
                    "(diagonal: from another matrix of coalitions)",
                )
            charts = [_ablation_chart(found["ablation_curves"], name) for name in in_order]
            columns = -(-len(charts) // -(-len(charts) // _CHARTS_BESIDE))
            shown[f"{network} ablation"] = plots.charts(
                [charts[i : i + columns] for i in range(0, len(charts), columns)],
                title=f"Top segments removed from what {network} is shown, {images}"
                + note_of_shares(found["ablation_curves"]),
            )
        return shown


def _jaccards(first: np.ndarray, second: np.ndarray, ks: tuple[int, ...]) -> list[float]:
    """Returns `lmjax.metrics.top_k_jaccard` of two explanations for each k."""
    ranks = np.maximum(np.argsort(ranking(first)), np.argsort(ranking(second)))
    shared = np.bincount(ranks, minlength=len(ranks)).cumsum()
    k = np.minimum(ks, len(ranks))
    return (shared[k - 1] / (2 * k - shared[k - 1])).tolist()


@functools.cache
def _chance(count: int, ks: tuple[int, ...]) -> list[float]:
    """Returns the expected Jaccard index of two random sets of k segments, for each k."""
    from scipy.stats import hypergeom

    expected = []
    for k in np.minimum(ks, count):
        shared = np.arange(k + 1)
        expected.append(float(hypergeom.pmf(shared, count, k, k) @ (shared / (2 * k - shared))))
    return expected


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Spearman's correlation; 0 where it is not defined."""
    found = spearman(first, second) if len(first) > 1 else np.nan
    return float(np.nan_to_num(found))


def _part(rows: pa.Table, part: str, columns: tuple[str, ...]) -> pa.Table:
    """Selects columns of the rows of a part."""
    known = [name for name in columns if name in rows.column_names]
    return rows.filter(equal(rows.column("part"), part)).select(known)


def _agreement_tables(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Summarises "agreement": each pair of removals, and sets of pairs."""
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
    """Names the set that a pair belongs to: all baselines count as one, other removals do not."""
    if first == second:
        return f"{removal_title(first)} again"
    kinds = ("baselines" if paints(each) else removal_title(each) for each in (first, second))
    return " and ".join(sorted({*kinds}, key=lambda kind: (kind == "baselines", kind)))


def _ablation_tables(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Summarises "ablation": over k, minus a network's own explanations, and for each k."""
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
        shares = mean_shares(group, "k")
        for i, k in enumerate(_steps(group)):
            at_k = estimates({name: each[:, i] for name, each in statistics.items()})
            of_step = {name: share[i] for name, share in shares.items()}
            curves.append({**group.key, "k": k, **of_step, "images": images, **at_k})
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
    """Returns the values of k in a group."""
    return np.unique(group.columns["k"]).tolist()


def _agreement_charts(rows: list[dict], removals: tuple[str, ...]) -> list:
    """Makes a chart for pairs that share a matrix of coalitions, and one for the other pairs."""
    from lmjax import plots

    charts, again = [], {_set(name, name): name for name in removals}
    for redrawn, chosen in group_rows(rows, "redrawn").items():
        by_set = group_rows(chosen, "set")
        lines = [
            line(name, of_set, "k", "jaccard", removal=again.get(name))
            for name, of_set in by_set.items()
        ]
        of_set = next(iter(by_set.values()))  # chance is the same for all
        ks, chance = ([row[column] for row in of_set] for column in ("k", "chance"))
        lines.append(plots.Line("random orders", ks, chance))
        title = f"{'other' if redrawn else 'same'} coalitions"
        charts.append(plots.Chart(title, "k", "Jaccard index of the top k", lines))
    return charts


def _matrices(rows: list[dict], removals: tuple[str, ...]) -> list:
    """Makes a matrix of all pairs of removals for each measure of agreement."""
    from lmjax import plots

    labels = [removal_title(removal) for removal in removals]
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
        made.append(plots.Matrix(title, labels, labels, values.tolist()))
    return made


def _ablation_chart(rows: list[dict], removal: str):
    """Makes the chart of a removal, with a line for each network that was explained."""
    from lmjax import plots

    lines = []
    for explained, chosen in group_rows(group_rows(rows, "removal")[removal], "explained").items():
        label = "random order" if explained == RANDOM else f"explanations of {explained}"
        lines.append(line(label, chosen, "k", "unchanged"))
    return plots.Chart(removal_title(removal), "segments removed", "unchanged predictions", lines)
