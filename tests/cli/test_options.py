"""Options of commands, from dataclasses and docstrings."""

import dataclasses
from typing import Literal

import pytest
import tyro

import lmjax
from lmjax.cli.options import documented, help_text, options_of


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a test.

    Attributes:
      segmenter: one of `lmjax.segments.names()`.
      count: how many.
      model: a name; in Python also a dict.
      kind: of two, or none.
    """

    segmenter: str = "slic"
    count: int | None = None
    model: str | dict = "small"
    kind: Literal["first", "second"] | None = None

    def __post_init__(self):
        if self.count == 0:
            raise ValueError("count must be 1 or more")


def test_names_are_listed_where_a_function_lists_them():
    assert help_text("one of `lmjax.segments.names()`") == (
        f"one of {', '.join(lmjax.segments.names())}"
    )
    assert help_text("`lmjax.data.forms()`.") == f"{'; '.join(lmjax.data.forms())}."
    assert help_text("see `lmjax.evaluate` and `lmjax.Predictor`") == (
        "see `lmjax.evaluate` and `lmjax.Predictor`"
    )


def test_arguments_are_one_line_each():
    @documented
    def command(a, b):
        """Runs.

        Args:
            a: the first, which is
                long.
            b: the second.
        """

    assert command.__doc__.splitlines() == [
        *("Runs.", "", "Args:", "    a: the first, which is long.", "    b: the second.")
    ]


def test_options_are_settings():
    options = options_of(Settings)
    args = ["--segmenter", "grid", "--count", "3", "--model", "large", "--kind", "second"]
    parsed = tyro.cli(options, args=args)
    assert isinstance(parsed, Settings)
    assert vars(parsed) == {**{"segmenter": "grid", "count": 3, "model": "large", "kind": "second"}}
    assert vars(tyro.cli(options, args=[])) == vars(Settings())
    with pytest.raises(ValueError, match="count must be 1 or more"):
        options(count=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        parsed.count = 4


def test_help_shows_what_options_take(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(options_of(Settings), args=["--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"--segmenter STR one of {', '.join(lmjax.segments.names())}." in text
    assert "--count INT how many. (default: None)" in text
    assert "--kind {first,second} of two, or none. (default: None)" in text
    assert "--model STR a name; in Python also a dict. (default: small)" in text
