"""Images that a table lists: `csv:FILE`."""

import csv
import os

from lmjax._utils.text import one_line
from lmjax.data.files.classes import number
from lmjax.data.files.examples import Files, Row
from lmjax.data.files.images import mask_rule

_COLUMNS = {
    "image": "image",
    "mask": "object_mask",
    "tight_mask": "tight_mask",
    "saliency": "saliency",
}


def from_csv(
    path: str | os.PathLike,
    *,
    classes: str | os.PathLike | None = None,
    background: int | str | None = None,
    at_least: int | str | None = None,
) -> Files:
    r"""Opens the images that a table lists, in its order.

    Example:
      >>> Path("pets.csv").write_text("image,label,mask\na.jpg,cat,a.png\nb.jpg,dog,\n")
      >>> source = lmjax.data.from_csv("pets.csv")

    Args:
      path: a .csv file whose first line names columns: `image`, and where known `label`, `mask`,
        `tight_mask` (the object without a soft edge), `saliency` and `id`; others are ignored.
        Names of files are relative to its folder. Unknown values are left empty.
      classes: a text file with the labels, one a line, in their order; by default WordNet ids have
        ImageNet's numbers, numbers their own, other names those of the alphabet
        (`lmjax.data.files.classes.number`).
      background: the value of masks outside the object, 0 by default; all others are on it.
      at_least: the least value on the object, instead of `background`
        (`lmjax.data.files.images.read_mask`).

    Returns:
      A source; ids are those of the table, or the names of images.

    Raises:
      ValueError: no column `image`, no row, a row without image, an id twice, a label that is not
        listed.
      OSError: the table cannot be read. Images that it lists are read later.
    """
    lines = read_lines(path, ("image",))
    if not lines:
        raise ValueError(f"{path} lists no image")
    labels = {line["label"] for _, line in lines if line.get("label")}
    numbers, class_names = number(labels, classes=classes)
    rows, line_of = [], {}
    for at, line in lines:
        files = {kind: line[column] for column, kind in _COLUMNS.items() if line.get(column)}
        if "image" not in files:
            raise ValueError(f"{path}, line {at}: no image")
        name = line.get("id") or files["image"]
        if name in line_of:
            raise ValueError(
                f"{path}, line {at}: {name} is the id of line {line_of[name]} already; give rows "
                "ids of their own in a column id"
            )
        line_of[name] = at
        rows.append(Row(name, files, numbers[line["label"]] if line.get("label") else None))
    folder = os.path.dirname(os.path.abspath(path))
    folders = dict.fromkeys(_COLUMNS.values(), folder)
    class_names = class_names if labels else None
    return Files("csv", tuple(rows), folders, class_names, mask_rule(background, at_least))


def _cells(path: str | os.PathLike, reader: csv.DictReader, line: dict) -> dict[str, str]:
    """Returns a line's values by column; raises ValueError where it has more cells than columns."""
    behind = line.pop(None, [])
    if any(map(str.strip, behind)):
        last = line[reader.fieldnames[-1]]  # pyright: ignore[reportOptionalSubscript]
        whole = f'"{", ".join((last, *behind))}"'
        raise ValueError(
            f"{path}, line {reader.line_num} has more cells than there are columns; quote texts "
            f"that have commas in them, such as {one_line(whole)}"
        )
    return {name: text.strip() for name, text in line.items() if name}


def read_lines(
    path: str | os.PathLike, columns: tuple[str, ...]
) -> list[tuple[int, dict[str, str]]]:
    """Reads a table; returns each line's number and its values by column.

    Args:
      path: a .csv file whose first line names columns.
      columns: columns that it must have.

    Raises:
      ValueError: no table, or one without these columns.
      OSError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True)
            reader.fieldnames = found = [name.strip() for name in reader.fieldnames or ()]
            missing = [name for name in columns if name not in found]
            if missing:
                raise ValueError(
                    f"{path} must have a column {missing[0]}; its columns are "
                    f"{one_line(', '.join(found))}"
                )
            twice = [name for name in found if name and found.count(name) > 1]
            if twice:
                raise ValueError(f"{path} has the column {one_line(twice[0])} more than once")
            return [(reader.line_num, _cells(path, reader, line)) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table in UTF-8: {error}") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from error
