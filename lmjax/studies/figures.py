"""From the rows of tables to what figures are drawn of."""

from typing import Any

from lmjax.removals import by_name
from lmjax.studies.statistics import ends

Rows = list[dict[str, Any]]

X_LABELS = {"fraction": "fraction of segments removed", "margin": "margin (pixels)"}
"""What is written along the axis of a column."""


def split(rows: Rows, *names: str) -> dict[Any, Rows]:
    """Rows by their value of a column, or values of several, in the order of first meeting."""
    found = {}
    for row in rows:
        key = row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)
        found.setdefault(key, []).append(row)
    return found


def by_network(tables: dict[str, Rows]) -> dict[str, dict[str, Rows]]:
    """For each network, its rows of the tables that have some."""
    found = {}
    for name, table in tables.items():
        for network, rows in split(table, "network").items():
            found.setdefault(network, {})[name] = rows
    return found


def line(label: str, rows: Rows, x: str, y: str):
    """A curve of estimates with their intervals, `lmjax.plots.Line`."""
    from lmjax import plots

    return plots.Line(label, *_columns(rows, x, y, *ends(y)))


def lines_of_removals(rows: Rows, x: str, y: str) -> list:
    """A curve for each removal."""
    by_removal = split(rows, "removal").items()
    return [line(by_name.title(removal), chosen, x, y) for removal, chosen in by_removal]


def dots(label: str, rows: Rows, name: str):
    """Estimates with their intervals, `lmjax.plots.Dots`."""
    from lmjax import plots

    return plots.Dots(label, *_columns(rows, name, *ends(name)))


def _columns(rows: Rows, *names: str) -> list[list]:
    return [[row[name] for row in rows] for name in names]
