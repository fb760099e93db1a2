"""Parts of figures, from the rows of tables: groups of rows, lines and dots with intervals."""

from typing import Any

from lmjax.removals import title as removal_title
from lmjax.studies.statistics import ends

Rows = list[dict[str, Any]]

X_LABELS = {"fraction": "fraction of segments removed", "margin": "margin (pixels)"}
"""Labels of axes, by column."""


def group_rows(rows: Rows, *names: str) -> dict[Any, Rows]:
    """Groups rows by their value of a column, or their values of several, in the order of rows."""
    found = {}
    for row in rows:
        key = row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)
        found.setdefault(key, []).append(row)
    return found


def by_network(tables: dict[str, Rows]) -> dict[str, dict[str, Rows]]:
    """Groups the rows of tables by network, then by table."""
    found = {}
    for name, table in tables.items():
        for network, rows in group_rows(table, "network").items():
            found.setdefault(network, {})[name] = rows
    return found


def line(label: str, rows: Rows, x: str, y: str):
    """Returns a line through estimates with their intervals, `lmjax.plots.Line`."""
    from lmjax import plots

    return plots.Line(label, *_columns(rows, x, y, *ends(y)))


def lines_of_removals(rows: Rows, x: str, y: str) -> list:
    """Returns a line for each removal."""
    by_removal = group_rows(rows, "removal").items()
    return [line(removal_title(removal), chosen, x, y) for removal, chosen in by_removal]


def dots(label: str, rows: Rows, name: str):
    """Returns estimates with their intervals as dots, `lmjax.plots.Dots`."""
    from lmjax import plots

    return plots.Dots(label, *_columns(rows, name, *ends(name)))


def _columns(rows: Rows, *names: str) -> list[list]:
    """Returns columns of rows as lists."""
    return [[row[name] for row in rows] for name in names]
