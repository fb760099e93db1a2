"""Figures of the study of baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmjax.masking import by_name

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
    for network, images in _networks(tables).items():
        found = {
            name: [row for row in table if row["network"] == network]
            for name, table in tables.items()
        }
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


def _networks(tables: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """Numbers of images by network."""
    rows = [row for table in tables.values() for row in table]
    return {row["network"]: row["images"] for row in rows if "images" in row}


def _settings(rows: list[dict], about: str):
    from lmjax import plots

    generators = dict.fromkeys(row["generator"] for row in rows)
    removals = dict.fromkeys(row["removal"] for row in rows)
    panels = []
    for measure, label in MEASURES.items():
        dots = [
            _dots(_GENERATORS[each], [r for r in rows if r["generator"] == each], measure)
            for each in generators
        ]
        panels.append(plots.DotPanel("", label, list(map(by_name.title, removals)), dots))
    return plots.dots(panels, title=f"{about}\nmaps of different settings, by removal")


def _removals(rows: list[dict], removals: Sequence[str], about: str):
    from lmjax import plots

    cells = [
        [
            _matrix(
                f"{_GENERATORS[generator]}\n{label}",
                removals,
                {
                    (row["removal"], row["against"]): row[measure]
                    for row in rows
                    if row["generator"] == generator
                },
            )
            for measure, label in MEASURES.items()
        ]
        for generator in dict.fromkeys(row["generator"] for row in rows)
    ]
    title = f"{about}\nmaps of different removals"
    return plots.matrices(cells, title=title, colour_label="mean over images and settings")


def _rankings(rows: list[dict], scorers: Sequence[str], about: str):
    from lmjax import plots

    cells = [
        _matrix(
            _METRICS[metric],
            scorers,
            {(r["scorer"], r["against"]): r["tau"] for r in rows if r["metric"] == metric},
        )
        for metric in dict.fromkeys(row["metric"] for row in rows)
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
    chosen = [row for row in rows if row["setting"] == setting]
    against = [each for each in _AGAINST if any(row["against"] == each for row in chosen)]
    cells = []
    for measure, label in MEASURES.items():
        cells.append([])
        for each in against:
            lines = []
            for removal in dict.fromkeys(row["removal"] for row in chosen):
                points = [r for r in chosen if (r["removal"], r["against"]) == (removal, each)]
                columns = ([row[name] for row in points] for name in ("masks", *_ends(measure)))
                lines.append(plots.Line(by_name.title(removal), *columns))
            cells[-1].append(plots.Chart(_AGAINST[each], "masks", label, lines, doubling=True))
    return plots.charts(cells, title=f"{about}\nconvergence of RISE, {setting}")


def _scores(rows: list[dict], about: str):
    from lmjax import plots

    removals = [by_name.title(each) for each in dict.fromkeys(row["removal"] for row in rows)]
    panels = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        chosen = [row for row in rows if row["metric"] == metric]
        dots = [
            _dots(
                f"scored under {by_name.title(scorer)}",
                [row for row in chosen if row["scorer"] == scorer],
                "score",
            )
            for scorer in dict.fromkeys(row["scorer"] for row in chosen)
        ]
        heading = f"{_METRICS[metric]} ({_BETTER[metric]} is better)"
        panels.append(plots.DotPanel(heading, "area under the curve", removals, dots))
    return plots.dots(panels, title=f"{about}\nscores of maps, by the removal that made them")


def _dots(label: str, rows: list[dict], name: str):
    from lmjax import plots

    return plots.Dots(label, *([row[each] for row in rows] for each in _ends(name)))


def _ends(name: str) -> tuple[str, ...]:
    return name, f"{name}_low", f"{name}_high"
