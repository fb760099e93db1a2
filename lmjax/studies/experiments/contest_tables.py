"""Tables of the contest of removals: a row for each removal, curves and costs."""

from typing import Any

import numpy as np
import pyarrow as pa

from lmjax.metrics.occlusion import mean_height
from lmjax.studies.figures import group_rows
from lmjax.studies.measurements import measurements
from lmjax.studies.statistics import (
    RESAMPLES,
    Group,
    bootstrap,
    correctly_classified,
    equal,
    estimates,
    groups,
    means,
    number_of_classes,
    paired_differences,
    ranks,
    where_correct,
)

Found = dict[tuple[str, str], dict[str, np.ndarray]]
"""Statistics `[1 + draws]` by network and removal, then by name."""


def summarise(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Makes the tables of a contest, of all its rows and of the costs that they bring."""
    classes, found = number_of_classes(rows), {}
    curves = _survival(_part(rows, "random"), found)
    holes = _leaks(_part(rows, "shape"), found)
    _explanations(_part(rows, "lime"), found)
    if not found:
        correctly_classified(rows)  # raises: only the part "random" looks at other images
    costs = measurements(rows)
    # A network that recognises no image has results of the part "random" alone.
    names = dict.fromkeys(name for each in found.values() for name in each)
    unknown = np.full(1 + RESAMPLES, np.nan)
    of_removals = [
        ({"network": n, "removal": r}, {name: each.get(name, unknown) for name in names})
        for (n, r), each in found.items()
    ]
    tables = {
        "removals": _with_costs(of_removals, costs),
        "differences": paired_differences(of_removals),
        "curves": [row | {"classes": classes} for row in curves],
        "shape": [row | {"classes": classes} for row in holes],
        "costs": costs,
    }
    return {name: table for name, table in tables.items() if table}


def _part(rows: pa.Table, part: str) -> pa.Table:
    """Selects the rows of a part, and the columns that it has."""
    rows = rows.filter(equal(rows.column("part"), part))
    return rows.select([n for n in rows.column_names if rows.column(n).null_count < rows.num_rows])


def _statistics_of(found: Found, group: Group) -> dict[str, np.ndarray]:
    """Returns the statistics of a group's network and removal, to which others are added."""
    return found.setdefault((group.key["network"], group.key["removal"]), {})


def _survival(rows: pa.Table, found: Found) -> list[dict[str, Any]]:
    """Adds R-OMS and the means over fractions and sizes to `found`; returns curves."""
    curves = []
    for of_removal in groups(rows, ("network", "removal")):
        sizes = {}
        for number in np.unique(of_removal.columns["n_segments"]).tolist():
            group = of_removal.where("n_segments", number)
            shares = 1 - group.matrix("visible", "fraction")
            statistics = _statistics(group)
            for i, fraction in enumerate(np.unique(group.columns["fraction"]).tolist()):
                key = {**group.key, "n_segments": number, "fraction": fraction}
                key |= {"removed": float(shares[:, i].mean()), "images": len(shares)}
                curves.append(key | estimates({name: x[:, i] for name, x in statistics.items()}))
            heights = mean_height(shares, group.matrix("kept", "fraction"))
            sizes[number] = {"r_oms": bootstrap(len(shares)).means(heights)}
            sizes[number] |= {name: x.mean(axis=1) for name, x in statistics.items()}
        means_over_sizes = {
            name: np.mean([each[name] for each in sizes.values()], axis=0)
            for name in ("r_oms", "unchanged", "accuracy", "entropy")
        }
        of_sizes = {f"r_oms_{number}": each["r_oms"] for number, each in sizes.items()}
        _statistics_of(found, of_removal).update(means_over_sizes | of_sizes)
    return curves


def _statistics(group: Group) -> dict[str, np.ndarray]:
    """Returns metrics `[1 + draws, fractions]` by name."""
    columns = {"probability": "kept", "unchanged": "unchanged", "accuracy": "correct"}
    values = {name: group.matrix(column, "fraction") for name, column in columns.items()}
    predictions = group.matrix("prediction", "fraction")
    return means(values) | {"entropy": bootstrap(len(predictions)).entropies(predictions)}


def _leaks(rows: pa.Table, found: Found) -> list[dict[str, Any]]:
    """Adds accuracies without the object, or its swapped mask, to `found`; returns curves."""
    holes = []
    if rows.num_rows == 0:  # without the part it has no columns
        return holes
    for group in groups(where_correct(rows), ("network", "removal", "hole")):
        correct = group.matrix("correct", "margin")
        accuracies = bootstrap(len(correct)).means(correct)
        _statistics_of(found, group)[f"{group.key['hole']}_removed"] = accuracies.mean(axis=1)
        for i, margin in enumerate(np.unique(group.columns["margin"]).tolist()):
            key = {**group.key, "margin": int(margin), "images": len(correct)}
            holes.append(key | estimates({"accuracy": accuracies[:, i]}))
    return holes


def _explanations(rows: pa.Table, found: Found) -> None:
    """Adds what LIME finds, and what judges say of it, to `found`.

    Alignments are of the images on which those of all removals are known.
    """
    if rows.num_rows == 0:
        return
    rows = where_correct(rows)
    unknown = {
        each.key["network"]: each.columns["image"][np.isnan(each.columns["alignment"])]
        for each in groups(rows, ("network",))
    }
    for group in groups(rows, ("network", "removal", "judge")):
        localised = {name: group.matrix(name, "label")[:, 0] for name in ("alignment", "iou")}
        left_out = np.isin(np.unique(group.columns["image"]), unknown[group.key["network"]])
        localised["alignment"] = np.where(left_out, np.nan, localised["alignment"])
        judged = {
            f"{name}_{group.key['judge']}": group.matrix(name, "label")[:, 0]
            for name in ("gain", "top_unchanged")
            if _is_known(name, group)
        }
        _statistics_of(found, group).update(means({**localised, **judged}))


def _is_known(column: str, group: Group) -> bool:
    """Whether a column is in all rows of a group: shards of earlier versions have no others."""
    return column in group.columns and not np.isnan(group.columns[column]).any()


def _with_costs(
    of_removals: list[tuple[dict[str, Any], dict[str, np.ndarray]]], costs: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Makes a row of each removal's statistics, with its rank by R-OMS and its cost."""
    by_key = {(row["network"], row["removal"]): row for row in costs}
    timed = ("milliseconds", "milliseconds_low", "milliseconds_high", "first_call_seconds")
    table = []
    for key, statistics in of_removals:
        cost = by_key.get((key["network"], key["removal"]))
        rank = {"rank": None} if "r_oms" in statistics else {}
        row = {**key, **rank, **estimates(statistics)}
        table.append(row | ({n: cost[n] for n in timed} if cost else {}))
    for rivals in group_rows(table, "network").values() if "rank" in table[0] else ():
        for row, rank in zip(rivals, ranks([row["r_oms"] for row in rivals]), strict=True):
            row["rank"] = rank
    return table
