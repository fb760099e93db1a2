"""Files of a study's results: rows, tables and figures in its folder, and reports in HTML."""

import itertools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lmjax._utils.atomic import atomic_write
from lmjax._utils.checks import check_choices
from lmjax._utils.identity import source_version
from lmjax._utils.outputs import check_output
from lmjax._utils.pages import document, is_by, resource
from lmjax._utils.renamed import renamed
from lmjax._utils.run_folder import MANIFEST, naming_damaged
from lmjax._utils.text import file_stems
from lmjax.data import Source, open_source
from lmjax.studies import registry, seeds
from lmjax.studies.reports.sections import Run, described, failed_section, section
from lmjax.studies.runner import open_run
from lmjax.studies.settings import from_settings
from lmjax.studies.statistics import write_csv
from lmjax.studies.study import Study

_GENERATOR = "lmjax study report"
_HEAD = """<header><p class="quiet">A report by lmjax. Brackets are 95% bootstrap intervals over
images; a single image has none. ↑ higher is better, ↓ lower is better.</p></header>"""


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
      ValueError: a folder that holds no study, or no rows yet; a kind with fewer than two
        networks, or one that is not in the run; another format.
    """
    formats = check_formats(formats)
    run = _open(Path(output))
    seeds.check_kinds(kinds, [each["name"] for each in run.manifest["identity"]["networks"]])
    tables = seeds.over_seeds(run.study.tables(run.rows), kinds)
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
def report(
    runs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    source: Source | str | None = None,
) -> Path:
    """Writes one HTML file about some runs: what was asked and how, images, figures and tables.

    The file needs no other. Of an unfinished run it shows the rows that there are. Of several runs,
    one that cannot be reported costs no other: the report says why, and so does a warning. The same
    runs give the same file.

    Args:
      runs: folders of runs, one or more.
      output: the file to write, `.html`; a report that is there is replaced.
      source: of the runs' images, from which three are shown under each removal; as in `run`. None
        takes what the runs' manifests tell; where they do not, the report says so.

    Returns:
      The file.

    Raises:
      ValueError: no folder; only folders that hold no study, or no rows yet; an output of
        another suffix, or that is there and no report; a source that is of none of the runs.
      OSError: the output cannot be written.
    """
    path, failures = report_each(runs, output, source=source)
    for out, error in failures:
        warnings.warn(f"{out} could not be reported: {described(error)}", stacklevel=3)
    return path


def report_each(
    runs: Sequence[str | os.PathLike], output: str | os.PathLike, *, source: Source | str | None
) -> tuple[Path, list[tuple[Path, Exception]]]:
    """Writes what `report` does; returns the file, and the folders that failed with their errors.

    Raises:
      Exception: that of the first folder, where all have failed; else as `report`.
    """
    if not runs:
        raise ValueError("runs must be one or more folders of studies, got none")
    output = check_output(
        output,
        suffixes=(".html", ".htm"),
        ours=lambda path: is_by(path, _GENERATOR),
        what="a report",
    )
    folders = [*map(Path, runs)]
    found = [_tried(_open, out) for out in folders]
    good = [run for run in found if isinstance(run, Run)]
    opened = _source(source, good) if good else None
    made = [_tried(section, run, f"run{i}", opened) for i, run in enumerate(found)]
    failures = [(out, x) for out, x in zip(folders, made) if isinstance(x, Exception)]
    if len(failures) == len(folders):
        raise failures[0][1]
    entries, sections = zip(
        *(
            failed_section(out, f"run{i}", x) if isinstance(x, Exception) else x
            for i, (out, x) in enumerate(zip(folders, made))
        )
    )
    title = ", ".join(dict.fromkeys(run.study.title for run in good))
    contents = f"<h2>Contents</h2><ul>{''.join(entries)}</ul>"
    contents = f'<nav class="card" aria-label="Contents">{contents}</nav>'
    page = document(
        title=title,
        body="\n".join([_HEAD, contents, *sections]),
        generator=_GENERATOR,
        style=resource("lmjax.studies.reports", "report.css"),
    )
    with atomic_write(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return output, failures


def _tried(function: Callable[..., Any], run: Any, *args: Any) -> Any:
    """Returns what a function makes of a run, or the error of this step or an earlier one."""
    if isinstance(run, Exception):
        return run
    try:
        return function(run, *args)
    except Exception as error:  # a study may be the user's code, which may raise anything
        return error


def _source(source: Source | str | None, runs: Sequence[Run]) -> Source | None:
    """Opens a source; raises ValueError where no run is of it."""
    if isinstance(source, str):
        source = open_source(source, length=max(run.manifest["images"] for run in runs))
    versions = [run.manifest["identity"]["source"] for run in runs]
    if source is not None and source_version(source) not in versions:
        raise ValueError(
            f"source is {source_version(source)}, and the runs are of {', '.join({*versions})}; "
            "give the source of the runs"
        )
    return source


def _open(out: Path) -> Run:
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
    return Run(out, manifest, rows, errors, study)
