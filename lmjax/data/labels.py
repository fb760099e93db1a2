"""Checks whether the labels of a source are classes of a network, or of another source."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lmjax.data.imagenet import synsets
from lmjax.data.source import Source


def check_classes(source: Source, name: str, network: Any, *, argument: str = "source") -> None:
    """Raises ValueError where a source and a network name their classes differently.

    Labels are numbers: of the folders cat and cup, cat is 0, and so is a network's first class.
    Without names on both sides nothing is compared. Where most names agree, others may be written
    in another way, but a name that belongs to another number is an error.

    Args:
      source: of the images.
      name: of the network, for the error.
      network: a classifier, or another source.
      argument: name of the source, for the error.
    """
    own, theirs = getattr(network, "class_names", None), getattr(source, "class_names", None)
    if not own or not theirs:
        return
    if tuple(theirs) == synsets.synsets() and len(own) == len(theirs):
        return
    others, names = list(map(_plain, theirs)), list(map(_plain, own))
    equal = sum(a == b for a, b in zip(others, names))
    wrong = 0 if 2 * equal <= max(len(others), 1) else _moved(others, names)
    if wrong is None:
        return
    there = f"{own[wrong]!r} (of {len(own)})" if wrong < len(own) else f"none (of {len(own)})"
    raise ValueError(
        f"labels of the {argument} are not classes of {name}: class {wrong} of the {argument} is "
        f"{theirs[wrong]!r} (of {len(theirs)}), of {name} {there}; name folders or labels alike, "
        "and list all classes, one a line in their order: classes=FILE"
    )


def _moved(others: Sequence[str], names: Sequence[str]) -> int | None:
    """Returns the first class whose name is that of another number; None where there is none."""
    unique = {each for each, count in Counter(names).items() if count == 1}
    unique &= {each for each, count in Counter(others).items() if count == 1}
    places = {each: i for i, each in enumerate(names) if each in unique}
    return next((i for i, each in enumerate(others) if places.get(each, i) != i), None)


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
