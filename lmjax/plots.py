"""Figures of heatmaps, curves and tables: the only module that imports matplotlib."""

import base64
import colorsys
import functools
import hashlib
import html
import io
import itertools
import os
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple, ParamSpec

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator
from numpy.typing import ArrayLike

from lmjax._utils.text import printable

_Given = ParamSpec("_Given")

FORMATS = ("png", "pdf", "svg")
"""Formats of the figures of studies."""
_PANEL = 3.1  # inches
_NARROW = 1.8  # inches
_WIDEST = 15.5  # inches, all panels of a row
_SMALL_PANEL = 1.3  # inches, in grids: three columns are as wide as a page
_SMALL_FONT = 6.5  # points
_FEW_ROWS = 6  # of larger panels
_DPI = 150
_SIGNED = "RdBu_r"  # blue: evidence against the class; red: evidence for it
_UNSIGNED = "Reds"
_DIVERGING = "RdBu"  # blue: above 1/2
_SHARES = "Blues"
_OBJECT = "#00b050"
OPACITY = 0.65
"""Of heatmaps over their image."""
_BESIDE = {"ha": "right", "va": "center", "rotation": 90}
_LABEL_WIDTH = 28  # letters, of labels in legends and beside colour bars and rows
_Y_LABEL_WIDTH = 27
_LEAST_WIDTH = 6.0  # inches, of figures with a legend
_LOG_MARGIN = 2.3  # two of the ticks 1, 2, 5, 10, ... are in sight even around one point
_MOST_BARS = 16  # points of curves that have error bars
_MARKERS = "osD^vPX*"
_NOTHING = "#e6e6e6"
_REFERENCE = "#555555"
# Paints have their own colours.
_REMOVALS = {
    "layer": "#e8710a",
    "masking": "#e8710a",
    "token_dropping": "#a84300",
    "no_padding": "#d63384",
    "partial": "#9a8b00",
    "black": "#000000",
    "white": "#b8b39a",
    "grey": "#808080",
    "grey_smooth": "#5b7083",
    "image_mean": "#7a4a21",
    "segment_mean": "#b08d57",
    "blur": "#1597a5",
    "rise_blur": "#0b5566",
    "gaussian_noise": "#7b4fb5",
    "uniform_noise": "#c08fdc",
    "ring": "#f2b705",
    "harmonic": "#7cb518",
    "noisy_linear": "#2f6b3c",
    "histogram": "#f29ac0",
    "biharmonic": "#00c2a0",
    "telea": "#4b1d6f",
    "navier_stokes": "#7fb3f0",
    "samples": "#8c1c2b",
    "red": "#d62728",
    "green": "#2ca02c",
    "blue": "#2352d8",
}
_EMPHASISED = ("layer", "token_dropping", "masking")
_OTHERS = ("#1f3f66", "#c0563a", "#4f8f6f", "#8a6bb8", "#b59b3a", "#5aa3c9", "#7d3c50", "#6f6f6f")


class Panel(NamedTuple):
    """One heatmap of a figure.

    Attributes:
      title: one line or two.
      heatmap: `[H, W]`, or None where there is only a reason.
      removal: name of the removal, whose colour the title has; None for black.
      reason: why the heatmap means nothing; the panel is grey then and says so.
    """

    title: str
    heatmap: np.ndarray | None
    removal: str | None = None
    reason: str = ""


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


def _plain_text(draw: Callable[_Given, Figure]) -> Callable[_Given, Figure]:
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


class Shown(NamedTuple):
    """One variant of the image, as the network was shown it under each removal.

    Attributes:
      mask: `[H, W]` bool, False = hidden.
      title: over the mask.
      pictures: `[H, W, C]` for each column; NaN where hidden pixels are not replaced.
      titles: over the pictures.
      removals: names of the removals, whose colours the frames have.
    """

    mask: np.ndarray
    title: str
    pictures: Sequence[np.ndarray]
    titles: Sequence[str]
    removals: Sequence[str | None]


class View(NamedTuple):
    """The whole photograph, of which the network sees what is in a frame.

    Attributes:
      photograph: `[h, w, C]` in [0, 1].
      top, left: the frame's first row and column; its size is that of the image.
    """

    photograph: np.ndarray
    top: int
    left: int


class Picture(NamedTuple):
    """The picture that heatmaps are drawn on.

    Attributes:
      image: `[H, W, C]` in [0, 1], C 1 or 3, as the network is given it.
      segments: `[H, W]` ints.
      title: over the image.
      object_mask: `[H, W]` bool, outlined in green; None for no outline.
      view: draws heatmaps on the whole photograph; None draws them on the image.
    """

    image: np.ndarray
    segments: np.ndarray
    title: str
    object_mask: np.ndarray | None = None
    view: View | None = None

    @property
    def aspect(self) -> float:
        """Height by width of what is drawn."""
        drawn = self.image if self.view is None else self.view.photograph
        return drawn.shape[0] / drawn.shape[1]

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the image in what is drawn."""
        return (0, 0) if self.view is None else (self.view.top, self.view.left)


@_plain_text
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
        figure, axes = _axes(size, len(heights), columns, heights)
        letters = _letters(width, font * 1.1)
        _draw_image(axes[0, 0], picture, letters)
        if not variants:
            _draw_segments(axes[0, 1], picture)
        heatmaps = axes[0, columns - len(panels) :]
        drawn = _draw_heatmaps(heatmaps, picture, panels, signed, letters)
        for variant, line in zip(variants, axes[1:]):
            _draw_variant(line, picture, variant, letters)
        label = textwrap.fill(colour_label, _letters(height, font))
        figure.colorbar(drawn, ax=axes[0].tolist(), label=label, aspect=15, alpha=OPACITY)
        figure.suptitle(textwrap.fill(title, _letters(size[0], font * 1.2)))
        _write_note(figure, note, font)
    return figure


@_plain_text
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
    interpolation = "nearest" if image.shape[1] < width * _DPI else "auto"
    style: dict[Any, Any] = {
        **{"font.size": _SMALL_FONT, "axes.titlesize": _SMALL_FONT},
        "image.interpolation": interpolation,
    }
    with rc_context(style):
        figure, axes, (first, second) = _grid(size, len(rows), len(columns), len(variants))
        letters = _letters(width, _SMALL_FONT)
        _draw_image(first, picture, letters)
        _draw_segments(second, picture)
        for row, line in zip(rows, axes[:, 1:]):
            # The image is faint, so that small heatmaps stand out.
            drawn = _draw_heatmaps(line, picture, row.panels, row.signed, letters, faint=True)
            beside = _wrapped(row.title, _letters(height, _SMALL_FONT))
            line[0].text(-0.06, 0.5, beside, transform=line[0].transAxes, **_BESIDE)
            label = textwrap.fill(row.colour_label, _letters(height, _SMALL_FONT))
            figure.colorbar(drawn, ax=line.tolist(), label=label, alpha=OPACITY)
        for heading, ax in zip(columns, axes[0, 1:]):
            ax.title.set_text(f"{heading}\n{ax.get_title()}".strip())
        for variant, line in zip(variants, axes[len(rows) :]):
            _draw_variant(line, picture, variant, letters)
        figure.suptitle(textwrap.fill(title, _letters(size[0], _SMALL_FONT * 1.2)))
        _write_note(figure, note, _SMALL_FONT)
    return figure


def removal_colour(name: str) -> str:
    """Returns the colour of a removal, the same in all figures and all processes.

    Args:
      name: of the removal (`lmjax.removals.names()`), also with a depth, whose colour is lighter.
        Removals of other packages have colours that follow from their names.
    """
    base, _, depth = name.partition("@")
    if depth and base in ("calibrated", "samples"):  # one for each file
        return _own_colour(name)
    colour = _REMOVALS.get(base) or _own_colour(base)
    if not depth:
        return colour
    blocks = int(depth) if depth.isdecimal() else 0
    white = max(0.68 - 0.07 * blocks, 0.05)
    red, green, blue = (part * (1 - white) + white for part in to_rgb(colour))
    return to_hex((red, green, blue))


def colour_table(*, signed: bool) -> list[str]:
    """Returns the 256 colours of heatmaps, from the lowest value to the highest.

    Args:
      signed: whether values below 0 have colours of their own.
    """
    colours = colormaps[_SIGNED if signed else _UNSIGNED]
    return [to_hex(colours(i)) for i in range(256)]


def is_emphasised(removal: str | None) -> bool:
    """Returns whether figures put a removal first, on top and in thicker lines.

    They do so with a network's own masking, through all layers.
    """
    return removal in _EMPHASISED


def _own_colour(name: str) -> str:
    """Returns a colour, neither pale nor dark, whose hue is a hash of a name."""
    hue = int(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16) / 2**32
    return to_hex(colorsys.hls_to_rgb(hue, 0.42, 0.6))


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


@_plain_text
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
    size = (max(3.4 * columns, _LEAST_WIDTH), 2.4 * len(grid) + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    alike = all(len({chart.y_label for chart in row}) == 1 for row in grid)
    axes = figure.subplots(len(grid), columns, squeeze=False, sharey="row" if alike else False)
    colours = _colours_of([line for row in grid for chart in row for line in chart.lines])
    for i, (row, line_of_axes) in enumerate(zip(grid, axes)):
        for j, (chart, ax) in enumerate(zip(row, line_of_axes)):
            _draw_chart(ax, chart, colours)
            below = grid[i + 1][j] if i + 1 < len(grid) and j < len(grid[i + 1]) else None
            if not (below and below.x_label == chart.x_label):
                ax.set_xlabel(chart.x_label)
            if i == 0 or chart.title != grid[0][j].title:
                ax.set_title(_wrapped(chart.title, _letters(size[0] / columns, 12)))
            if j == 0 or not alike:
                ax.set_ylabel(textwrap.fill(chart.y_label, _Y_LABEL_WIDTH))
        _from_zero(row, line_of_axes, alike)
        for ax in line_of_axes[len(row) :]:
            ax.set_axis_off()
    _legend(figure, axes, free=axes[-1, len(grid[-1]) :])
    figure.suptitle(_wrapped(title, _letters(size[0], 12)))
    return figure


def _colours_of(lines: Sequence["Line | Dots"]) -> dict[str, str]:
    """Returns a colour for each label: that of its removal, or one that no removal has."""
    found = {}
    others = [line.label for line in lines if line.removal is None]
    others = list(dict.fromkeys(others))
    for line in lines:
        if line.removal is not None:
            found[line.label] = removal_colour(line.removal)
        else:
            found[line.label] = _OTHERS[others.index(line.label) % len(_OTHERS)]
    return found


def _draw_chart(ax: Axes, chart: Chart, colours: dict[str, str]) -> None:
    """Draws the curves of a chart and its scale."""
    ax.grid(alpha=0.3)
    if chart.doubling:
        ticks = sorted({x for line in chart.lines for x in line.x})
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.minorticks_off()
    if chart.logarithmic:
        ends = [x for line in chart.lines for x in line.x]
        ax.set_xscale("log")
        ax.set_xlim(min(ends) / _LOG_MARGIN, max(ends) * _LOG_MARGIN)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    shifts = np.zeros(len(chart.lines)) if chart.logarithmic else _shifts(len(chart.lines))
    for line, shift in zip(chart.lines, shifts):
        _draw_line(ax, line, colours[line.label], shift, chart.doubling)
    if chart.reference is not None:
        label, height = chart.reference
        ax.axhline(height, color=_REFERENCE, linestyle=":", linewidth=1.4, label=label, zorder=1)


def _draw_line(ax: Axes, line: Line, colour: str, shift: float, doubling: bool) -> None:
    """Draws a curve, its error bars moved aside by a share of the distance between points."""
    emphasised = is_emphasised(line.removal)
    style: dict[str, Any] = {"color": colour, "label": _label(line.label)}
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
        yerr=_bars(y, line.low, line.high),
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
    return _MARKERS[1 + int(depth) % (len(_MARKERS) - 1)] if depth.isdecimal() else "o"


def _shifts(count: int) -> np.ndarray:
    """Returns how far series stand aside, so that their error bars do not cover each other."""
    return (np.arange(count) - (count - 1) / 2) * 0.4 / max(count, 3)


def _bars(values, low, high) -> np.ndarray:
    """Returns lengths of error bars, `[2, n]`."""
    values = np.asarray(values, float)
    return np.maximum([values - low, np.asarray(high) - values], 0)


def _from_zero(row: Sequence[Chart], axes: np.ndarray, alike: bool) -> None:
    """Lets scales begin at 0 where no value is below it."""
    # After all curves: axes may be shared, and setting a limit fixes it.
    lowest = [min(min(line.y) for line in chart.lines) for chart in row]
    for low, ax in zip(lowest, axes):
        if (min(lowest) if alike else low) >= 0:
            ax.set_ylim(bottom=-0.03 * ax.get_ylim()[1])  # markers at 0 are whole
            if alike:
                return


def _legend(figure: Figure, axes: np.ndarray, *, free: Sequence[Axes] | np.ndarray = ()) -> None:
    """Puts one legend for all axes where there is room: in a free cell, or below them."""
    handles = {
        label: handle
        for ax in axes.ravel()
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    handles = dict(sorted(handles.items(), key=lambda each: _is_reference(each[1])))
    shown = list(handles.values()), [textwrap.fill(label, _LABEL_WIDTH) for label in handles]
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


@_plain_text
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
    size = (max(size[0], _LEAST_WIDTH), size[1])
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    colours = _colours_of([each for panel in panels for each in panel.dots])
    for panel, ax in zip(panels, axes):
        _draw_panel(ax, panel, colours)
        ax.set_title(_wrapped(panel.title, _letters(2.4, 11)), size=11)
        ax.set_xlabel(textwrap.fill(panel.x_label, 26))
    axes[0].set_yticks(
        range(len(names)), [textwrap.fill(printable(name), _LABEL_WIDTH) for name in names]
    )
    for tick, removal in zip(axes[0].get_yticklabels(), panels[0].removals or ()):
        tick.set_weight("bold" if is_emphasised(removal) else "normal")
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    if count > 1:
        _legend(figure, axes[:1])
    figure.suptitle(_wrapped(title, _letters(size[0], 12)))
    return figure


def _draw_panel(ax: Axes, panel: DotPanel, colours: dict[str, str]) -> None:
    """Draws the values of a panel, the lines of names on stripes."""
    for place in range(0, len(panel.names), 2):
        ax.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", zorder=0)
    ax.grid(alpha=0.3, axis="x")
    shifts = _shifts(len(panel.dots)) * (1.2 if len(panel.dots) > 2 else 1)
    for each, shift, marker in zip(panel.dots, shifts, itertools.cycle(_MARKERS)):
        own = each.removal is None and panel.removals is not None
        of_names = [*map(removal_colour, panel.removals)] if own and panel.removals else None
        style: dict[str, Any] = {"fmt": marker, "markersize": 4.5, "elinewidth": 1.4}
        bars = _bars(each.values, each.low, each.high)
        for i, value in enumerate(each.values):
            colour = of_names[i] if of_names else colours[each.label]
            ax.errorbar(value, i + shift, xerr=bars[:, i : i + 1], color=colour, **style)
        shown = "#444444" if of_names else colours[each.label]
        ax.plot([], [], marker, color=shown, markersize=4.5, label=_label(each.label))


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


@_plain_text
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
    figure.suptitle(_wrapped(title, _letters(size[0], 12)))
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
    ax.set_title(_wrapped(matrix.title, _letters(width, 10)), size="medium")


def _short(name: str) -> str:
    """Returns a name in lines of at most 24 letters."""
    return textwrap.fill(printable(name), 24)


def _label(name: str) -> str:
    """Returns a label for a legend: matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def _letters(inches: float, points: float) -> int:
    """Returns about how many letters of a size fit in a width."""
    return max(int(inches * 72 / (0.6 * points)), 8)


def _wrapped(text: str, letters: int) -> str:
    """Wraps each line of a text by itself."""
    return "\n".join(textwrap.fill(line, letters) for line in text.splitlines())


def _axes(
    size: tuple[float, float], rows: int, columns: int, heights: Sequence[float] | None = None
) -> tuple[Figure, np.ndarray]:
    """Returns a figure of a size in inches, and its axes `[rows, columns]`, all invisible."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for ax in axes.ravel():
        ax.set_axis_off()
    return figure, axes


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
    side = max(_NARROW, min(_PANEL, _WIDEST / columns * aspect**0.5))
    return side / aspect**0.5, side * aspect**0.5


def _colours(image: np.ndarray) -> np.ndarray:
    """Returns an image `[H, W, C]` with three channels."""
    return image.repeat(3, axis=-1) if image.shape[-1] == 1 else image


def _write_note(figure: Figure, note: str, font: float) -> None:
    """Writes at the foot of a figure, which grows by as many lines."""
    if not note:
        return
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(note, _letters(width, font * 0.9))
    figure.set_size_inches(width, height + len(lines) * font * 1.2 / 72 + 0.05)
    figure.supxlabel("\n".join(lines), fontsize=font * 0.9, color="0.35")


def _draw_image(ax: Axes, picture: Picture, letters: int) -> None:
    """Draws the image, or the whole photograph with a frame around the image."""
    shown = picture.image if picture.view is None else picture.view.photograph
    ax.imshow(_colours(shown))
    _draw_frame(ax, picture)
    ax.set_title(_wrapped(picture.title, letters))


def _draw_frame(ax: Axes, picture: Picture) -> None:
    """Draws a frame around the image, where it is a part of the whole photograph."""
    if picture.view is not None:
        (top, left), (height, width) = picture.corner, picture.image.shape[:2]
        rows, columns = [top, top, top + height - 1], [left, left + width - 1, left + width - 1]
        rows, columns = [*rows, top + height - 1, top], [*columns, left, left]
        ax.plot(columns, rows, color="white", linewidth=2.4)
        ax.plot(columns, rows, color="black", linewidth=1)


def _draw_segments(ax: Axes, picture: Picture) -> None:
    """Draws the image with the outlines of its segments."""
    ax.imshow(_outlined(picture.image, picture.segments))
    ax.set_title(f"{picture.segments.max() + 1} segments")


def _outlined(image: np.ndarray, segments: np.ndarray) -> np.ndarray:
    from skimage.segmentation import mark_boundaries

    return np.asarray(mark_boundaries(_colours(image), segments, color=(1, 0.9, 0)))


def _draw_variant(line: np.ndarray, picture: Picture, variant: Shown, letters: int) -> None:
    """Draws which segments are hidden, and what the network is shown under each removal."""
    visible = variant.mask[..., None]
    faded = 0.75 + 0.25 * picture.image.mean(axis=-1, keepdims=True)
    line[0].imshow(_outlined(np.where(visible, picture.image, faded), picture.segments))
    line[0].set_title(_wrapped(variant.title, letters))
    for ax, shown, title, removal in zip(
        line[1:], variant.pictures, variant.titles, variant.removals
    ):
        ax.imshow(_colours(_on_checks(shown)))
        ax.set_title(_wrapped(title, letters))
        ax.set_axis_on()
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(
            color=removal_colour(removal) if removal else "black",
            linewidth=2.5 if is_emphasised(removal) else 1.2,
        )


def _on_checks(picture: np.ndarray) -> np.ndarray:
    """Returns a picture with light checks where it holds NaN: nothing is there."""
    rows, columns = np.indices(picture.shape[:2]) // max(picture.shape[0] // 28, 1)
    checks = np.where((rows + columns) % 2, 0.8, 1.0)[..., None]
    return np.where(np.isnan(picture), checks, picture)


def _draw_heatmaps(
    axes: np.ndarray,
    picture: Picture,
    panels: Sequence[Panel],
    signed: bool,
    letters: int,
    faint: bool = False,
) -> Any:
    """Draws heatmaps over the image on one scale, and returns that, for a colour bar."""
    maps = [panel.heatmap for panel in panels if panel.heatmap is not None and not panel.reason]
    limit = max((np.abs(heatmap).max() for heatmap in maps), default=0) or 1.0
    colours = ScalarMappable(
        Normalize(-limit if signed else 0, limit), _SIGNED if signed else _UNSIGNED
    )
    for ax, panel in zip(axes, panels):
        _draw_heatmap(ax, picture, panel, colours, faint)
        ax.set_title(
            _wrapped(panel.title, letters),
            color=removal_colour(panel.removal) if panel.removal else "black",
            weight="bold" if is_emphasised(panel.removal) else "normal",
        )
    return colours


def _draw_heatmap(
    ax: Axes, picture: Picture, panel: Panel, colours: ScalarMappable, faint: bool
) -> None:
    """Draws one heatmap over the image, or over the whole photograph; or the reason for none."""
    (top, left), (height, width) = picture.corner, picture.image.shape[:2]
    under = picture.image if picture.view is None else 0.6 + 0.4 * picture.view.photograph
    under = np.array(under.mean(axis=-1))
    inside = picture.image.mean(axis=-1)
    under[top : top + height, left : left + width] = (1 + inside) / 2 if faint else inside
    ax.imshow(
        under if panel.heatmap is not None else np.ones_like(under), cmap="gray", vmin=0, vmax=1
    )
    place = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    if panel.reason or panel.heatmap is None:
        grey = np.full((height, width), 0.85)
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1, alpha=0.9, extent=place)
        middle = (left + width / 2, top + height / 2)
        ax.text(*middle, _wrapped(panel.reason, 16), ha="center", va="center", color="0.25")
    else:
        scale = {"cmap": colours.cmap, "norm": colours.norm}
        ax.imshow(panel.heatmap, alpha=OPACITY, extent=place, **scale)
    ax.set(xlim=(-0.5, under.shape[1] - 0.5), ylim=(under.shape[0] - 0.5, -0.5))
    _draw_frame(ax, picture)
    if picture.object_mask is not None:
        rows, columns = np.arange(height) + top, np.arange(width) + left
        ax.contour(columns, rows, picture.object_mask, levels=[0.5], colors=_OBJECT, linewidths=1.2)


def heatmap(values: ArrayLike, *, image: ArrayLike | None = None, ax: Axes | None = None) -> Axes:
    """Draws a heatmap, over its image where that is given.

    Red is above 0 and blue below, on a scale that is symmetric about 0.

    Args:
      values: `[H, W]`.
      image: `[H, W, C]` in [0, 1].
      ax: axes to draw on; None makes a figure.

    Raises:
      ValueError: a heatmap of another shape.
    """
    found = np.asarray(values)
    if found.ndim != 2:
        raise ValueError(f"values must be a heatmap [H, W], got shape {found.shape}")
    ax = _own_axes() if ax is None else ax
    if image is not None:
        ax.imshow(np.asarray(image).mean(axis=-1), cmap="gray", vmin=0, vmax=1)
    limit = float(np.nanmax(np.abs(found))) or 1.0
    opacity = 1 if image is None else OPACITY
    drawn = ax.imshow(found, cmap=_SIGNED, vmin=-limit, vmax=limit, alpha=opacity)
    ax.set(xticks=[], yticks=[])
    ax.get_figure(root=True).colorbar(drawn, ax=ax, fraction=0.046)  # pyright: ignore
    return ax


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
    ax = _own_axes() if ax is None else ax
    ax.plot(np.asarray(fractions), np.asarray(values), label=label)
    ax.set(xlabel="share of pixels", ylabel="output")
    return ax


def _own_axes() -> Axes:
    return Figure(figsize=(1.3 * _PANEL, _PANEL), layout="constrained").add_subplot()


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
        figure.savefig(file, format=format, dpi=_DPI, **options)
