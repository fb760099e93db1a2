"""Figures of the study of baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmjax._utils.text import counted
from lmjax.removals import title as removal_title
from lmjax.studies.figures import (
    by_network,
    dot_panel,
    dots,
    group_rows,
    lines_of_removals,
    note_of_shares,
)

MEASURES = {
    "spearman": "Spearman's correlation",
    "ssim": "structural similarity",
    "top": "overlap of top pixels",
}
_METRICS = {"morf": "MoRF", "lerf": "LeRF", "deletion": "deletion", "insertion": "insertion"}
_BETTER = {"morf": "lower", "lerf": "higher", "deletion": "lower", "insertion": "higher"}
_GENERATORS = {"rise": "RISE", "occlusion": "occlusion"}
_AGAINST = {"all": "against the heatmap of all masks", "others": "against as many other masks"}


def figures(
    tables: dict[str, list[dict[str, Any]]], removals: Sequence[str], scorers: Sequence[str]
) -> dict[str, Any]:
    """Draws figures by name, for each network those whose tables exist."""
    shown = {}
    for network, found in by_network(tables).items():
        images = next(row["images"] for rows in found.values() for row in rows if "images" in row)
        about = f"{network}, {counted(images, 'image')}" + note_of_shares(found.get("shares", []))
        if "settings" in found:
            shown[f"{network} settings"] = _settings(found["settings"], about)
        if "removal_pairs" in found:
            shown[f"{network} removals"] = _removals(found["removal_pairs"], removals, about)
        if "convergence" in found:
            shown[f"{network} convergence"] = _convergence(found["convergence"], about)
        if "ranking_pairs" in found:
            shown[f"{network} rankings"] = _rankings(found["ranking_pairs"], scorers, about)
        if "scores" in found:
            shown[f"{network} scores"] = _scores(found["scores"], about)
    return shown


def _settings(rows: list[dict], about: str):
    """Draws how similar heatmaps of two settings are, by removal."""
    from lmjax import plots

    by_generator = group_rows(rows, "generator").items()
    panels = []
    for measure, label in MEASURES.items():
        shown = [dots(_GENERATORS[each], chosen, measure) for each, chosen in by_generator]
        panels.append(dot_panel("", label, rows, shown))
    return plots.dots(panels, title=f"{about}\nheatmaps of different settings, by removal")


def _removals(rows: list[dict], removals: Sequence[str], about: str):
    """Draws how similar heatmaps of two removals are."""
    from lmjax import plots

    cells = [
        [
            _matrix(
                f"{_GENERATORS[generator]}\n{label}",
                removals,
                {(row["removal"], row["against"]): row[measure] for row in chosen},
            )
            for measure, label in MEASURES.items()
        ]
        for generator, chosen in group_rows(rows, "generator").items()
    ]
    title = f"{about}\nheatmaps of different removals"
    return plots.matrices(cells, title=title, colour_label="mean over images and settings")


def _rankings(rows: list[dict], scorers: Sequence[str], about: str):
    """Draws how similar rankings by two scorers are."""
    from lmjax import plots

    cells = [
        _matrix(
            _METRICS[metric],
            scorers,
            {(row["scorer"], row["against"]): row["tau"] for row in chosen},
        )
        for metric, chosen in group_rows(rows, "metric").items()
    ]
    title = f"{about}\nrankings of heatmaps, by the removal that scores them: mean over images"
    label = "Kendall's tau"
    return plots.matrices([cells], title=title, colour_label=label)


def _matrix(title: str, names: Sequence[str], pairs: dict[tuple[str, str], float]):
    """Makes a symmetric matrix of removals from values of pairs."""
    from lmjax import plots

    names = sorted(names, key=lambda name: not plots.is_emphasised(name))
    values = np.full((len(names), len(names)), np.nan)
    for (first, second), value in pairs.items():
        i, j = names.index(first), names.index(second)
        values[i, j] = values[j, i] = value
    shown = list(map(removal_title, names))
    return plots.Matrix(title, shown, shown, values.tolist())


def _convergence(rows: list[dict], about: str):
    """Draws how similar heatmaps become as masks are added."""
    from lmjax import plots

    setting = rows[0]["setting"]
    chosen = group_rows(group_rows(rows, "setting")[setting], "against")
    cells = []
    for measure, label in MEASURES.items():
        cells.append([])
        for each in filter(chosen.get, _AGAINST):
            lines = lines_of_removals(chosen[each], "masks", measure)
            cells[-1].append(plots.Chart(_AGAINST[each], "masks", label, lines, doubling=True))
    return plots.charts(cells, title=f"{about}\nconvergence of RISE, {setting}")


def _scores(rows: list[dict], about: str):
    """Draws scores of heatmaps by the removal that made them, for each scorer."""
    from lmjax import plots

    panels = []
    for metric, chosen in group_rows(rows, "metric").items():
        shown = [
            dots(f"scored under {removal_title(scorer)}", of_scorer, "score", removal=scorer)
            for scorer, of_scorer in group_rows(chosen, "scorer").items()
        ]
        heading = f"{_METRICS[metric]}\n{_BETTER[metric]} is better"
        panels.append(dot_panel(heading, "area under the curve", chosen, shown))
    return plots.dots(panels, title=f"{about}\nscores of heatmaps, by the removal that made them")
