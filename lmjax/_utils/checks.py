"""Checks of arguments: each returns the value or raises an error that says what is allowed."""

import dataclasses
import math
import typing
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from lmjax._utils.summary import brief, is_concrete, is_real

LARGEST = {
    "seed": 2**32 - 1,
    **dict.fromkeys(("samples", "budget", "num_permutations", "num_designs", "batch_size"), 10**6),
    **dict.fromkeys(("num_samples", "images", "test_images"), 10**7),
    **dict.fromkeys(("num_classes", "images_per_shard", "epochs"), 10**5),
    **dict.fromkeys(("n_segments", "patches", "rise_grids", "resamples"), 10**4),
    **dict.fromkeys(("rise_masks", "num_resamples", "iterations", "num_bins"), 10**6),
    "steps": 10**5,
    "small_size": 4096,
}
"""The largest numbers that arguments may be, by name: beyond, memory or time could not suffice."""

_MOST = 2**63 - 1


def check_whole(
    name: str, value: Any, *, least: int | None = None, most: int | None = None, note: str = ""
) -> int:
    """Returns a whole number as an int.

    Args:
      name: of the argument, for the error.
      value: a Python or NumPy number; bool is none.
      least, most: the range, ends included. Without `most`, the bound is that of all arguments of
        this name (`LARGEST`), or the largest number of 64 bits.
      note: what else the error should say, such as what the number counts.

    Raises:
      ValueError: not a whole number, or out of range.
    """
    number = _number(value)
    if most is None and number is not None and number > LARGEST.get(name, _MOST):
        most = LARGEST.get(name, _MOST)
    if number is None or number != number // 1 or not _within(number, least, most):
        kind = "a whole number" + _range(least, most)
        raise ValueError(f"{name} must be {kind}{note and f' ({note})'}; got {brief(value)}")
    return int(number)


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    note: str = "",
) -> float:
    """Returns a finite number as a float.

    Args:
      name: of the argument, for the error.
      value: a Python or NumPy number; bool is none.
      above, least: lower bound, without and with the bound itself.
      below, most: upper bound, without and with the bound itself.
      note: what else the error should say.

    Raises:
      ValueError: not a finite number, or out of range.
    """
    number = _number(value)
    if (
        number is None
        or not math.isfinite(number)
        or not _within(number, least, most)
        or (above is not None and not number > above)
        or (below is not None and not number < below)
    ):
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (
                *(("above", above), ("at least", least)),
                *(("below", below), ("at most", most)),
            )
            if bound is not None
        ]
        kind = " ".join(filter(None, ("a finite number", " and ".join(bounds))))
        raise ValueError(f"{name} must be {kind}{note and f' ({note})'}; got {brief(value)}")
    return float(number)


def check_choice(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """Returns the value; raises ValueError unless it is one of `allowed`."""
    allowed = tuple(allowed)
    if isinstance(value, np.str_):
        value = str(value)
    if not any(value is each or value == each for each in allowed if type(value) is type(each)):
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, allowed))}; got {brief(value)}"
        )
    return value


def check_choices(name: str, values: Iterable[Any], allowed: Iterable[Any]) -> tuple[Any, ...]:
    """Returns the values as a tuple; raises ValueError unless all are allowed, each at most once.

    At least one is needed.
    """
    values, allowed = tuple(values), tuple(allowed)
    bad = [each for each in values if each not in allowed]
    if bad or not values or len(set(values)) < len(values):
        raise ValueError(
            f"{name} must be one or more of {', '.join(map(str, allowed))}, each once; got "
            f"{', '.join(map(str, bad or values)) or 'none'}"
        )
    return values


def check_distinct(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    """Returns the values as a tuple; raises ValueError for none, and for one that is repeated."""
    values = tuple(values)
    twice = [each for each in dict.fromkeys(values) if values.count(each) > 1]
    if twice or not values:
        got = f"{', '.join(map(str, twice))} more than once" if twice else "none"
        raise ValueError(f"{name} must be one or more, each once; got {got}")
    return values


def check_function(name: str, value: Any, of: str) -> Callable:
    """Returns a function; raises ValueError for anything else.

    Args:
      name: of the argument, for the error.
      value: what was given.
      of: what the function is to do, such as "(image) -> heatmap".
    """
    if not callable(value):
        raise ValueError(f"{name} must be a function {of}; got {brief(value)}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """Returns True or False; raises ValueError for anything else, such as NaN or a text."""
    value = _scalar(value)
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False; got {brief(value)}")
    return bool(value)


def check_numbers(name: str, values: Any) -> np.ndarray:
    """Returns numbers as float64 of their shape; NaN and infinity are numbers.

    Args:
      name: of the argument, for the error.
      values: an array, a number, or nested sequences of them.

    Raises:
      ValueError: anything else, or sequences of different lengths.
    """
    try:
        array = np.asarray(values)
        if is_real(array.dtype):
            return array.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be real numbers; got {brief(values)}")


def check_pair(
    name: str,
    value: int | Sequence[int],
    *,
    least: int = 1,
    most: Sequence[int] | None = None,
    note: str = "",
) -> tuple[int, int]:
    """Returns (height, width) from one whole number or two.

    Args:
      name: of the argument, for the error.
      value: a whole number for both, or two.
      least: of each.
      most: the largest height and width; None for no bound.
      note: what the bounds are, for the error.

    Raises:
      ValueError: something else, or out of range.
    """
    try:
        pair = np.broadcast_to(np.asarray(value), 2)
    except ValueError:  # more or fewer, or sequences of different lengths
        pair = np.zeros(1)
    limit = np.full(2, np.iinfo(np.int64).max) if most is None else np.asarray(most)
    if pair.dtype.kind not in "iu" or (pair < least).any() or (pair > limit).any():
        bounds = f"{least} or more" if most is None else f"from {least} to {most[0]} and {most[1]}"
        raise ValueError(
            f"{name} must be a whole number or two, {bounds}{note and f' ({note})'}; got "
            f"{brief(value)}"
        )
    return int(pair[0]), int(pair[1])


def set_number(settings: Any, name: str, **bounds: Any) -> None:
    """Checks a field of a frozen dataclass by `check_number`, and keeps what that returns."""
    object.__setattr__(settings, name, check_number(name, getattr(settings, name), **bounds))


def set_whole(settings: Any, name: str, **bounds: Any) -> None:
    """Checks a field of a frozen dataclass by `check_whole`, and keeps what that returns."""
    object.__setattr__(settings, name, check_whole(name, getattr(settings, name), **bounds))


def set_plain_numbers(settings: Any) -> None:
    """Replaces NumPy's and JAX's numbers among the fields of a frozen dataclass by Python's.

    JSON takes no others, and a whole number is an int then, such as `range` and seeds need. For
    `__post_init__`, before the checks; arrays and lists become tuples.

    Args:
      settings: the dataclass. A field whose annotation names int and not float is of whole numbers.

    Raises:
      ValueError: a field annotated as bool that is neither True nor False.
    """
    try:
        hints = typing.get_type_hints(type(settings))
    except NameError:  # an annotation in quotes, of a class that only a function knows
        hints = {}
    for field in dataclasses.fields(settings):
        if field.init:
            named = _types_of(hints.get(field.name))
            value = _plain(getattr(settings, field.name), int in named and float not in named)
            if named == {bool}:
                value = check_flag(field.name, value)
            object.__setattr__(settings, field.name, value)


def _types_of(hint: Any) -> set[Any]:
    """Returns the types that an annotation names, inside unions and tuples too."""
    if typing.get_origin(hint) is typing.Literal:
        return set()
    inner = typing.get_args(hint)
    return set().union(*map(_types_of, inner)) if inner else {hint}


def _plain(value: Any, whole: bool) -> Any:
    if _is_known(value):
        value = np.asarray(value).tolist()
    if isinstance(value, list | tuple):
        return tuple(_plain(each, whole) for each in value)
    if isinstance(value, np.generic):
        value = value.item()
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < _MOST
    return int(value) if whole and is_whole else value


def _scalar(value: Any) -> Any:
    """Returns NumPy's number for an array without axes, and other values as they are."""
    return np.asarray(value)[()] if _is_known(value) and value.ndim == 0 else value


def _is_known(value: Any) -> bool:
    """Returns whether a value is an array of NumPy or JAX with known entries, no random keys."""
    is_array = isinstance(value, np.ndarray) or is_concrete(value)
    return is_array and isinstance(value.dtype, np.dtype)


def _number(value: Any) -> Any:
    """The value if it is a real number, else None."""
    value = _scalar(value)
    if isinstance(value, bool | np.bool_) or np.ndim(value) > 0:
        return None
    if isinstance(value, Integral | Real):
        return None if isinstance(value, float) and math.isnan(value) else value
    return None


def _within(number: Any, least: float | None, most: float | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)


def _range(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f", {least} or more"
    return "" if most is None else f", {most} or less"
