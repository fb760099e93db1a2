"""What all figures share: text as it is and in lines, sizes, files."""

import base64
import functools
import html
import io
import os
import textwrap
from collections.abc import Callable
from typing import Any, BinaryIO, ParamSpec

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from lmjax._utils.text import printable

_Given = ParamSpec("_Given")

FORMATS = ("png", "pdf", "svg")
"""Formats of the figures of studies."""
PANEL = 3.1  # inches
DPI = 150


def plain_text(draw: Callable[_Given, Figure]) -> Callable[_Given, Figure]:
    """Makes a function draw all text as it is: names may hold what matplotlib takes for markup."""

    @functools.wraps(draw)
    def drawn(*args: _Given.args, **kwargs: _Given.kwargs) -> Figure:
        with rc_context({"text.parse_math": False, "text.usetex": False}):
            figure = draw(*args, **kwargs)
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_text(printable(text.get_text()))
        return figure

    return drawn


def letters_within(inches: float, points: float) -> int:
    """Returns about how many letters of a size fit in a width."""
    return max(int(inches * 72 / (0.6 * points)), 8)


def wrapped(text: str, letters: int) -> str:
    """Wraps each line of a text by itself."""
    return "\n".join(textwrap.fill(line, letters) for line in text.splitlines())


def own_axes() -> Axes:
    """Returns axes that fill a figure of their own."""
    return Figure(figsize=(1.3 * PANEL, PANEL), layout="constrained").add_subplot()


def as_html(figure: Figure, *, title: str = "") -> str:
    """Returns a figure as an image in HTML, whose data is in it.

    Args:
      figure: the figure.
      title: what is said where it cannot be shown.
    """
    contents = io.BytesIO()
    save(figure, contents, format="png")
    data = base64.b64encode(contents.getvalue()).decode()
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'


def save(figure: Figure, file: str | os.PathLike | BinaryIO, *, format: str | None = None) -> None:
    """Writes a figure; `format` ("png", "jpg", "pdf", "svg") defaults to the suffix of a path.

    The same figure gives the same bytes.
    """
    if format is None and isinstance(file, str | os.PathLike):
        format = os.path.splitext(file)[1][1:].lower() or None
    options: dict[str, Any] = {
        "jpg": {"pil_kwargs": {"quality": 68}},
        "pdf": {"metadata": {"CreationDate": None}},
        "svg": {"metadata": {"Date": None}},
    }.get(format or "", {})
    with rc_context({"svg.hashsalt": "lmjax", "pdf.fonttype": 42}):
        figure.savefig(file, format=format, dpi=DPI, **options)
