"""Tables of numbers from 0 to 1, as coloured squares."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmjax._utils.text import printable
from lmjax.plots.figures import letters_within, plain_text, wrapped

_DIVERGING = "RdBu"  # blue: above 1/2
_SHARES = "Blues"
_NOTHING = "#e6e6e6"


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


@plain_text
def matrices(
    grid: Sequence[Sequence[Matrix]], *, title: str, colour_label: str | None = None
) -> Figure:
    """Draws matrices in rows, all of one size; shorter rows stand in the middle.

    Args:
      grid: rows of matrices.
      title: of the figure.
      colour_label: beside the colour bar; None draws none.

    Returns:
      A figure, for `save`.
    """
    columns = max(map(len, grid))
    largest = grid[0][0]
    names = max(len(line) for name in largest.rows for line in _short(name).split("\n"))
    width = max(0.5 * len(largest.columns) + 0.5, 2.4)
    height = 0.5 * len(largest.rows) + 0.06 * names + 0.7
    size = (width * columns + 0.08 * names + 1.2, height * len(grid) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    cells = figure.add_gridspec(len(grid), 2 * columns)
    axes = []
    for i, row in enumerate(grid):
        before = columns - len(row)
        for j, matrix in enumerate(row):
            ax = figure.add_subplot(cells[i, before + 2 * j : before + 2 * j + 2])
            _draw_matrix(ax, matrix, width)
            if j:
                ax.set_yticklabels([])
            axes.append(ax)
    if colour_label is not None:
        figure.colorbar(axes[0].images[0], ax=axes, label=colour_label, shrink=0.8)
    figure.suptitle(wrapped(title, letters_within(size[0], 12)))
    return figure


def _draw_matrix(ax: Axes, matrix: Matrix, width: float) -> None:
    """Draws a matrix with its numbers, and a dash where there is none."""
    values = np.asarray(matrix.values, float)
    colours = colormaps[_DIVERGING if matrix.diverging else _SHARES].with_extremes(bad=_NOTHING)
    drawn = ax.imshow(values, cmap=colours, vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        known = np.isfinite(value)
        shown = f"{value:.2f}" if known else "-"
        dark = known and np.dot(drawn.cmap(value)[:3], (0.299, 0.587, 0.114)) < 0.5
        colour = "white" if dark else "black"
        ax.text(j, i, shown, ha="center", va="center", color=colour, fontsize=8)
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(matrix.columns)), [*map(_short, matrix.columns)], **slanted)
    ax.set_yticks(range(len(matrix.rows)), [*map(_short, matrix.rows)])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(wrapped(matrix.title, letters_within(width, 10)), size="medium")


def _short(name: str) -> str:
    """Returns a name in lines of at most 24 letters."""
    return textwrap.fill(printable(name), 24)
