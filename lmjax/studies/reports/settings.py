"""Settings, software, date and command of a run, for its report."""

import dataclasses
import datetime
import shlex
from pathlib import Path
from typing import Any

from lmjax._utils.pages import text
from lmjax.studies.study import Study

_OLD_ENGINE = "dense"  # of shards that record none: there was no other in studies
_NO_SOURCE = "digit_scenes/test/0/1"  # the source of commands that name none


def settings_table(manifest: dict[str, Any], study: Study, evaluated: int, out: Path) -> str:
    """Returns the HTML table of what the rows depend on, and of what made them.

    Args:
      manifest: of the run.
      study: its settings.
      evaluated: how many images have rows.
      out: folder of the run.
    """
    identity = manifest["identity"]
    found = {
        "command": command(manifest, study, out),
        "rows written": written(out),
        "images": f"{evaluated} of {manifest['images']}",
        "source": manifest.get("source") or identity["source"],
        **{
            f"network {each['name']}": f"weights sha256 {each['weights_sha256']}"
            for each in identity["networks"]
        },
        **manifest["settings"],
        "lmjax": identity["lmjax"],
        **{f"made by{f' ({i})' if i else ''}": _made(x) for i, x in enumerate(manifest["made_by"])},
        "folder": str(out),
    }
    lines = "\n".join(
        f'<tr><th scope="row">{text(name)}</th><td><code>{text(_said(value))}</code></td></tr>'
        for name, value in found.items()
    )
    return f'<div class="scroll"><table>\n{lines}\n</table></div>'


def command(manifest: dict[str, Any], study: Study, out: Path) -> str:
    """Returns the command that makes the rows, as far as the manifest tells.

    Weights in files are known by their names only, and sources that were not given as text by their
    versions.
    """
    identity = manifest["identity"]
    words = ["lmjax", "study", study.name]
    for field in dataclasses.fields(study):
        value = getattr(study, field.name)
        if value != field.default:
            words += _option(field.name, value)
    networks = [each["name"] for each in identity["networks"]]
    words += ["--models", *networks] if networks != ["resnet18_digits"] else []
    if (given := manifest.get("source")) or identity["source"] != _NO_SOURCE:
        words += ["--source", given or identity["source"]]
    words += ["--images", str(manifest["images"]), "--output", str(out)]
    return shlex.join(words)


def written(out: Path) -> str:
    """Returns the day on which the last rows were written, in UTC; empty where it is not known."""
    times = [path.stat().st_mtime for path in out.glob("rows-*/*.parquet")]
    if not times:
        return ""
    return datetime.datetime.fromtimestamp(max(times), datetime.UTC).strftime("%Y-%m-%d")


def _option(name: str, value: Any) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{'' if value else 'no-'}{option}"]
    values = value if isinstance(value, tuple) else [value]
    return [f"--{option}", *map(str, values)]


def _made(by: dict[str, Any]) -> str:
    engine = f"engine {by.get('engine', _OLD_ENGINE)}"
    return ", ".join([by["device"], engine, *(f"{k} {v}" for k, v in by["versions"].items())])


def _said(value: Any) -> str:
    """Returns a setting as text."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
