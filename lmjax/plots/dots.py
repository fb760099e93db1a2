"""Named values with their intervals, in panels side by side."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmjax._utils.text import printable
from lmjax.plots.colours import is_emphasised, removal_colour
from lmjax.plots.figures import letters_within, plain_text, wrapped
from lmjax.plots.series import (
    LABEL_WIDTH,
    LEAST_WIDTH,
    MARKERS,
    colours_of,
    error_bars,
    legend,
    legend_label,
    shifts_of,
)


class Dots(NamedTuple):
    """Values with intervals, one for each name of a panel.

    Attributes:
      label: in the legend; dots with the same label have one colour in all panels of a figure.
      values, low, high: `[names]`; NaN draws nothing.
      removal: as in `Line`.
    """

    label: str
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    removal: str | None = None


class DotPanel(NamedTuple):
    """Named values, one line for each name.

    Attributes:
      title: over the panel.
      x_label: along the axis.
      names: of the lines, from the top.
      dots: the values; several are drawn side by side.
      removals: the removals that the lines are of, where they are: dots without a removal of their
        own have their colours.
    """

    title: str
    x_label: str
    names: Sequence[str]
    dots: Sequence[Dots]
    removals: Sequence[str] | None = None


@plain_text
def dots(panels: Sequence[DotPanel], *, title: str) -> Figure:
    """Draws named values with their intervals, in panels side by side with the same names.

    Args:
      panels: one or more.
      title: of the figure.

    Returns:
      A figure, for `save`.
    """
    names, count = panels[0].names, len(panels[0].dots)
    size = (2.5 * len(panels) + 1.8, 0.2 * len(names) * max(count, 2) ** 0.8 + 1.7)
    size = (max(size[0], LEAST_WIDTH), size[1])
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    colours = colours_of([(each.label, each.removal) for panel in panels for each in panel.dots])
    for panel, ax in zip(panels, axes):
        _draw_panel(ax, panel, colours)
        ax.set_title(wrapped(panel.title, letters_within(2.4, 11)), size=11)
        ax.set_xlabel(textwrap.fill(panel.x_label, 26))
    axes[0].set_yticks(
        range(len(names)), [textwrap.fill(printable(name), LABEL_WIDTH) for name in names]
    )
    for tick, removal in zip(axes[0].get_yticklabels(), panels[0].removals or ()):
        tick.set_weight("bold" if is_emphasised(removal) else "normal")
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    if count > 1:
        legend(figure, axes[:1])
    figure.suptitle(wrapped(title, letters_within(size[0], 12)))
    return figure


def _draw_panel(ax: Axes, panel: DotPanel, colours: dict[str, str]) -> None:
    """Draws the values of a panel, the lines of names on stripes."""
    for place in range(0, len(panel.names), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", zorder=0)
    ax.grid(alpha=0.3, axis="x")
    shifts = shifts_of(len(panel.dots)) * (1.2 if len(panel.dots) > 2 else 1)
    for each, shift, marker in zip(panel.dots, shifts, itertools.cycle(MARKERS)):
        own = each.removal is None and panel.removals is not None
        of_names = [*map(removal_colour, panel.removals)] if own and panel.removals else None
        style: dict[str, Any] = {"fmt": marker, "markersize": 4.5, "elinewidth": 1.4}
        bars = error_bars(each.values, each.low, each.high)
        for i, value in enumerate(each.values):
            colour = of_names[i] if of_names else colours[each.label]
            ax.errorbar(value, i + shift, xerr=bars[:, i : i + 1], color=colour, **style)
        shown = "#444444" if of_names else colours[each.label]
        ax.plot([], [], marker, color=shown, markersize=4.5, label=legend_label(each.label))
