"""Figures of explanations: the image, its segments, and heatmaps in a row or a grid."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmjax.plots.figures import DPI, PANEL, letters_within, plain_text, wrapped
from lmjax.plots.pictures import (
    OPACITY,
    Panel,
    Picture,
    Shown,
    View,
    draw_heatmaps,
    draw_image,
    draw_segments,
    draw_variant,
)

_NARROW = 1.8  # inches
_WIDEST = 15.5  # inches, all panels of a row
_SMALL_PANEL = 1.3  # inches, in grids: three columns are as wide as a page
_SMALL_FONT = 6.5  # points
_FEW_ROWS = 6  # of larger panels
_BESIDE = {"ha": "right", "va": "center", "rotation": 90}


class Row(NamedTuple):
    """A row of `comparison`: heatmaps on one colour scale.

    Attributes:
      title: one line or two.
      panels: one for each column.
      colour_label: beside the colour bar.
      signed: whether the scale has colours for values below 0.
    """

    title: str
    panels: Sequence[Panel]
    colour_label: str
    signed: bool = True


@plain_text
def explanation(
    image: np.ndarray,
    segments: np.ndarray,
    panels: Sequence[Panel],
    *,
    title: str,
    image_title: str,
    colour_label: str,
    object_mask: np.ndarray | None = None,
    signed: bool = True,
    variants: Sequence[Shown] = (),
    view: View | None = None,
    note: str = "",
) -> Figure:
    """Draws the image, its segments, and heatmaps over the image on one colour scale.

    Args:
      image: `[H, W, C]` in [0, 1], C 1 or 3.
      segments: `[H, W]` ints.
      panels: the heatmaps.
      title: of the figure.
      image_title: over the image.
      colour_label: beside the colour bar.
      object_mask: `[H, W]` bool, outlined in green where given.
      signed: whether the scale has colours for values below 0.
      variants: what the network was shown, a row for each, below the heatmaps.
      view: the whole photograph, on which heatmaps are drawn where given.
      note: at the foot, how to read the figure.

    Returns:
      A figure, for `save`.
    """
    picture = Picture(image, segments, image_title, object_mask, view)
    columns = len(panels) + (1 if variants else 2)
    width, height = _panel_size(picture.aspect, columns)
    font = 10.0 if width > _NARROW else 7.0
    style: dict[Any, Any] = {"font.size": font, "axes.titlesize": font * 1.1}
    with rc_context(style):
        # Variants are squares beside a wide photograph, and narrower than a high one.
        below = min(width * image.shape[0] / image.shape[1], 1.2 * height)
        heights = [height + 0.6] + [below + 0.5] * len(variants)
        size = (width * columns + 1.5, sum(heights) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
        for ax in axes.ravel():
            ax.set_axis_off()
        letters = letters_within(width, font * 1.1)
        draw_image(axes[0, 0], picture, letters)
        if not variants:
            draw_segments(axes[0, 1], picture)
        heatmaps = axes[0, columns - len(panels) :]
        drawn = draw_heatmaps(heatmaps, picture, panels, signed, letters)
        for variant, line in zip(variants, axes[1:]):
            draw_variant(line, picture, variant, letters)
        label = textwrap.fill(colour_label, letters_within(height, font), break_long_words=False)
        figure.colorbar(drawn, ax=axes[0].tolist(), label=label, aspect=15, alpha=OPACITY)
        figure.suptitle(textwrap.fill(title, letters_within(size[0], font * 1.2)))
        _write_note(figure, note, font)
    return figure


@plain_text
def comparison(
    image: np.ndarray,
    segments: np.ndarray,
    rows: Sequence[Row],
    *,
    columns: Sequence[str],
    title: str,
    image_title: str,
    object_mask: np.ndarray | None = None,
    variants: Sequence[Shown] = (),
    view: View | None = None,
    note: str = "",
) -> Figure:
    """Draws the image, its segments, and a grid of heatmaps with a colour scale for each row.

    Args:
      image: `[H, W, C]` in [0, 1], C 1 or 3.
      segments: `[H, W]` ints.
      rows: two or more.
      columns: headings of the grid.
      title: of the figure.
      image_title: over the image.
      object_mask: `[H, W]` bool, outlined in green where given.
      variants: what the network was shown, a row for each, below the heatmaps.
      view: the whole photograph, on which heatmaps are drawn where given.
      note: at the foot, how to read the figure.

    Returns:
      A figure, for `save`.
    """
    picture = Picture(image, segments, image_title, object_mask, view)
    panel = _SMALL_PANEL if len(rows) > _FEW_ROWS else 1.5 * _SMALL_PANEL
    width, height = panel / picture.aspect**0.5, panel * picture.aspect**0.5
    lines = len(rows) + len(variants)
    size = (width * (len(columns) + 1) + 1.3, (height + 0.3) * lines + 0.6)
    # Enlarged pixels are not interpolated.
    interpolation = "nearest" if image.shape[1] < width * DPI else "auto"
    style: dict[Any, Any] = {
        **{"font.size": _SMALL_FONT, "axes.titlesize": _SMALL_FONT},
        "image.interpolation": interpolation,
    }
    with rc_context(style):
        figure, axes, (first, second) = _grid(size, len(rows), len(columns), len(variants))
        letters = letters_within(width, _SMALL_FONT)
        draw_image(first, picture, letters)
        draw_segments(second, picture)
        for row, line in zip(rows, axes[:, 1:]):
            # The image is faint, so that small heatmaps stand out.
            drawn = draw_heatmaps(line, picture, row.panels, row.signed, letters, faint=True)
            beside = wrapped(row.title, letters_within(height, _SMALL_FONT))
            line[0].text(-0.06, 0.5, beside, transform=line[0].transAxes, **_BESIDE)
            label = textwrap.fill(
                row.colour_label, letters_within(height, _SMALL_FONT), break_long_words=False
            )
            figure.colorbar(drawn, ax=line.tolist(), label=label, alpha=OPACITY)
        for heading, ax in zip(columns, axes[0, 1:]):
            ax.title.set_text(f"{heading}\n{ax.get_title()}".strip())
        for variant, line in zip(variants, axes[len(rows) :]):
            draw_variant(line, picture, variant, letters)
        figure.suptitle(textwrap.fill(title, letters_within(size[0], _SMALL_FONT * 1.2)))
        _write_note(figure, note, _SMALL_FONT)
    return figure


def _grid(
    size: tuple[float, float], rows: int, columns: int, variants: int
) -> tuple[Figure, np.ndarray, tuple[Axes, Axes]]:
    """Returns a figure, its axes `[rows + variants, 1 + columns]`, and two axes at the left.

    The two share the height of the rows, whose first column is None.
    """
    figure = Figure(figsize=size, layout="constrained")
    places = figure.add_gridspec(2 * rows + 2 * variants, 1 + columns)
    axes = np.full((rows + variants, 1 + columns), None)
    for row, column in np.ndindex(axes.shape):
        if row >= rows or column:
            axes[row, column] = figure.add_subplot(places[2 * row : 2 * row + 2, column])
    left = (figure.add_subplot(places[:rows, 0]), figure.add_subplot(places[rows : 2 * rows, 0]))
    for ax in figure.axes:
        ax.set_axis_off()
    return figure, axes, left


def _panel_size(aspect: float, columns: int) -> tuple[float, float]:
    """Returns width and height in inches; panels are smaller where they are many."""
    side = max(_NARROW, min(PANEL, _WIDEST / columns * aspect**0.5))
    return side / aspect**0.5, side * aspect**0.5


def _write_note(figure: Figure, note: str, font: float) -> None:
    """Writes at the foot of a figure, which grows by as many lines."""
    if not note:
        return
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(note, letters_within(width, font * 0.9))
    figure.set_size_inches(width, height + len(lines) * font * 1.2 / 72 + 0.05)
    figure.supxlabel("\n".join(lines), fontsize=font * 0.9, color="0.35")
