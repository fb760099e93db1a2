"""Numbers for classes that files and folders know by name."""

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from lmjax._utils.text import read_text
from lmjax.data.imagenet import synsets

_NUMBER = re.compile(r"-?\d+(\.\d*)?", re.ASCII)


class Classes(NamedTuple):
    """Classes with their numbers and names.

    Attributes:
      numbers: by name, as files and folders write it.
      names: in the order of numbers, or None where the names were numbers.
    """

    numbers: dict[str, int]
    names: tuple[str, ...] | None


def number(names: Iterable[str], *, classes: str | os.PathLike | None = None) -> Classes:
    """Numbers classes by the first of these rules that fits.

    1. `classes` lists them: the number is the line, from 0.
    2. All are WordNet ids of ImageNet's 1000 classes (n01440764): the numbers of its networks, even
       where only a few of the classes are present.
    3. All are numbers: themselves. (7.0 counts as 7: tables with gaps are often written so.)
    4. Their alphabetical order.

    Args:
      names: of classes, in any order.
      classes: a text file with a name in each line.

    Raises:
      ValueError: a name that `classes` does not list, or that it lists twice; other names among
        ImageNet's WordNet ids or among numbers, which would renumber them; numbers that are
        negative or not whole.
      OSError: `classes` cannot be read.
    """
    names = sorted(set(names))
    if classes is not None:
        return _listed(names, classes)
    ids = synsets.synsets()
    if names and set(names) <= set(ids):
        return Classes({name: i for i, name in enumerate(ids)}, ids)
    _check_mixture(names, ids)
    others = [name for name in names if not _NUMBER.fullmatch(name)]
    if not others:
        return Classes({name: _whole(name) for name in names}, None)
    if len(others) < len(names):
        shown = next(name for name in names if name not in others)
        raise ValueError(
            f"class {others[0]!r} is among classes that are numbers, such as {shown}; take it "
            "away, leave labels that are not known empty, or list all classes in the order of "
            "their numbers: classes=FILE"
        )
    return Classes({name: i for i, name in enumerate(names)}, tuple(names))


def _whole(name: str) -> int:
    whole, _, rest = name.partition(".")
    if whole.startswith("-") or rest.strip("0"):
        raise ValueError(
            f"class {name} must be a whole number from 0, as the others are numbers; leave labels "
            "that are not known empty, or list all classes: classes=FILE"
        )
    return int(whole)


def _check_mixture(names: list[str], ids: tuple[str, ...]) -> None:
    """Raises ValueError where ImageNet's classes have company that would change their numbers."""
    others = [name for name in names if not re.fullmatch(r"n\d{8}", name)]
    of_imagenet = set(names) - set(others)
    if others and of_imagenet and of_imagenet <= set(ids):
        raise ValueError(
            f"class {others[0]!r} is among WordNet ids of ImageNet's classes, such as "
            f"{min(of_imagenet)}; take it away, or list all classes in the order of the networks' "
            "outputs: classes=FILE"
        )


def _listed(names: list[str], classes: str | os.PathLike) -> Classes:
    lines = [line.strip() for line in read_text(classes, "classes").rstrip().splitlines()]
    if "" in lines:
        raise ValueError(
            f"classes {classes} must name a class in each line, since the number of a class is "
            f"that of its line; line {lines.index('') + 1} is empty: take it away, or name a class"
        )
    listed = tuple(lines)
    numbers = {name: i for i, name in enumerate(listed)}
    if len(numbers) < len(listed):
        twice = next(name for i, name in enumerate(listed) if numbers[name] != i)
        raise ValueError(f"classes {classes} lists {twice!r} twice")
    missing = [name for name in names if name not in numbers]
    if missing:
        raise ValueError(
            f"classes {classes} does not list {missing[0]!r}, nor {len(missing) - 1} others"
            if len(missing) > 1
            else f"classes {classes} does not list {missing[0]!r}"
        )
    return Classes(numbers, listed)
