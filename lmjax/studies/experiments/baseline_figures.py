"""Figures of the study of baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmjax.removals import registry as by_name
from lmjax.studies.figures import by_network, dots, lines_of_removals, split

MEASURES = {
    "spearman": "Spearman's correlation",
    "ssim": "structural similarity",
    "top": "overlap of top pixels",
}
_METRICS = {"morf": "MoRF", "lerf": "LeRF", "deletion": "deletion", "insertion": "insertion"}
_BETTER = {"morf": "lower", "lerf": "higher", "deletion": "lower", "insertion": "higher"}
_GENERATORS = {"rise": "RISE", "occlusion": "occlusion"}
_AGAINST = {"all": "against the map of all masks", "others": "against as many other masks"}


def figures(
    tables: dict[str, list[dict[str, Any]]], removals: Sequence[str], scorers: Sequence[str]
) -> dict[str, Any]:
    """Figures by name, for each network those whose tables are there."""
    shown = {}
    for network, found in by_network(tables).items():
        images = next(row["images"] for rows in found.values() for row in rows if "images" in row)
        about = f"{network}, {images} images"
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
    from lmjax import plots

    removals = list(map(by_name.title, split(rows, "removal")))
    by_generator = split(rows, "generator").items()
    panels = []
    for measure, label in MEASURES.items():
        shown = [dots(_GENERATORS[each], chosen, measure) for each, chosen in by_generator]
        panels.append(plots.DotPanel("", label, removals, shown))
    return plots.dots(panels, title=f"{about}\nmaps of different settings, by removal")


def _removals(rows: list[dict], removals: Sequence[str], about: str):
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
        for generator, chosen in split(rows, "generator").items()
    ]
    title = f"{about}\nmaps of different removals"
    return plots.matrices(cells, title=title, colour_label="mean over images and settings")


def _rankings(rows: list[dict], scorers: Sequence[str], about: str):
    from lmjax import plots

    cells = [
        _matrix(
            _METRICS[metric],
            scorers,
            {(row["scorer"], row["against"]): row["tau"] for row in chosen},
        )
        for metric, chosen in split(rows, "metric").items()
    ]
    title = f"{about}\nrankings of maps, by the removal that scores them: mean over images"
    label = "Kendall's tau"
    return plots.matrices([cells], title=title, colour_label=label)


def _matrix(title: str, names: Sequence[str], pairs: dict[tuple[str, str], float]):
    from lmjax import plots

    values = np.full((len(names), len(names)), np.nan)
    for (first, second), value in pairs.items():
        i, j = names.index(first), names.index(second)
        values[i, j] = values[j, i] = value
    shown = list(map(by_name.title, names))
    return plots.Matrix(title, shown, shown, values)


def _convergence(rows: list[dict], about: str):
    from lmjax import plots

    setting = rows[0]["setting"]
    chosen = split(split(rows, "setting")[setting], "against")
    cells = []
    for measure, label in MEASURES.items():
        cells.append([])
        for each in filter(chosen.get, _AGAINST):
            lines = lines_of_removals(chosen[each], "masks", measure)
            cells[-1].append(plots.Chart(_AGAINST[each], "masks", label, lines, doubling=True))
    return plots.charts(cells, title=f"{about}\nconvergence of RISE, {setting}")


def _scores(rows: list[dict], about: str):
    from lmjax import plots

    removals = list(map(by_name.title, split(rows, "removal")))
    panels = []
    for metric, chosen in split(rows, "metric").items():
        shown = [
            dots(f"scored under {by_name.title(scorer)}", of_scorer, "score")
            for scorer, of_scorer in split(chosen, "scorer").items()
        ]
        heading = f"{_METRICS[metric]} ({_BETTER[metric]} is better)"
        panels.append(plots.DotPanel(heading, "area under the curve", removals, shown))
    return plots.dots(panels, title=f"{about}\nscores of maps, by the removal that made them")
