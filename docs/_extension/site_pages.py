"""What the site adds to pages as they are written: the API, help texts, links out of `docs/`."""

import importlib
import inspect
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import lmjax
from lmjax.cli.main import main

ROOT = Path(__file__).parents[2]
# What links lead to on the forge, and where it is on the site.
OUTSIDE = {
    "benchmarks/RESULTS.md": "/results/speed.md",
    "README.md": "/index.md",
    "CHANGELOG.md": "/changelog.md",
    **{
        f"notebooks/{path.name}": f"/notebooks/{path.name}"
        for path in ROOT.glob("notebooks/*.ipynb")
    },
}


def setup(app: Any) -> dict[str, bool]:
    """Joins Sphinx."""
    app.connect("builder-inited", _copy_notebooks)
    app.connect("source-read", _complete)
    app.connect("include-read", lambda app, path, parent, text: _complete(app, parent, text))
    app.connect("autodoc-process-docstring", _markdown_to_rst, priority=100)
    app.connect("autodoc-skip-member", _skip_fields)
    return {"parallel_read_safe": True}


def _copy_notebooks(app: Any) -> None:
    """Sphinx reads nothing that is not below `docs/`."""
    folder = Path(app.srcdir) / "notebooks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in ROOT.glob("notebooks/*.ipynb"):
        (folder / path.name).write_text(path.read_text().replace("](../docs/", "](../"))


def _complete(app: Any, page: str, text: list[str]) -> None:
    """Fills in what pages ask for by comments, and turns links out of `docs/` to the site."""
    source = re.sub(r"<!-- public names of (\S+) -->", lambda m: _names_of(m[1]), text[0])
    source = re.sub("<!-- help of all commands -->", lambda m: _commands(), source)
    for outside, inside in OUTSIDE.items():
        source = re.sub(rf"\]\((\.\./)*{re.escape(outside)}(?=[#)])", f"]({inside}", source)
    text[0] = source


def _names_of(module: str) -> str:
    """An entry for each public name of a module; of those that `lmjax` has too, a line."""
    lines = [f".. automodule:: {module}", "", ".. currentmodule:: " + module, ""]
    own = [name for name in public(module) if name not in _also_in_lmjax(module)]
    lines += [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in own), ""]
    for name in own:
        lines += [*_entry(module, name), ""]
    also = ", ".join(f":py:obj:`lmjax.{name}`" for name in _also_in_lmjax(module))
    if also:
        lines += [f"Also here, under the same names: {also}.", ""]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```"


def public(module: str) -> list[str]:
    """The public names of a module that are no modules, in the order of the alphabet."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or _defined_in(found)
    return sorted(
        (name for name in names if not inspect.ismodule(getattr(found, name))), key=str.lower
    )


def _defined_in(module: Any) -> Iterator[str]:
    for name, value in inspect.getmembers(module):
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if value.__module__ == module.__name__ or "masks.foreign" in value.__module__:
            yield name


def _also_in_lmjax(module: str) -> list[str]:
    if module == "lmjax":
        return []
    found = importlib.import_module(module)
    return [n for n in public(module) if getattr(lmjax, n, None) is getattr(found, n)]


def _entry(module: str, name: str) -> list[str]:
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value):
        return [f".. autoclass:: {name}", "   :members:"]
    return [f".. autofunction:: {name}" if callable(value) else f".. autodata:: {name}"]


def _commands(*command: str) -> str:
    """A section for a command and each of its subcommands: what it prints for `--help`."""
    printed = io.StringIO()
    os.environ["COLUMNS"] = "88"
    with redirect_stdout(printed), suppress(SystemExit):
        main([*command, "--help"])
    text = printed.getvalue().strip()
    title = "#" * (2 + len(command[1:])) + " " + " ".join(("lmjax", *command))
    below = re.search(r"\{([a-z,-]+)\}", text.partition("\n\n")[0])
    parts = [_commands(*command, name) for name in below[1].split(",")] if below else []
    return "\n\n".join([title, f"```text\n{text}\n```", *parts])


def _skip_fields(app: Any, what: str, name: str, value: Any, *_: Any) -> bool | None:
    """Fields stand under "Attributes" in the docstring of their class; their defaults say less."""
    own = getattr(inspect.unwrap(value), "__module__", "") if callable(value) else ""
    documented = isinstance(value, property | classmethod | staticmethod) or own.startswith("lmjax")
    return True if what == "class" and not documented else None


def _markdown_to_rst(
    app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Code that is indented below a colon stays code, and bars and stars mean nothing in text."""
    code = -1  # the indent of the line before a block of code, where we are in one
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent <= code:
            code = -1
        if code >= 0 or line.lstrip().startswith((">>>", "...")):
            continue
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"[|*]", r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = "".join(parts)
        below = lines[i + 2] if i + 2 < len(lines) and not lines[i + 1].strip() else ""
        if line.rstrip().endswith(":") and below.startswith(" " * (indent + 4)):
            lines[i] = lines[i].rstrip() + ":"
            code = indent
