"""Means over networks that differ only in the seed of their training, with intervals over seeds.

Intervals of a study's tables are over images: they say how sure an estimate is for one network.
Intervals over seeds say where the mean of all networks of a kind is, on the same images.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmjax.studies.figures import X_LABELS, Rows, chance, group_rows, layer_masking_first, line
from lmjax.studies.statistics import CONFIDENCE, ends, estimated_columns, interval

Kinds = Mapping[str, Sequence[str]]
"""Kinds of training by name: the names of their networks, one for each seed, in the same order."""

# Measured; no part of a row's key.
_COUNTS = (
    *("images", "visible", "shown", "hidden", "removed"),
    *("classes", "rank", "first_call_seconds"),
)
_ACCURACIES = ("accuracy", "object", "swapped")


def over_seeds(tables: Mapping[str, Rows], kinds: Kinds) -> dict[str, Rows]:
    """Averages tables over the seeds of each kind of training.

    An estimate's interval is mean +- t * s / sqrt(n) for n seeds: Student's, 95%. Where an estimate
    is not defined (NaN) for a seed, neither is its mean.

    Args:
      tables: of a study, as `Study.tables` returns them. Those without networks, and those that
        compare one network with another, are left out: the other is in a column whose name has
        `network` in it, in `explained`, or in `against`.
      kinds: the networks to average. Networks that are in none are left out; where one has no row,
        as it recognises no image, `seeds` counts the others.

    Returns:
      Tables with the kind as `network` and the number of `seeds`; and as NAME_between_kinds
      each kind minus the first one (`against_network`), seed by seed: the first network of one
      minus the first of the other, and so on, as far as both have rows.
    """
    networks = {row["network"] for table in tables.values() for row in table if "network" in row}
    found = {}
    for name, table in tables.items():
        if not table or "network" not in table[0] or _compares_networks(table, networks):
            continue
        means, differences = _table(table, kinds)
        found[name] = means
        if differences:
            found[f"{name}_between_kinds"] = differences
    return found


def _compares_networks(table: Rows, networks: Collection[str]) -> bool:
    """Returns whether rows are of one network compared with another.

    Networks may be called like removals and methods, which other columns name. `against` names what
    a table compares: networks, if that is never the row's own.
    """
    others = [name for name in table[0] if name != "network"]
    if any("network" in name or name == "explained" for name in others):
        return True
    against = [(row["network"], row.get("against")) for row in table]
    return all(other in networks and other != own for own, other in against)


def check_kinds(kinds: Kinds, networks: Iterable[str]) -> None:
    """Raises ValueError unless there are kinds of two networks or more, each network once.

    Args:
      kinds: to be checked.
      networks: the names that a study's networks have.
    """
    networks = tuple(networks)
    members = [name for names in kinds.values() for name in names]
    unknown = [name for name in members if name not in networks]
    few = not kinds or any(len(names) < 2 for names in kinds.values())
    if unknown or few or len({*members}) < len(members):
        got = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
        raise ValueError(
            "kinds must name two or more networks of the study each, one for each seed, and no "
            f"network twice; got {got or 'none'}. The study's networks are {', '.join(networks)}"
        )


def figures(tables: Mapping[str, Rows]) -> dict[str, Any]:
    """Draws each table over seeds whose rows lie along an axis, removals side by side."""
    from lmjax import plots

    shown = {}
    for name, table in tables.items():
        x = next((axis for axis in X_LABELS if axis in table[0]), None)
        if x is None or "against" in table[0] or "against_network" in table[0]:
            continue
        others = [k for k in _keys(table[0]) if k not in (x, "removal", "network", "seeds")]
        for setting, rows in group_rows(table, *others).items() if others else [((), table)]:
            setting = setting if isinstance(setting, tuple) else (setting,)
            charts = [[*_row_of_charts(rows, x, each)] for each in estimated_columns(rows[0])]
            title = ", ".join([*map(str, setting), f"{rows[0]['seeds']} seeds"])
            shown["_".join([name, *map(str, setting)])] = plots.charts(charts, title=title)
    return shown


def _row_of_charts(rows: Rows, x: str, metric: str) -> Iterator[Any]:
    """Makes a chart for each removal, with a line for each kind."""
    from lmjax import plots
    from lmjax.removals import title as removal_title

    reference = chance(rows) if metric in _ACCURACIES else None
    for removal, chosen in group_rows(layer_masking_first(rows), "removal").items():
        by_kind = group_rows(chosen, "network").items()
        lines = [line(kind, each, x, metric) for kind, each in by_kind]
        title = removal_title(removal)
        yield plots.Chart(title, X_LABELS[x], metric, lines, reference=reference)


def _table(table: Rows, kinds: Kinds) -> tuple[Rows, Rows]:
    """Returns means over seeds, and differences from the first kind."""
    by_kind = {kind: _by_key(table, networks) for kind, networks in kinds.items()}
    first, *others = by_kind
    means = [
        _summary({"network": kind}, [*seeds.values()])
        for kind, by_key in by_kind.items()
        for seeds in by_key.values()
    ]
    differences = []
    for kind in others:
        for key, seeds in by_kind[kind].items():
            reference = by_kind[first].get(key, {})
            pairs = [(row, reference[seed]) for seed, row in seeds.items() if seed in reference]
            if pairs:
                about = {"network": kind, "against_network": first}
                differences.append(_summary(about, *map(list, zip(*pairs, strict=True))))
    return means, differences


def _by_key(table: Rows, networks: Sequence[str]) -> dict[tuple, dict[int, dict[str, Any]]]:
    """Groups the rows of a kind's networks by their key, then by the place of their network."""
    found = {}
    for row in table:
        if row["network"] in networks:
            found.setdefault(_key(row), {})[networks.index(row["network"])] = row
    return found


def _summary(about: dict[str, Any], rows: Rows, reference: Rows | None = None) -> dict[str, Any]:
    """Returns the rows of several seeds as one row, minus the `reference` of the same seeds."""
    names = estimated_columns(rows[0])
    counts = [] if reference else [name for name in rows[0] if _is_count(name)]

    def values(name: str) -> np.ndarray:
        by_seed = np.array([row[name] for row in rows], np.float64)
        return by_seed - [row[name] for row in reference] if reference else by_seed

    return {
        **about,
        **{name: rows[0][name] for name in _keys(rows[0]) if name != "network"},
        "seeds": len(rows),
        **{name: float(values(name).mean()) for name in counts},
        **{k: v for name in names for k, v in student(name, values(name)).items()},
    }


def student(name: str, values: np.ndarray) -> dict[str, float]:
    """Returns the mean of `[n]` as three columns: its value and Student's 95% interval.

    The interval of one value is NaN.
    """
    from scipy.stats import t

    mean, half = float(np.mean(values)), math.nan
    if len(values) > 1:
        quantile = t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
        half = float(quantile * np.std(values, ddof=1) / math.sqrt(len(values)))
    return interval(name, mean, mean - half, mean + half)


def _keys(row: dict[str, Any]) -> list[str]:
    """Returns the names of the columns that say which row it is."""
    measured = {column for name in estimated_columns(row) for column in (name, *ends(name))}
    return [name for name in row if name not in measured and not _is_count(name)]


def _is_count(name: str) -> bool:
    return name in _COUNTS or name.endswith("_images")


def _key(row: dict[str, Any]) -> tuple:
    """Returns what a row has in common with those of other networks."""
    return tuple((name, row[name]) for name in _keys(row) if name != "network")
