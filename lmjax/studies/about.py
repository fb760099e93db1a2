"""What reports say of a study: its question, its method, and which direction is good."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

_NONE: Mapping[str, str] = {}
ANY_ENDING = "*"
"""Stands at the end of a column's name for the name of any removal, and for any number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """Text about a study, for its reports.

    In `higher`, `lower` and `columns` a name may end with `*`, for the name of any removal and for
    any number. The removal's title, or the number, takes the place of `{}` in the heading.

    Attributes:
      question: that the study answers, in a sentence.
      method: how, in a few sentences.
      reading: which direction is good, and what to be careful about.
      higher: columns of tables where higher is better; their headings get an arrow upwards.
      lower: where lower is better.
      columns: headings of columns, where the usual ones do not fit.
      tables: headings of tables, where the usual ones do not fit.
      first: part of the name of the figure to look at first; empty for the study's first one.
      hidden: what example images hide: "half" of the segments, or the "object", where it is known.
    """

    question: str
    method: str
    reading: str
    higher: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    columns: Mapping[str, str] = dataclasses.field(default_factory=lambda: _NONE)
    tables: Mapping[str, str] = dataclasses.field(default_factory=lambda: _NONE)
    first: str = ""
    hidden: Literal["half", "object"] = "half"


def about_of(study: Any) -> About | None:
    """Returns what a study says of itself, or None."""
    return getattr(study, "about", None)
