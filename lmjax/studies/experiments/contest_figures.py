"""Figures of the contest of removals: quality against cost, and what survives."""

from typing import Any

import numpy as np

from lmjax._utils.text import counted
from lmjax.removals import title as removal_title
from lmjax.studies.figures import (
    X_LABELS,
    Rows,
    by_network,
    chance,
    group_rows,
    layer_masking_first,
    line,
    lines_of_removals,
)

_QUALITIES = {
    "r_oms": ("what survives random removal", "R-OMS, mean over sizes (higher is better)"),
    "object_removed": ("object removed", "accuracy, mean over margins (lower is better)"),
    "alignment": ("LIME", "alignment with the object (higher is better)"),
}
_COST = "milliseconds a variant"


def draw(tables: dict[str, Rows]) -> dict[str, Any]:
    """Draws for each network quality against cost, where it was measured, and curves."""
    from lmjax import plots

    shown = {}
    for network, found in by_network(tables).items():
        removals = layer_masking_first(found["removals"])
        if "milliseconds" in removals[0]:
            by_chance = {"object_removed": chance(found["shape"]) if "shape" in found else None}
            grid = [
                [
                    _against_cost(removals, name, by_chance.get(name))
                    for name in _QUALITIES
                    if np.isfinite([row.get(name, np.nan) for row in removals]).any()
                ]
            ]
            title = f"{network}: quality against cost, {found['costs'][0]['device']}"
            shown[f"{network} cost"] = plots.charts(grid, title=title)
        if "curves" in found:
            rows = found["curves"]
            title = f"{network}, {counted(rows[0]['images'], 'image')}: segments removed at random"
            shown[f"{network} survival"] = plots.charts([_survival(rows)], title=title)
    return shown


def _against_cost(rows: Rows, name: str, reference: tuple[str, float] | None):
    """Makes a chart with a point for each removal."""
    from lmjax import plots

    title, y_label = _QUALITIES[name]
    points = [
        line(removal_title(row["removal"]), [row], "milliseconds", name, removal=row["removal"])
        for row in rows
    ]
    return plots.Chart(title, _COST, y_label, points, reference=reference, logarithmic=True)


def _survival(rows: Rows) -> list:
    """Makes a chart for each number of segments, with a line for each removal."""
    from lmjax import plots

    return [
        plots.Chart(
            f"about {number} segments",
            X_LABELS["fraction"],
            "probability of the whole image's class",
            lines_of_removals(chosen, "fraction", "probability"),
        )
        for number, chosen in group_rows(rows, "n_segments").items()
    ]
