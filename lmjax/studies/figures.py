"""Parts of figures, from the rows of tables: groups of rows, lines and dots with intervals."""

from typing import Any

from lmjax.evaluation.shares import Shares
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


def layer_masking_first(rows: Rows) -> Rows:
    """Returns rows, those of removals that figures emphasise first."""
    from lmjax import plots

    return sorted(rows, key=lambda row: not plots.is_emphasised(row["removal"]))


def chance(rows: Rows) -> tuple[str, float] | None:
    """Returns the reference of accuracies, `lmjax.plots.Chart`; None for rows without `classes`."""
    classes = rows[0].get("classes")
    return ("chance", 1 / classes) if classes else None


def line(label: str, rows: Rows, x: str, y: str, *, removal: str | None = None):
    """Returns a line through estimates with their intervals, `lmjax.plots.Line`."""
    from lmjax import plots

    return plots.Line(label, *_columns(rows, x, y, *ends(y)), removal=removal)


def lines_of_removals(rows: Rows, x: str, y: str, *, prefix: str = "") -> list:
    """Returns a line for each removal, labelled by a prefix and its title."""
    by_removal = group_rows(layer_masking_first(rows), "removal").items()
    return [
        line(prefix + removal_title(removal), chosen, x, y, removal=removal)
        for removal, chosen in by_removal
    ]


def note_of_shares(rows: Rows) -> str:
    """Returns a line for a figure's title on removals that show another share than their masks do.

    It begins with a new line, and is empty where no share differs by more than a tenth. Of each
    removal, the row tells whose shares differ most.

    Args:
      rows: of a table, with `shown` where it is known, and `visible` or `hidden`.
    """
    notes = []
    for removal, chosen in group_rows(rows, "removal").items():
        known = [
            Shares(row["visible"] if "visible" in row else 1 - row["hidden"], row["shown"])
            for row in chosen
            if row.get("shown") is not None
        ]
        noted = [shares for shares in known if shares.note()]
        if noted:
            most = max(noted, key=lambda shares: abs(shares.visible - shares.shown))
            notes.append(f"{removal_title(removal)} {most.note()}")
    return "\n" + "; ".join(notes) if notes else ""


def dots(label: str, rows: Rows, name: str, *, removal: str | None = None):
    """Returns estimates with their intervals as dots, `lmjax.plots.Dots`, by `removal`'s rows."""
    from lmjax import plots

    rows = layer_masking_first(rows)
    return plots.Dots(label, *_columns(rows, name, *ends(name)), removal=removal)


def dot_panel(title: str, x_label: str, rows: Rows, shown: list):
    """Returns a panel with a line for each removal, `lmjax.plots.DotPanel`."""
    from lmjax import plots

    removals = list(group_rows(layer_masking_first(rows), "removal"))
    return plots.DotPanel(title, x_label, [*map(removal_title, removals)], shown, removals)


def _columns(rows: Rows, *names: str) -> list[list]:
    """Returns columns of rows as lists."""
    return [[row[name] for row in rows] for name in names]
