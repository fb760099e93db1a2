"""Figures of heatmaps, curves and tables: the only module that imports matplotlib."""

import os
import textwrap
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

_MOST_COLUMNS = 5
_PANEL = 3.1  # inches
_SMALL_PANEL = 1.3  # inches, in grids: three columns are as wide as a page
_SMALL_FONT = 6.5  # points
_DPI = 150
_SIGNED = "RdBu_r"  # blue: evidence against the class; red: evidence for it
_UNSIGNED = "Reds"
_DIVERGING = "RdBu"  # blue: above 1/2
_SHARES = "Blues"
_OBJECT = "#00b050"
_BESIDE = {"ha": "right", "va": "center", "rotation": 90}
_LABEL_WIDTH = 28  # letters beside the colour bar of a row of small panels


class Panel(NamedTuple):
    """One heatmap of a figure.

    Attributes:
      title: one line or two.
      heatmap: `[H, W]`.
    """

    title: str
    heatmap: np.ndarray


class Row(NamedTuple):
    """A row of `comparison`: heatmaps on one colour scale.

    Attributes:
      title: one line or two.
      panels: one for each column; None leaves it empty.
      colour_label: beside the colour bar.
      signed: whether the scale has colours for values below 0.
    """

    title: str
    panels: Sequence[Panel | None]
    colour_label: str
    signed: bool = True


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

    Returns:
      A figure, for `save`.
    """
    count = len(panels) + 2
    rows = -(-count // _MOST_COLUMNS)
    columns = -(-count // rows)
    aspect = image.shape[0] / image.shape[1]
    size = (_PANEL * columns + 0.8, (_PANEL * aspect + 0.7) * rows + 0.5)
    figure, axes = _axes(size, rows, columns)
    axes = axes.ravel()
    _draw_image(axes[:2], image, segments, image_title)
    drawn = _draw_heatmaps(axes[2:], image, panels, signed, object_mask)
    figure.colorbar(drawn, ax=axes.tolist(), label=colour_label, shrink=0.85)
    figure.suptitle(title)
    return figure


def comparison(
    image: np.ndarray,
    segments: np.ndarray,
    rows: Sequence[Row],
    *,
    columns: Sequence[str],
    title: str,
    image_title: str,
    object_mask: np.ndarray | None = None,
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

    Returns:
      A figure, for `save`.
    """
    aspect = image.shape[0] / image.shape[1]
    size = (
        _SMALL_PANEL * (len(columns) + 1) + 0.9,
        (_SMALL_PANEL * aspect + 0.2) * len(rows) + 0.5,
    )
    # Enlarged pixels are not interpolated.
    enlarged = image.shape[1] < _SMALL_PANEL * _DPI
    interpolation = "nearest" if enlarged else "auto"
    style: dict[Any, Any] = {"font.size": _SMALL_FONT, "image.interpolation": interpolation}
    with rc_context(style):
        figure, axes = _axes(size, len(rows), len(columns) + 1)
        _draw_image(axes[:2, 0], image, segments, image_title)
        for row, line in zip(rows, axes[:, 1:]):
            # The image is faint, so that small heatmaps stand out.
            drawn = _draw_heatmaps(line, (1 + image) / 2, row.panels, row.signed, object_mask)
            line[0].text(-0.06, 0.5, row.title, transform=line[0].transAxes, **_BESIDE)
            label = textwrap.fill(row.colour_label, _LABEL_WIDTH)
            figure.colorbar(drawn, ax=line.tolist(), label=label)
            for ax in line:
                ax.title.set_size("medium")
        for heading, ax in zip(columns, axes[0, 1:]):
            ax.set_title(f"{heading}\n{ax.get_title()}".strip(), size="medium")
        figure.suptitle(title)
    return figure


class Line(NamedTuple):
    """A curve of a chart.

    Attributes:
      label: in the legend; curves with the same label have one colour in all charts of a figure.
      x, y: `[n]`.
      low, high: `[n]`, the ends of its interval, or None.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


class Chart(NamedTuple):
    """Curves on one pair of axes.

    Attributes:
      title: over the axes.
      x_label, y_label: along the axes.
      lines: the curves.
      doubling: whether x has a logarithmic scale of base 2, with ticks at the curves' points.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    doubling: bool = False


def charts(grid: Sequence[Sequence[Chart]], *, title: str) -> Figure:
    """Draws charts in rows, with one legend; a row with a single y label has one scale.

    Args:
      grid: rows of charts, none longer than the first.
      title: of the figure.

    Returns:
      A figure, for `save`.
    """
    columns = len(grid[0])
    figure = Figure(figsize=(3.0 * columns + 1.6, 2.3 * len(grid) + 0.6), layout="constrained")
    alike = all(len({chart.y_label for chart in row}) == 1 for row in grid)
    axes = figure.subplots(len(grid), columns, squeeze=False, sharey="row" if alike else False)
    labels = list(
        dict.fromkeys(line.label for row in grid for chart in row for line in chart.lines)
    )
    for row, line_of_axes in zip(grid, axes):
        for chart, ax in zip(row, line_of_axes):
            for line in chart.lines:
                colour = f"C{labels.index(line.label)}"
                ax.plot(line.x, line.y, color=colour, label=line.label, marker="o", markersize=3)
                if line.low is not None:
                    ax.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, lw=0)
            ax.set(title=chart.title, xlabel=chart.x_label)
            ax.grid(alpha=0.3)
            if chart.doubling:
                ticks = sorted({x for line in chart.lines for x in line.x})
                ax.set_xscale("log", base=2)
                ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
            if ax is line_of_axes[0] or not alike:
                ax.set_ylabel(chart.y_label)
        # After all curves: axes may be shared, and setting a limit fixes it.
        lowest = [min(min(line.y) for line in chart.lines) for chart in row]
        for low, ax in zip(lowest, line_of_axes):
            if (min(lowest) if alike else low) >= 0:
                ax.set_ylim(bottom=0)
        for ax in line_of_axes[len(row) :]:
            ax.set_axis_off()
    handles = {
        label: handle
        for ax in axes.ravel()
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right center")
    figure.suptitle(title)
    return figure


class Dots(NamedTuple):
    """Values with intervals, one for each name of a panel.

    Attributes:
      label: in the legend; dots with the same label have one colour in all panels of a figure.
      values, low, high: `[names]`; NaN draws nothing.
    """

    label: str
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class DotPanel(NamedTuple):
    """Named values, one line for each name.

    Attributes:
      title: over the panel.
      x_label: along the axis.
      names: of the lines, from the top.
      dots: the values; several are drawn side by side.
    """

    title: str
    x_label: str
    names: Sequence[str]
    dots: Sequence[Dots]


def dots(panels: Sequence[DotPanel], *, title: str) -> Figure:
    """Draws named values with their intervals, in panels side by side with the same names.

    Args:
      panels: one or more.
      title: of the figure.

    Returns:
      A figure, for `save`.
    """
    names, labels = panels[0].names, [each.label for each in panels[0].dots]
    height = 0.34 * len(names) * max(len(labels), 2) ** 0.5 + 1.4
    figure = Figure(figsize=(3.0 * len(panels) + 2.6, height), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    places = np.arange(len(names))
    shifts = (np.arange(len(labels)) - (len(labels) - 1) / 2) * 0.7 / max(len(labels), 2)
    for panel, ax in zip(panels, axes):
        for shift, each in zip(shifts, panel.dots):
            values, ends = np.array(each.values), np.array([each.low, each.high])
            ax.errorbar(
                values,
                places + shift,
                xerr=np.maximum((ends - values) * [[-1], [1]], 0),
                fmt="o",
                markersize=4,
                color=f"C{labels.index(each.label)}",
                label=each.label,
            )
        ax.set(title=panel.title, xlabel=panel.x_label)
        ax.grid(alpha=0.3)
    axes[0].set_yticks(places, names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    if len(labels) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(title)
    return figure


class Matrix(NamedTuple):
    """Numbers from 0 to 1 for pairs, as coloured squares.

    Attributes:
      title: over the matrix.
      rows, columns: their names.
      values: `[rows, columns]`, NaN for none.
      diverging: whether the colour changes at 1/2, as for shares of wins.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    diverging: bool = False


def matrices(
    grid: Sequence[Sequence[Matrix]], *, title: str, colour_label: str | None = None
) -> Figure:
    """Draws matrices in rows, all of one size.

    Args:
      grid: rows of matrices.
      title: of the figure.
      colour_label: beside the colour bar; None draws none.

    Returns:
      A figure, for `save`.
    """
    columns = max(map(len, grid))
    largest = grid[0][0]
    side = (0.5 * len(largest.columns) + 1.1, 0.42 * len(largest.rows) + 1.4)
    size = (max(side[0], 2.8) * columns + 1.0, side[1] * len(grid) + 0.4)
    figure, axes = _axes(size, len(grid), columns)
    for row, line_of_axes in zip(grid, axes):
        for matrix, ax in zip(row, line_of_axes):
            ax.set_axis_on()
            _draw_matrix(ax, matrix)
            if ax is not line_of_axes[0]:
                ax.set_yticklabels([])
    if colour_label is not None:
        colours = axes[0, 0].images[0]
        figure.colorbar(colours, ax=axes.ravel().tolist(), label=colour_label, shrink=0.8)
    figure.suptitle(title)
    return figure


def _draw_matrix(ax: Axes, matrix: Matrix) -> None:
    """Draws a matrix with its numbers."""
    values = np.asarray(matrix.values, float)
    drawn = ax.imshow(values, cmap=_DIVERGING if matrix.diverging else _SHARES, vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = np.dot(drawn.cmap(value)[:3], (0.299, 0.587, 0.114)) < 0.5
            colour = "white" if dark else "black"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(matrix.columns)), matrix.columns, **slanted)
    ax.set_yticks(range(len(matrix.rows)), matrix.rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(matrix.title, size="medium")


def _axes(size: tuple[float, float], rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """Returns a figure of a size in inches, and its axes `[rows, columns]`, all invisible."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    return figure, axes


def _draw_image(axes: np.ndarray, image: np.ndarray, segments: np.ndarray, title: str) -> None:
    """Draws the image and its segments on two axes."""
    from skimage.segmentation import mark_boundaries

    image = image.repeat(3, axis=-1) if image.shape[-1] == 1 else image
    axes[0].imshow(image)
    axes[0].set_title(title)
    axes[1].imshow(mark_boundaries(image, segments, color=(1, 0.9, 0)))
    axes[1].set_title(f"{segments.max() + 1} segments")


def _draw_heatmaps(
    axes: np.ndarray,
    image: np.ndarray,
    panels: Sequence[Panel | None],
    signed: bool,
    object_mask: np.ndarray | None,
) -> AxesImage:
    """Draws heatmaps over the image on one scale, and returns the last, for a colour bar."""
    limit = max(np.abs(panel.heatmap).max() for panel in panels if panel) or 1.0
    scale = {
        "cmap": _SIGNED if signed else _UNSIGNED,
        "vmin": -limit if signed else 0,
        "vmax": limit,
    }
    for ax, panel in zip(axes, panels):
        if panel is None:
            continue
        ax.imshow(image.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
        drawn = ax.imshow(panel.heatmap, alpha=0.65, **scale)
        ax.set_title(panel.title)
        if object_mask is not None:
            ax.contour(object_mask, levels=[0.5], colors=_OBJECT, linewidths=1.2)
    return drawn


def save(figure: Figure, file: str | os.PathLike | BinaryIO, *, format: str | None = None) -> None:
    """Writes a figure; `format` ("png", "pdf", "svg") defaults to the suffix of a path."""
    figure.savefig(file, format=format, dpi=_DPI)
