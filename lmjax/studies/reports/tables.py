"""Tables of a report, in HTML."""

import math
from typing import Any

from lmjax._utils.pages import text
from lmjax.studies.about import About
from lmjax.studies.reports.words import column_title, shown
from lmjax.studies.statistics import ends, estimated_columns

_ROWS_AT_ONCE = 40  # longer tables are folded

Rows = list[dict[str, Any]]


def table(rows: Rows, about: About | None = None) -> str:
    """Returns rows as an HTML table, a long one behind a summary that shows it on a click."""
    found = [_with_intervals(row) for row in rows]
    alike = _alike(found)
    found = [{name: row[name] for name in row if name not in alike} for row in found]
    heads = "".join(_head(name, _first_known(found, name), about) for name in found[0])
    lines = "\n".join(
        f"<tr>{''.join(_cell(name, value) for name, value in row.items())}</tr>" for row in found
    )
    made = (
        f'<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>{lines}</tbody>\n'
        "</table></div>"
    )
    made = made if len(rows) <= _ROWS_AT_ONCE else folded(made, f"{len(rows)} rows")
    return _said_once(alike, about) + made


def folded(content: str, summary: str) -> str:
    """Hides a part of a page behind a summary, which shows it on a click."""
    return f"<details><summary>{text(summary)}</summary>\n{content}\n</details>"


def _alike(rows: Rows) -> dict[str, Any]:
    """Returns the columns, but estimates, that have one value in all of several rows."""
    first = rows[0]
    return {
        name: value
        for name, value in first.items()
        if len(rows) > 1
        and isinstance(value, str | int)
        and all(row.get(name) == value for row in rows)
    }


def _said_once(alike: dict[str, Any], about: About | None) -> str:
    """Returns a line on what all rows have in common."""
    if not alike:
        return ""
    said = [f"{column_title(name, about)}: {shown(name, x)}" for name, x in alike.items()]
    return f'<p class="same">In all rows: {text("; ".join(said))}</p>\n'


def _with_intervals(row: dict[str, Any]) -> dict[str, Any]:
    """Puts intervals into the cells of their estimates."""
    ends_of = {name: ends(name) for name in estimated_columns(row)}
    hidden = {end for both in ends_of.values() for end in both}
    return {
        name: (value, *(row[end] for end in ends_of[name])) if name in ends_of else value
        for name, value in row.items()
        if name not in hidden
    }


def _first_known(rows: Rows, name: str) -> Any:
    return next((row[name] for row in rows if row.get(name) is not None), None)


def _head(name: str, value: Any, about: About | None) -> str:
    number = ' class="number"' if _is_number(value) else ""
    return f'<th scope="col"{number}>{text(column_title(name, about))}</th>'


def _cell(column: str, value: Any) -> str:
    """Returns a value as a cell of an HTML table."""
    if isinstance(value, tuple):
        value, low, high = value
        interval = f' <span class="interval">[{low:.3f}, {high:.3f}]</span>'
        interval = "" if math.isnan(low) else interval  # as of a single image
        return f'<td class="number">{_written(value, ".3f")}{interval}</td>'
    if value is None:  # such as the rank of what is NaN
        return "<td></td>"
    if isinstance(value, float):
        return f'<td class="number">{_written(value, ".3g")}</td>'
    if _is_number(value):
        return f'<td class="number">{value}</td>'
    return f"<td>{text(shown(column, value))}</td>"


def _written(value: float, digits: str) -> str:
    """Returns a number as text, a dash where it is not known."""
    return "-" if math.isnan(value) else format(value, digits)


def _is_number(value: Any) -> bool:
    return isinstance(value, tuple | int | float) and not isinstance(value, bool)
