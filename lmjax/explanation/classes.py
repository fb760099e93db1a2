"""Classes of an explanation: by name or number, and the most probable ones."""

import difflib
import re
from typing import Any

import numpy as np

from lmjax._utils.checks import check_whole
from lmjax.evaluation.target import check_target
from lmjax.models import Classifier


def class_name(index: Any, classifier: Classifier) -> str:
    """Returns the name of a class, or its number where the network's classes have no names."""
    return classifier.class_names[index] if classifier.class_names else f"class {index}"


def find_class(target: str | int | None, classifier: Classifier) -> int | None:
    """Returns a class by its number or its name; None stays None.

    Text is a name where a class has it, otherwise a number. Capital letters make a difference only
    between names that differ in nothing else.

    Raises:
      ValueError: a name or number that is none of the network's classes, with a hint at similar
        names; a name of several classes.
    """
    if target is None:
        return None
    names = classifier.class_names or ()
    if isinstance(target, str):
        named = _named(target, names)
        if named is not None:
            return named
        if not re.fullmatch(r"\s*-?\d+\s*", target):
            near = similar(target, names)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(
                f"target {target!r} is no class of this network; give an index from 0 or a class "
                f"name{hint}"
            )
        target = int(target)
    number = check_whole("target", target, note="a class by its number, or a name")
    if names:
        check_target(number, len(names))
    return number


def _named(name: str, names: tuple[str, ...]) -> int | None:
    """Returns the class of a name; None where there is none."""
    found = [i for i, each in enumerate(names) if each == name]
    found = found or [i for i, each in enumerate(names) if each.lower() == name.lower()]
    if len(found) > 1:
        numbers = ", ".join(f"{i} ({names[i]})" for i in found)
        raise ValueError(
            f"target {name!r} is the name of several classes: give a number, {numbers}"
        )
    return found[0] if found else None


def similar(name: str, names: tuple[str, ...]) -> list[str]:
    """Returns up to three names: those that hold the word first, then those spelled alike."""
    word = re.compile(rf"\b{re.escape(name.lower())}\b")
    holding = [each for each in names if word.search(each.lower())]
    alike = difflib.get_close_matches(name.lower(), [each.lower() for each in names], cutoff=0.5)
    return list(dict.fromkeys(holding + [each for each in names if each.lower() in alike]))[:3]


def most_probable(logits: np.ndarray, count: int) -> tuple[int, ...]:
    """Returns the classes with the highest logits `[K]`, the highest first.

    Raises:
      ValueError: more classes than there are.
    """
    check_count(count, len(logits))
    return tuple(int(each) for each in np.argsort(-logits, kind="stable")[:count])


def check_count(count: int, num_classes: int) -> None:
    """Raises ValueError where `top_k` asks for more classes than the network has."""
    if count > num_classes:
        raise ValueError(
            f"top_k must be at most {num_classes}, the number of the network's classes; got {count}"
        )
