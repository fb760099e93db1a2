"""Curves on axes: charts in rows, and a single curve."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import ArrayLike

from lmjax.plots.colours import is_emphasised
from lmjax.plots.figures import letters_within, own_axes, plain_text, wrapped
from lmjax.plots.series import (
    LEAST_WIDTH,
    MARKERS,
    colours_of,
    error_bars,
    legend,
    legend_label,
    shifts_of,
)

_Y_LABEL_WIDTH = 27
_LOG_MARGIN = 2.3  # two of the ticks 1, 2, 5, 10, ... are in sight even around one point
_MOST_BARS = 16  # points of curves that have error bars
_REFERENCE = "#555555"


class Line(NamedTuple):
    """A curve of a chart.

    Attributes:
      label: in the legend; curves with the same label have one colour in all charts of a figure.
      x, y: `[n]`.
      low, high: `[n]`, the ends of its interval, or None.
      removal: the removal whose colour it has; None takes a colour that no removal has.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    removal: str | None = None


class Chart(NamedTuple):
    """Curves on one pair of axes.

    Attributes:
      title: over the axes.
      x_label, y_label: along the axes.
      lines: the curves.
      doubling: whether x has a logarithmic scale of base 2, with ticks at the curves' points.
      reference: label and height of a dotted line, such as what chance gives; or None.
      logarithmic: whether x has a logarithmic scale of base 10; points are not moved aside.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    doubling: bool = False
    reference: tuple[str, float] | None = None
    logarithmic: bool = False


@plain_text
def charts(grid: Sequence[Sequence[Chart]], *, title: str) -> Figure:
    """Draws charts in rows, with one legend; a row with a single y label has one scale.

    Curves of few points have error bars side by side, others have bands.

    Args:
      grid: rows of charts, none longer than the first.
      title: of the figure.

    Returns:
      A figure, for `save`.
    """
    columns = len(grid[0])
    size = (max(3.4 * columns, LEAST_WIDTH), 2.4 * len(grid) + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    alike = all(len({chart.y_label for chart in row}) == 1 for row in grid)
    axes = figure.subplots(len(grid), columns, squeeze=False, sharey="row" if alike else False)
    colours = colours_of(
        [(line.label, line.removal) for row in grid for chart in row for line in chart.lines]
    )
    for i, (row, line_of_axes) in enumerate(zip(grid, axes)):
        for j, (chart, ax) in enumerate(zip(row, line_of_axes)):
            _draw_chart(ax, chart, colours)
            below = grid[i + 1][j] if i + 1 < len(grid) and j < len(grid[i + 1]) else None
            if not (below and below.x_label == chart.x_label):
                ax.set_xlabel(chart.x_label)
            if i == 0 or chart.title != grid[0][j].title:
                ax.set_title(wrapped(chart.title, letters_within(size[0] / columns, 12)))
            if j == 0 or not alike:
                ax.set_ylabel(textwrap.fill(chart.y_label, _Y_LABEL_WIDTH))
        _from_zero(row, line_of_axes, alike)
        for ax in line_of_axes[len(row) :]:
            ax.set_axis_off()
    legend(figure, axes, free=axes[-1, len(grid[-1]) :])
    figure.suptitle(wrapped(title, letters_within(size[0], 12)))
    return figure


def _draw_chart(ax: Axes, chart: Chart, colours: dict[str, str]) -> None:
    """Draws the curves of a chart and its scale."""
    ax.grid(alpha=0.3)
    places = {x for line in chart.lines for x in line.x}
    if chart.doubling:
        ticks = sorted(places)
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.minorticks_off()
    if len(places) == 1 and not (chart.doubling or chart.logarithmic):
        (place,) = places  # a scale of its own would suggest others, and part the intervals
        ax.set_xlim(place - 0.5, place + 0.5)
        ax.set_xticks([place], [f"{place:g}"])
    if chart.logarithmic:
        ax.set_xscale("log")
        ax.set_xlim(min(places) / _LOG_MARGIN, max(places) * _LOG_MARGIN)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    shifts = np.zeros(len(chart.lines)) if chart.logarithmic else shifts_of(len(chart.lines))
    for line, shift in zip(chart.lines, shifts):
        _draw_line(ax, line, colours[line.label], shift, chart.doubling)
    if chart.reference is not None:
        label, height = chart.reference
        ax.axhline(height, color=_REFERENCE, linestyle=":", linewidth=1.4, label=label, zorder=1)


def _draw_line(ax: Axes, line: Line, colour: str, shift: float, doubling: bool) -> None:
    """Draws a curve, its error bars moved aside by a share of the distance between points."""
    emphasised = is_emphasised(line.removal)
    style: dict[str, Any] = {"color": colour, "label": legend_label(line.label)}
    style |= {"linewidth": 2.6 if emphasised else 1.3, "zorder": 4 if emphasised else 3}
    if line.removal is not None and "@" in line.removal:
        style["linestyle"] = "--"
    x, y = np.asarray(line.x, float), np.asarray(line.y, float)
    if len(x) > _MOST_BARS:
        ax.plot(x, y, **style)
        if line.low is not None and line.high is not None:
            band = ax.fill_between(x, line.low, line.high, color=colour, alpha=0.12, lw=0)
            band.set_zorder(2)
        return
    ax.plot(x, y, marker=_marker(line.removal), markersize=5 if emphasised else 3.5, **style)
    if line.low is None or line.high is None:
        return
    scale = np.log2(x) if doubling else x
    moved = scale + shift * _distance(scale)
    ax.errorbar(
        2**moved if doubling else moved,
        y,
        yerr=error_bars(y, line.low, line.high),
        fmt="none",
        ecolor=colour,
        elinewidth=1.8 if emphasised else 0.9,
        zorder=style["zorder"],
    )


def _distance(places: np.ndarray) -> float:
    """Returns the least distance of points along an axis, or a tenth of its length if less."""
    steps = np.diff(np.unique(places))
    return min(steps.min(), 0.1 * steps.sum()) if len(steps) else 0.1


def _marker(removal: str | None) -> str:
    """Returns the marker of a removal, which says the depth where it has one."""
    depth = (removal or "").partition("@")[2]
    return MARKERS[1 + int(depth) % (len(MARKERS) - 1)] if depth.isdecimal() else "o"


def _from_zero(row: Sequence[Chart], axes: np.ndarray, alike: bool) -> None:
    """Lets scales begin at 0 where no value, and no end of an interval, is below it."""
    # After all curves: axes may be shared, and setting a limit fixes it.
    lowest = [min(map(_lowest, chart.lines)) for chart in row]
    for low, ax in zip(lowest, axes):
        if (min(lowest) if alike else low) >= 0:
            ax.set_ylim(bottom=-0.03 * ax.get_ylim()[1])  # markers at 0 are whole
            if alike:
                return


def _lowest(line: Line) -> float:
    """Returns the lowest value of a curve or end of its intervals; 0 where all are NaN."""
    values = [*line.y, *(() if line.low is None else line.low)]
    return min((each for each in values if not math.isnan(each)), default=0.0)


def curve(
    fractions: ArrayLike, values: ArrayLike, *, label: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draws a curve over the share of pixels that each step has reached.

    Args:
      fractions: `[n + 1]`.
      values: `[n + 1]`.
      label: for a legend.
      ax: axes to draw on; None makes a figure.
    """
    ax = own_axes() if ax is None else ax
    ax.plot(np.asarray(fractions), np.asarray(values), label=label)
    ax.set(xlabel="share of pixels", ylabel="output")
    return ax
