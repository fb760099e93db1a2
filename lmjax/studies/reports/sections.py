"""The section of a run in a report, and the contents of the report."""

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from lmjax._utils.pages import text
from lmjax._utils.text import one_line, printable
from lmjax.data.source import Source
from lmjax.studies.about import About, about_of
from lmjax.studies.reports.examples import Missing, examples
from lmjax.studies.reports.settings import command, settings_table, written
from lmjax.studies.reports.tables import folded, table
from lmjax.studies.reports.words import table_title
from lmjax.studies.study import Study


class Run(NamedTuple):
    """What a report reads of a run.

    Attributes:
      out: its folder.
      manifest: its manifest, with `made_by`.
      rows: those that there are.
      errors: of images without rows.
      study: its settings.
    """

    out: Path
    manifest: dict[str, Any]
    rows: pa.Table
    errors: list[dict[str, Any]]
    study: Study


class Part(NamedTuple):
    """A part of a section, with a heading that the contents list.

    Attributes:
      title: its heading.
      body: in HTML.
    """

    title: str
    body: str


def section(run: Run, place: str, source: Source | None) -> tuple[str, str]:
    """Returns the entry of a run in the contents, and its section, both in HTML.

    Args:
      run: the run.
      place: what the addresses of its parts begin with.
      source: of the example images, where the caller has one.
    """
    from lmjax import plots

    tables = run.study.tables(run.rows)
    figures = {
        name: plots.as_html(figure, title=printable(name))
        for name, figure in run.study.figures(tables).items()
    }
    parts = [*_figures(about_of(run.study), figures, _examples(run, source)), *_tables(run, tables)]
    evaluated = len(run.rows.column("image").unique())
    settings = settings_table(run.manifest, run.study, evaluated, run.out)
    parts.append(Part("Settings and software", settings))
    if run.errors:
        errors = folded(table(run.errors), f"{len(run.errors)} images could not be evaluated")
        parts.append(Part("Errors", errors))
    title = text(run.study.title)
    lines = "".join(
        f'<li><a href="#{place}-{i}">{text(part.title)}</a></li>' for i, part in enumerate(parts)
    )
    entry = f'<li><a href="#{place}">{title}</a><ul>{lines}</ul></li>'
    bodies = "\n".join(
        f'<section aria-labelledby="{place}-{i}"><h2 id="{place}-{i}">{text(part.title)}</h2>\n'
        f"{part.body}</section>"
        for i, part in enumerate(parts)
    )
    return entry, f'<h1 id="{place}">{title}</h1>\n{_summary(run, evaluated)}\n{bodies}'


def failed_section(out: Path, place: str, error: Exception) -> tuple[str, str]:
    """Returns the entry and the section of a run that could not be reported, both in HTML."""
    entry = f'<li><a href="#{place}">{text(out)}</a>: could not be reported</li>'
    said = f"This run could not be reported: {described(error)}"
    return entry, f'<h1 id="{place}">{text(out)}</h1>\n<p class="card">{text(said)}</p>'


def described(error: Exception) -> str:
    """Returns an error in one line."""
    return f"{type(error).__name__}: {one_line(error)}"


def _summary(run: Run, evaluated: int) -> str:
    """Returns what was asked and how, and which direction is good."""
    about, study = about_of(run.study), run.study
    networks = ", ".join(each["name"] for each in run.manifest["identity"]["networks"])
    images = f"{evaluated} of {run.manifest['images']} images"
    if run.errors:
        images += f", {len(run.errors)} could not be evaluated"
    found = {"How": about.method if about else (type(study).__doc__ or "").split("\n")[0]}
    if about:
        found["What is good"] = about.reading
    found |= {"Images": images, "Networks": networks}
    lines = "\n".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in found.items())
    made = text(command(run.manifest, study, run.out))
    day = written(run.out)
    lines += f"\n<dt>Command</dt><dd><code>{made}</code></dd>\n<dt>Date</dt><dd>{text(day)}</dd>"
    lines += f"\n<dt>Version</dt><dd>lmjax {text(run.manifest['identity']['lmjax'])}</dd>"
    asked = f'<p class="asked">{text(about.question)}</p>\n' if about else ""
    return f'<div class="card">{asked}<dl>\n{lines}\n</dl></div>'


def _figures(about: About | None, figures: dict[str, str], shown: Part) -> list[Part]:
    """Returns the figure to look at first, examples, and the other figures."""
    if not figures:
        return [shown]
    first = next((n for n in figures if about and about.first and about.first in n), None)
    first = next(iter(figures)) if first is None else first
    parts = [Part("Look at this first", _figure(figures[first])), shown]
    others = [_figure(image) for name, image in figures.items() if name != first]
    if others:
        parts.append(Part("Other figures", f'<div class="figures">{"".join(others)}</div>'))
    return parts


def _figure(image: str) -> str:
    return f'<figure class="card">{image}</figure>'


def _examples(run: Run, source: Source | None) -> Part:
    failed = {error["image"] for error in run.errors}
    try:
        body = examples(run.manifest, run.study, failed, source)
    except Missing as missing:
        body = f'<p class="quiet">There are none here: {text(missing)}.</p>'
    return Part("Example images", body)


def _tables(run: Run, tables: dict[str, Any]) -> list[Part]:
    about = about_of(run.study)
    return [
        Part(table_title(name, about), table(rows, about)) for name, rows in tables.items() if rows
    ]
