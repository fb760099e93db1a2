"""Networks that differ in the seed of their training only: what holds for all of them.

Networks called NAME-0, NAME-1, ... are seeds of one kind, NAME. Intervals of a study's tables are
over images; these are over seeds: where the mean of all networks that such trainings make is, on
the same images.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmjax.studies.figures import X_LABELS, Rows, line, split
from lmjax.studies.statistics import CONFIDENCE, ends, estimated, interval

_OF_A_SEED = re.compile(r"(.+)-(\d+)")
_COUNTS = ("images", "visible", "hidden", "removed")  # measured; not what a row is about


def over_seeds(tables: Mapping[str, Rows]) -> dict[str, Rows]:
    """Tables of networks of several seeds, as means over seeds.

    An estimate's interval is mean +- t * s / sqrt(n) for n seeds: Student's, 95%. Where an estimate
    is not defined (NaN) for a seed, neither is its mean.

    Args:
      tables: of a study, as `Study.tables` gives them. Those without networks, and those that
        compare one network with another, are left out.

    Returns:
      Tables with the kind as `network` and the number of `seeds`; and as NAME_between_kinds each
      kind minus the first one (`against_network`), seed by seed, on the seeds that both have.

    Raises:
      ValueError: a network's name has no seed, or a kind has one seed only.
    """
    networks = dict.fromkeys(
        row["network"] for table in tables.values() for row in table if "network" in row
    )
    check_names(tuple(networks))
    found = {}
    for name, table in tables.items():
        others = {value for row in table for key, value in row.items() if key != "network"}
        if not table or "network" not in table[0] or others & networks.keys():
            continue
        found[name], differences = _table(table)
        if differences:
            found[f"{name}_between_kinds"] = differences
    return found


def check_names(networks: Sequence[str]) -> None:
    """Raises ValueError unless these are names of kinds of networks, two seeds or more of each."""
    kinds = [match.group(1) for match in map(_OF_A_SEED.fullmatch, networks) if match]
    if not kinds or len(kinds) < len(networks) or any(kinds.count(kind) < 2 for kind in kinds):
        raise ValueError(
            "networks must be called NAME-SEED, such as plain-0 and plain-1, with two seeds or "
            f"more of each NAME; got {', '.join(networks) or 'none'}. Their names come from files "
            "or folders of weights"
        )


def figures(tables: Mapping[str, Rows]) -> dict[str, Any]:
    """A figure of each table over seeds whose rows lie along an axis: removals side by side."""
    from lmjax import plots

    shown = {}
    for name, table in tables.items():
        x = next((axis for axis in X_LABELS if axis in table[0]), None)
        if x is None or "against" in table[0] or "against_network" in table[0]:
            continue
        others = [k for k in _keys(table[0]) if k not in (x, "removal", "network", "seeds")]
        for setting, rows in split(table, *others).items() if others else [((), table)]:
            setting = setting if isinstance(setting, tuple) else (setting,)
            charts = [[*_row_of_charts(rows, x, metric)] for metric in estimated(rows[0])]
            title = ", ".join([*map(str, setting), f"{rows[0]['seeds']} seeds"])
            shown["_".join([name, *map(str, setting)])] = plots.charts(charts, title=title)
    return shown


def _row_of_charts(rows: Rows, x: str, metric: str) -> Iterator[Any]:
    """A chart for each removal, with a curve for each kind of network."""
    from lmjax import plots
    from lmjax.removals import registry as by_name

    for removal, chosen in split(rows, "removal").items():
        lines = [line(kind, each, x, metric) for kind, each in split(chosen, "network").items()]
        yield plots.Chart(by_name.title(removal), X_LABELS[x], metric, lines)


def _table(table: Rows) -> tuple[Rows, Rows]:
    """Means over seeds, and differences from the first kind."""
    by_kind = {}
    for row in table:
        kind, seed = _OF_A_SEED.fullmatch(row["network"]).groups()
        by_kind.setdefault(kind, {}).setdefault(_key(row), {})[seed] = row
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


def _summary(about: dict[str, Any], rows: Rows, reference: Rows | None = None) -> dict[str, Any]:
    """Rows of several seeds as one row, minus the `reference` of the same seeds if given."""
    names = estimated(rows[0])
    counts = [] if reference else [name for name in _COUNTS if name in rows[0]]

    def values(name: str) -> np.ndarray:
        of_rows = np.array([row[name] for row in rows], np.float64)
        return of_rows - [row[name] for row in reference] if reference else of_rows

    return {
        **about,
        **{name: rows[0][name] for name in _keys(rows[0]) if name != "network"},
        "seeds": len(rows),
        **{name: float(values(name).mean()) for name in counts},
        **{k: v for name in names for k, v in student(name, values(name)).items()},
    }


def student(name: str, values: np.ndarray) -> dict[str, float]:
    """Mean of `[n]` as three columns: its value, and Student's 95% interval; NaN for one value."""
    from scipy.stats import t

    mean, half = float(np.mean(values)), math.nan
    if len(values) > 1:
        quantile = t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
        half = float(quantile * np.std(values, ddof=1) / math.sqrt(len(values)))
    return interval(name, mean, mean - half, mean + half)


def _keys(row: dict[str, Any]) -> list[str]:
    answers = {column for name in estimated(row) for column in (name, *ends(name))}
    return [name for name in row if name not in {*answers, *_COUNTS}]


def _key(row: dict[str, Any]) -> tuple:
    return tuple((name, row[name]) for name in _keys(row) if name != "network")
