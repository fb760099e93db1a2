"""Figures of heatmaps, curves and tables: the only module that imports matplotlib."""

import colorsys
import hashlib
import os
import textwrap
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.figure import Figure

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
_OPACITY = 0.65  # of a heatmap
_BESIDE = {"ha": "right", "va": "center", "rotation": 90}
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
    """What heatmaps are drawn on.

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
        figure.colorbar(drawn, ax=axes[0].tolist(), label=label, aspect=15, alpha=_OPACITY)
        figure.suptitle(textwrap.fill(title, _letters(size[0], font * 1.2)))
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
    variants: Sequence[Shown] = (),
    view: View | None = None,
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
            figure.colorbar(drawn, ax=line.tolist(), label=label, alpha=_OPACITY)
        for heading, ax in zip(columns, axes[0, 1:]):
            ax.title.set_text(f"{heading}\n{ax.get_title()}".strip())
        for variant, line in zip(variants, axes[len(rows) :]):
            _draw_variant(line, picture, variant, letters)
        figure.suptitle(textwrap.fill(title, _letters(size[0], _SMALL_FONT * 1.2)))
    return figure


def removal_colour(name: str) -> str:
    """Returns the colour of a removal, the same in all figures and all processes.

    Args:
      name: of the removal (`lmjax.removals.names()`), also with a depth, whose colour is lighter.
        Removals of other packages have colours that follow from their names.
    """
    base, _, depth = name.partition("@")
    colour = _REMOVALS.get(base) or _own_colour(base)
    if not depth:
        return colour
    blocks = int(depth) if depth.isdecimal() else 0
    white = max(0.68 - 0.07 * blocks, 0.05)
    red, green, blue = (part * (1 - white) + white for part in to_rgb(colour))
    return to_hex((red, green, blue))


def is_emphasised(removal: str | None) -> bool:
    """Returns whether figures put a removal first, on top and in thicker lines.

    They do so with a network's own masking, through all layers.
    """
    return removal in _EMPHASISED


def _own_colour(name: str) -> str:
    """Returns a colour, neither pale nor dark, whose hue is a hash of a name."""
    hue = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
    return to_hex(colorsys.hls_to_rgb(hue, 0.42, 0.6))


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
        ax.text(*middle, _wrapped(panel.reason, 20), ha="center", va="center", color="0.25")
    else:
        scale = {"cmap": colours.cmap, "norm": colours.norm}
        ax.imshow(panel.heatmap, alpha=_OPACITY, extent=place, **scale)
    ax.set(xlim=(-0.5, under.shape[1] - 0.5), ylim=(under.shape[0] - 0.5, -0.5))
    _draw_frame(ax, picture)
    if picture.object_mask is not None:
        rows, columns = np.arange(height) + top, np.arange(width) + left
        ax.contour(columns, rows, picture.object_mask, levels=[0.5], colors=_OBJECT, linewidths=1.2)


def save(figure: Figure, file: str | os.PathLike | BinaryIO, *, format: str | None = None) -> None:
    """Writes a figure; `format` ("png", "jpg", "pdf", "svg") defaults to the suffix of a path."""
    options: dict[str, Any] = {"pil_kwargs": {"quality": 68}} if format == "jpg" else {}
    figure.savefig(file, format=format, dpi=_DPI, **options)
