"""Series side by side on axes: their colours, markers, error bars and legend."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmjax.plots.colours import OTHERS, removal_colour

LABEL_WIDTH = 28  # letters, of labels in legends and beside colour bars and rows
LEAST_WIDTH = 6.0  # inches, of figures with a legend
MARKERS = "osD^vPX*"


def colours_of(series: Sequence[tuple[str, str | None]]) -> dict[str, str]:
    """Returns a colour for each label: that of its removal, or one that no removal has.

    Args:
      series: label and removal of each.
    """
    others = dict.fromkeys(label for label, removal in series if removal is None)
    colours = dict(zip(others, itertools.cycle(OTHERS)))
    return {
        label: colours[label] if removal is None else removal_colour(removal)
        for label, removal in series
    }


def shifts_of(count: int) -> np.ndarray:
    """Returns how far series stand aside, so that their error bars do not cover each other."""
    return (np.arange(count) - (count - 1) / 2) * 0.4 / max(count, 3)


def error_bars(values, low, high) -> np.ndarray:
    """Returns lengths of error bars, `[2, n]`."""
    values = np.asarray(values, float)
    return np.maximum([values - low, np.asarray(high) - values], 0)


def legend_label(name: str) -> str:
    """Returns a label for a legend: matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def legend(figure: Figure, axes: np.ndarray, *, free: Sequence[Axes] | np.ndarray = ()) -> None:
    """Puts one legend for all axes where there is room: in a free cell, or below them."""
    handles = {
        label: handle
        for ax in axes.ravel()
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    handles = dict(sorted(handles.items(), key=lambda each: _is_reference(each[1])))
    shown = list(handles.values()), [textwrap.fill(label, LABEL_WIDTH) for label in handles]
    if len(free):
        free[0].legend(*shown, loc="upper left", frameon=False)
        return
    widest = max(len(line) for label in shown[1] for line in label.split("\n"))
    fitting = int(figure.get_figwidth() / (0.085 * widest + 0.55))
    rows = -(-len(handles) // max(fitting, 1))
    figure.legend(*shown, loc="outside lower center", ncols=-(-len(handles) // rows), frameon=False)


def _is_reference(handle: Any) -> bool:
    """Returns whether a handle of a legend is that of a reference, which comes last."""
    return getattr(handle, "get_linestyle", str)() == ":"
