"""Files of an explanation: a figure, its arrays and a record, and a page where it is asked for."""

import io
import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmjax._utils.atomic import write_together
from lmjax._utils.outputs import check_length, check_no_folder, check_place, check_writable
from lmjax.explanation.defaults import PHOTOGRAPH
from lmjax.explanation.page import SUFFIXES as PAGE_SUFFIXES
from lmjax.explanation.page import check_free, is_page
from lmjax.explanation.render import arrays, record

if TYPE_CHECKING:
    from lmjax.explanation.result import Explanation

FORMATS = (".png", ".jpg", ".pdf", ".svg")
# Bytes of a file's name without suffix, of the 255 that most file systems allow: a number may
# follow.
_LONGEST = 240
_RECORDED = {"settings", "weights_sha256", "results", "versions"}
Files = tuple[Path, ...]
"""A figure, its arrays and a record, and a page where there is one; or none of them."""


def check_output(
    output: str | os.PathLike, image: str | os.PathLike | None = None, *, page: bool = False
) -> Files:
    """Returns the files to write (figure, arrays, record), once they are known to be writable.

    Args:
      output: the figure.
      image: file that is explained, if it is one: it is not overwritten.
      page: whether there is to be a page as well.

    Raises:
      ValueError: another suffix, the image itself, or files that are there and of something else
        than an explanation.
      OSError: a folder that does not exist or cannot be written, or a name that is too long.
    """
    path = check_place(output, FORMATS)
    files = _beside(path, page)
    for file in files:
        check_no_folder(file)
    if image is not None and path.exists() and Path(image).exists() and path.samefile(image):
        raise ValueError(f"output {path} is the image itself; give another name")
    _check_ours(files)
    check_writable(path, path.parent)
    return files


def check_outputs(
    output: str | os.PathLike, images: Sequence[Any], *, page: bool = False
) -> list[Files]:
    """Returns the files to write for each of several images, named after it.

    Args:
      output: a folder, which is made where there is none: `cat.jpg` gives `cat.png` in it; or a
        figure, whose name goes before that of the image: with `output="run.pdf"`, `run-cat.pdf`.
      images: as in `lmjax.explain`. Those of one name get numbers, as in `cat-2.png`; names that
        are too long for the suffixes are cut.
      page: whether each is to have a page as well.

    Raises:
      ValueError: another suffix, or a file that would replace one of the images, or a file of
        something else than an explanation.
      OSError: a folder that cannot be made or written, or a name that is too long.
    """
    path = Path(output)
    if path.suffix.lower() in FORMATS and not path.is_dir():
        folder, before, suffix = path.parent, f"{path.stem}-", path.suffix
    elif path.suffix and not path.is_dir():
        raise ValueError(
            f"output of several images must be a folder, or end in {', '.join(FORMATS)}; got {path}"
        )
    else:
        folder, before, suffix = path, "", FORMATS[0]
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"output folder {folder} is a file; give another name")
    if not folder.is_dir() and not folder.parent.is_dir():
        raise FileNotFoundError(f"output folder {folder.parent} does not exist; create it first")
    there = folder if folder.is_dir() else folder.parent
    check_writable(path, there)
    names = _names(images, _LONGEST - len(os.fsencode(before)))
    files = [_beside(folder / f"{before}{name}{suffix}", page) for name in names]
    photographs = {Path(each).resolve() for each in images if _is_file(each)}
    replaced = [file for each in files for file in each if file.resolve() in photographs]
    if replaced:
        raise ValueError(f"output {replaced[0]} is one of the images; give another folder")
    for each in files:
        for file in each:
            check_length(there / file.name)
            check_no_folder(file)
        _check_ours(each)
    return files


def _is_file(image: Any) -> bool:
    return isinstance(image, str | os.PathLike) and os.path.isfile(image)


def _names(images: Sequence[Any], longest: int) -> list[str]:
    """Returns a file's name for each image, without suffix, none twice.

    Args:
      images: as in `lmjax.explain`.
      longest: bytes of a name, but for a number at its end.
    """
    names, taken = [], set()
    for image in images:
        name = _cut(_name(image), longest)
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        # Some file systems do not tell capital letters from small ones.
        free = (n for n in itertools.chain([name], numbered) if n.lower() not in taken)
        name = next(free)
        taken.add(name.lower())
        names.append(name)
    return names


def _name(image: Any) -> str:
    if not isinstance(image, str | os.PathLike):
        return "array"
    if isinstance(image, str) and image.startswith(PHOTOGRAPH):
        image = image.removeprefix(PHOTOGRAPH)
    return Path(image).stem.replace(":", "-") or "image"


def _cut(name: str, longest: int) -> str:
    """Returns as many characters of a name as fit, one at least."""
    while len(os.fsencode(name)) > longest and len(name) > 1:
        name = name[:-1]
    return name


def _beside(path: Path, page: bool) -> Files:
    suffixes = (".npz", ".json", *([PAGE_SUFFIXES[0]] if page else []))
    return (path, *map(path.with_suffix, suffixes))


def _check_ours(files: Files) -> None:
    """Raises ValueError where files are there that are not those of an explanation."""
    there = [file for file in files[:3] if file.exists()]
    if there and not _is_record(files[2]):
        raise ValueError(
            f"output {there[0]} exists and is not of an explanation (no record of one is in "
            f"{files[2].name} beside it); it was left as it is. Give another name, or move it away"
        )
    for path in files[3:]:
        check_free(path)


def _is_record(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= _RECORDED


def write(explanation: "Explanation", files: Files) -> None:
    """Writes figure, arrays and record, all three or none."""
    from lmjax import plots

    figure, contents = io.BytesIO(), io.BytesIO()
    plots.save(explanation.figure(), figure, format=files[0].suffix[1:].lower())
    np.savez_compressed(contents, **arrays(explanation))  # pyright: ignore[reportArgumentType]
    text = json.dumps(_without_nan(record(explanation)), indent=2, default=str) + "\n"
    files[0].parent.mkdir(exist_ok=True)
    contents = figure.getvalue(), contents.getvalue(), text.encode()
    write_together(dict(zip(files, contents)))


def remove_page(figure: Path) -> None:
    """Removes the page that an earlier explanation left beside a figure, which would mislead."""
    page = figure.with_suffix(PAGE_SUFFIXES[0])
    if page.is_file() and is_page(page):
        page.unlink()


def _without_nan(value: Any) -> Any:
    """Returns settings and results with None for NaN, which is no JSON."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
