"""Files of a study's results: rows, tables and figures in its folder, and reports in HTML."""

import html
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmjax._utils.atomic import atomic_write
from lmjax._utils.checks import check_choices
from lmjax._utils.outputs import check_output
from lmjax._utils.renamed import renamed
from lmjax._utils.run_folder import MANIFEST, naming_damaged
from lmjax._utils.text import file_stems, printable
from lmjax.studies import registry, seeds
from lmjax.studies.runner import open_run
from lmjax.studies.settings import from_settings
from lmjax.studies.statistics import ends, estimated_columns, write_csv
from lmjax.studies.study import Study

_ROWS_AT_ONCE = 40  # longer tables are folded
_OLD_ENGINE = "dense"  # of shards that record none: there was no other in studies
_GENERATOR = '<meta name="generator" content="lmjax study report">'
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 13px; margin: .6em 0 1.4em }
th, td { padding: .15em .7em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
img { max-width: 100% }
code { overflow-wrap: anywhere }
"""


@renamed(out="output")
def write(
    study: Study, rows: pa.Table, output: str | os.PathLike, *, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Writes the rows (`rows.parquet`), each table (`.csv`) and each figure to a folder.

    Args:
      study: that the rows are of.
      rows: as `run` returns them.
      output: the folder; must exist.
      formats: of figures, one or more of "png", "pdf" and "svg".

    Returns:
      The files.

    Raises:
      ValueError: another format, or none.
    """
    formats, out = check_formats(formats), Path(output)
    path = out / "rows.parquet"
    with atomic_write(path) as temporary:
        pq.write_table(rows, temporary)
    tables = study.tables(rows)
    return [path, *_write(tables, study.figures(tables), out, formats)]


@renamed(out="output")
def write_seeds(
    output: str | os.PathLike,
    *,
    kinds: Mapping[str, Sequence[str]],
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Writes tables and figures over seeds of training (`seeds_...`) beside those of a study.

    Example:
      >>> kinds = {"plain": ["plain-0", "plain-1"], "grey": ["grey-0", "grey-1"]}
      >>> lmjax.studies.write_seeds("runs/shape", kinds=kinds)

    Args:
      output: folder of a run.
      kinds: kinds of training by name, and for each the names of its networks in the run, one for
        each seed. Kinds are compared seed by seed, in this order: give networks that share initial
        weights or images the same place.
      formats: of figures, as in `write`.

    Returns:
      The files.

    Raises:
      ValueError: a folder that is none of a study, or has no rows yet; a kind with fewer than two
        networks, or one that is not in the run; another format.
    """
    formats = check_formats(formats)
    manifest, rows, _, study = _open(Path(output))
    seeds.check_kinds(kinds, [each["name"] for each in manifest["identity"]["networks"]])
    tables = seeds.over_seeds(study.tables(rows), kinds)
    return _write(tables, seeds.figures(tables), Path(output), formats, prefix="seeds_")


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Returns formats of figures, each of which is known and there once."""
    from lmjax import plots

    return tuple(check_choices("formats", formats, plots.FORMATS))


def _write(
    tables: dict[str, Any],
    figures: dict[str, Any],
    out: Path,
    formats: Sequence[str],
    *,
    prefix: str = "",
) -> list[Path]:
    """Writes tables and figures; returns the files."""
    from lmjax import plots

    files = []
    stems = file_stems(tables)
    for name, table in tables.items():
        files.append(out / f"{prefix}{stems[name]}.csv")
        write_csv(files[-1], table)
    stems = file_stems(figures)
    for (name, figure), format in itertools.product(figures.items(), formats):
        files.append(out / f"{prefix}{stems[name]}.{format}")
        with atomic_write(files[-1]) as temporary:
            plots.save(figure, temporary, format=format)
    return files


@renamed(outs="runs")
def report(runs: Sequence[str | os.PathLike], output: str | os.PathLike) -> Path:
    """Writes one HTML file with the settings, figures and tables of some runs.

    The file needs no other. Of an unfinished run it shows the rows that there are.

    Args:
      runs: folders of runs, one or more.
      output: the file to write, `.html`; a report that is there is replaced.

    Returns:
      The file.

    Raises:
      ValueError: no folder; a folder that is none of a study, or has no rows yet; an output of
        another suffix, or that is there and no report.
      OSError: the output cannot be written.
    """
    if not runs:
        raise ValueError("runs must be one or more folders of studies, got none")
    output = check_output(output, suffixes=(".html", ".htm"), ours=_is_report, what="a report")
    sections = [_run(Path(each)) for each in runs]
    title = ", ".join(dict.fromkeys(title for title, _ in sections))
    body = "\n".join(section for _, section in sections)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{_GENERATOR}'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    with atomic_write(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return output


def _is_report(path: Path) -> bool:
    """Returns whether a file is a report."""
    with open(path, "rb") as file:
        return _GENERATOR.encode() in file.read(1000)


def _open(out: Path) -> tuple[dict[str, Any], pa.Table, list[dict], Study]:
    """Reads the manifest, rows and errors of a run, and makes its study again."""
    manifest, rows, errors = open_run(out)
    name = manifest["identity"]["study"]
    if name not in registry.names():
        raise ValueError(
            f"{out} is a run of {name}, a study that is not known here; import the module that "
            "registers it (lmjax.studies.register)"
        )
    if rows.num_rows == 0:
        raise ValueError(f"{out} has no rows yet")
    with naming_damaged(out / MANIFEST, "or was made by another version; run the study again"):
        study = from_settings(registry.get(name), manifest["settings"])
    return manifest, rows, errors, study


def _run(out: Path) -> tuple[str, str]:
    """Returns the title and the HTML section of a run."""
    from lmjax import plots

    manifest, rows, errors, study = _open(out)
    tables = study.tables(rows)
    parts = [f"<h1>{_text(study.title)}</h1>", _settings(manifest, rows, errors, out)]
    for name, figure in study.figures(tables).items():
        parts.append(f"<p>{plots.as_html(figure, title=printable(name))}</p>")
    for name, table in tables.items():
        parts.append(f"<h2>{_text(name.replace('_', ' ').capitalize())}</h2>")
        parts.append(_folded(_table(table), len(table)))
    return study.title, "\n".join(parts)


def _settings(manifest: dict[str, Any], rows: pa.Table, errors: list[dict], out: Path) -> str:
    """Returns the HTML table of a run's settings, and its errors."""
    identity = manifest["identity"]
    evaluated = len(rows.column("image").unique())
    found = {
        "images": f"{evaluated} of {manifest['images']}"
        + (f", {len(errors)} could not be evaluated" if errors else ""),
        "source": identity["source"],
        **{
            f"network {each['name']}": f"weights sha256 {each['weights_sha256']}"
            for each in identity["networks"]
        },
        **manifest["settings"],
        "lmjax": identity["lmjax"],
        **{
            f"made by{f' ({i})' if i else ''}": ", ".join(
                [
                    each["device"],
                    f"engine {each.get('engine', _OLD_ENGINE)}",
                    *(f"{k} {v}" for k, v in each["versions"].items()),
                ]
            )
            for i, each in enumerate(manifest["made_by"])
        },
        "folder": str(out),
    }
    lines = "\n".join(
        f"<tr><th>{_text(name)}</th><td><code>{_text(_setting(value))}</code></td></tr>"
        for name, value in found.items()
    )
    section = f"<table>\n{lines}\n</table>"
    return section + _folded(_table(errors), None, "Errors") if errors else section


def _setting(value: Any) -> str:
    """Returns a setting as text."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)


def _table(rows: list[dict[str, Any]]) -> str:
    """Returns rows as an HTML table."""
    heads = "".join(f"<th>{_text(name)}</th>" for name in _shown(rows[0]))
    lines = "\n".join(
        f"<tr>{''.join(_cell(value) for value in _shown(row).values())}</tr>" for row in rows
    )
    return f"<table>\n<tr>{heads}</tr>\n{lines}\n</table>"


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Puts intervals into the cells of their estimates."""
    ends_of = {name: ends(name) for name in estimated_columns(row)}
    hidden = {end for both in ends_of.values() for end in both}
    return {
        name: (value, *(row[end] for end in ends_of[name])) if name in ends_of else value
        for name, value in row.items()
        if name not in hidden
    }


def _cell(value: Any) -> str:
    """Returns a value as a cell of an HTML table."""
    if isinstance(value, tuple):
        value, low, high = value
        return f'<td class="number">{value:.3f} [{low:.3f}, {high:.3f}]</td>'
    if isinstance(value, float):
        return f'<td class="number">{value:.3g}</td>'
    number = isinstance(value, int) and not isinstance(value, bool)
    return f'<td class="number">{value}</td>' if number else f"<td>{_text(value)}</td>"


def _folded(table: str, rows: int | None, summary: str = "") -> str:
    """Hides a long table behind a summary, which shows it on a click."""
    if rows is not None and rows <= _ROWS_AT_ONCE:
        return table
    return f"<details><summary>{summary or f'{rows} rows'}</summary>\n{table}\n</details>"


def _text(value: Any) -> str:
    """Returns a value as text in HTML, never as markup."""
    return html.escape(printable(value))
