"""Headings of tables and columns in reports."""

from collections.abc import Collection
from typing import Any

from lmjax.removals import registry
from lmjax.removals import title as removal_title
from lmjax.studies.about import ANY_ENDING, About

COLUMNS = {
    "against": "compared with",
    "alignment": "alignment with the object",
    "classes": "number of classes",
    "entropy": "entropy of predicted classes",
    "evaluated_under": "segments removed by",
    "fraction": "share of segments removed",
    "hidden": "share of pixels hidden",
    "iou": "IoU with the object",
    "k": "top segments removed",
    "label": "class",
    "margin": "margin (pixels)",
    "order": "order of removal",
    "removed": "segments removed",
    "segmenter": "segments by",
    "shown": "share of pixels shown",
    "spearman": "Spearman's correlation",
    "ssim": "SSIM",
    "unchanged": "unchanged predictions",
    "visible": "share of pixels visible",
}
TABLES = {
    "curves": "Step by step",
    "differences": "Differences between removals",
    "means": "Means over all steps",
    "network_differences": "Differences between networks",
}
_REMOVALS = {"against", "evaluated_under", "first", "removal", "scorer", "second"}
_ARROWS = {"higher": " ↑", "lower": " ↓"}


def column_title(name: str, about: About | None) -> str:
    """Returns the heading of a column, with an arrow where a direction is good."""
    own = {} if about is None else about.columns
    entry = _entry(name, own)
    title = "" if entry is None else own[entry]
    if entry is not None and entry != name:
        ending = name.removeprefix(entry.removesuffix(ANY_ENDING))
        title = title.replace("{}", removal_title(ending) if _is_removal(ending) else ending)
    title = title or COLUMNS.get(name) or name.replace("_", " ")
    return title[0].upper() + title[1:] + ("" if about is None else _arrow(name, about))


def _arrow(name: str, about: About) -> str:
    """An arrow where a direction is good."""
    arrows = {each: arrow for way, arrow in _ARROWS.items() for each in getattr(about, way)}
    entry = _entry(name, arrows)
    return "" if entry is None else arrows[entry]


def _entry(name: str, names: Collection[str]) -> str | None:
    """Returns a column's own name among some, or else the one whose ending stands for others."""
    if name in names:
        return name
    for each in names:
        start = each.removesuffix(ANY_ENDING)
        ending = name.removeprefix(start)
        if len(start) < len(each) and ending != name and (_is_removal(ending) or ending.isdigit()):
            return each
    return None


def table_title(name: str, about: About | None) -> str:
    """Returns the heading of a table."""
    own = {} if about is None else about.tables
    return own.get(name) or TABLES.get(name) or name.replace("_", " ").capitalize()


def shown(column: str, value: Any) -> Any:
    """Returns a value of a column as tables show it: removals by their titles."""
    if column in _REMOVALS and isinstance(value, str) and _is_removal(value):
        return removal_title(value)
    return value.replace("_", " ") if column == "order" and isinstance(value, str) else value


def _is_removal(name: str) -> bool:
    return name.partition("@")[0] in registry.REGISTRY
