"""Whether the labels of a source are classes of a network."""

from collections.abc import Sequence
from typing import Any

from lmjax.data.imagenet import synsets
from lmjax.data.source import Source


def check_classes(source: Source, name: str, network: Any) -> None:
    """Raises ValueError where a source and a network name their classes differently.

    Labels are numbers: of the folders cat and cup, cat is 0, and so is a network's first class.
    Without names on both sides nothing is compared.

    Args:
      source: of the images.
      name: of the network, for the error.
      network: a classifier.
    """
    own, theirs = getattr(network, "class_names", None), getattr(source, "class_names", None)
    if not own or not theirs or _same(theirs, own):
        return
    if tuple(theirs) == synsets.synsets() and len(own) == len(theirs):
        return
    raise ValueError(
        f"labels of the source are not classes of {name}: class 0 of the source is {theirs[0]!r} "
        f"(of {len(theirs)}), of the network {own[0]!r} (of {len(own)}); name folders or labels as "
        "the network does, and list its classes, one a line in their order: classes=FILE"
    )


def _same(names: Sequence[str], others: Sequence[str]) -> bool:
    """Returns whether most classes have the same names, but for the way they are written."""
    equal = sum(_plain(a) == _plain(b) for a, b in zip(names, others))
    return 2 * equal > max(len(names), 1)


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
