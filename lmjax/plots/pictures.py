"""Pictures on axes: the image, its segments, heatmaps over it, and its variants."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike

from lmjax.plots.colours import SIGNED, UNSIGNED, is_emphasised, removal_colour
from lmjax.plots.figures import own_axes, wrapped

_OBJECT = "#00b050"

_OVERSHOOT = 1e-5  # rounding of a resize in float32

OPACITY = 0.65
"""Of heatmaps over their image."""


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


def draw_image(ax: Axes, picture: Picture, letters: int) -> None:
    """Draws the image, or the whole photograph with a frame around the image."""
    shown = picture.image if picture.view is None else picture.view.photograph
    ax.imshow(_colours(shown))
    _draw_frame(ax, picture)
    ax.set_title(wrapped(picture.title, letters))


def _draw_frame(ax: Axes, picture: Picture) -> None:
    """Draws a frame around the image, where it is a part of the whole photograph."""
    if picture.view is not None:
        (top, left), (height, width) = picture.corner, picture.image.shape[:2]
        rows, columns = [top, top, top + height - 1], [left, left + width - 1, left + width - 1]
        rows, columns = [*rows, top + height - 1, top], [*columns, left, left]
        ax.plot(columns, rows, color="white", linewidth=2.4)
        ax.plot(columns, rows, color="black", linewidth=1)


def draw_segments(ax: Axes, picture: Picture) -> None:
    """Draws the image with the outlines of its segments."""
    ax.imshow(_outlined(picture.image, picture.segments))
    ax.set_title(f"{picture.segments.max() + 1} segments")


def _outlined(image: np.ndarray, segments: np.ndarray) -> np.ndarray:
    from skimage.segmentation import mark_boundaries

    return np.asarray(mark_boundaries(_colours(image), segments, color=(1, 0.9, 0)))


def draw_variant(line: np.ndarray, picture: Picture, variant: Shown, letters: int) -> None:
    """Draws which segments are hidden, and what the network is shown under each removal."""
    visible = variant.mask[..., None]
    faded = 0.75 + 0.25 * picture.image.mean(axis=-1, keepdims=True)
    line[0].imshow(_outlined(np.where(visible, picture.image, faded), picture.segments))
    line[0].set_title(wrapped(variant.title, letters))
    for ax, shown, title, removal in zip(
        line[1:], variant.pictures, variant.titles, variant.removals
    ):
        ax.imshow(_colours(_on_checks(shown)))
        ax.set_title(wrapped(title, letters))
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


def draw_heatmaps(
    axes: np.ndarray,
    picture: Picture,
    panels: Sequence[Panel],
    signed: bool,
    letters: int,
    faint: bool = False,
) -> Any:
    """Draws heatmaps over the image on one scale, and returns that, for a colour bar."""
    maps = [panel.heatmap for panel in panels if panel.heatmap is not None and not panel.reason]
    limit = _largest(*maps)
    colours = ScalarMappable(
        Normalize(-limit if signed else 0, limit), SIGNED if signed else UNSIGNED
    )
    for ax, panel in zip(axes, panels):
        _draw_heatmap(ax, picture, panel, colours, faint)
        ax.set_title(
            wrapped(panel.title, letters),
            color=removal_colour(panel.removal) if panel.removal else "black",
            weight="bold" if is_emphasised(panel.removal) else "normal",
        )
    return colours


def _largest(*maps: np.ndarray) -> float:
    """Returns the largest size of a finite value, the end of a scale; 1 where all are 0."""
    return max((np.abs(x[np.isfinite(x)]).max(initial=0) for x in maps), default=0) or 1.0


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
        ax.text(*middle, wrapped(panel.reason, 16), ha="center", va="center", color="0.25")
    else:
        scale = {"cmap": colours.cmap, "norm": colours.norm}
        ax.imshow(panel.heatmap, alpha=OPACITY, extent=place, **scale)
    ax.set(xlim=(-0.5, under.shape[1] - 0.5), ylim=(under.shape[0] - 0.5, -0.5))
    _draw_frame(ax, picture)
    if picture.object_mask is not None:
        rows, columns = np.arange(height) + top, np.arange(width) + left
        ax.contour(columns, rows, picture.object_mask, levels=[0.5], colors=_OBJECT, linewidths=1.2)


def _colours(image: np.ndarray) -> np.ndarray:
    """Returns an image `[H, W, C]` with three channels."""
    return image.repeat(3, axis=-1) if image.shape[-1] == 1 else image


def _grey(image: ArrayLike) -> np.ndarray:
    """Returns an image `[H, W, C]` as grey values `[H, W]` in [0, 1]."""
    image = np.asarray(image)
    values = image / 255 if image.dtype == np.uint8 else image
    colours = (values >= -_OVERSHOOT) & (values <= 1 + _OVERSHOOT) | np.isnan(values)
    if image.ndim != 3 or not colours.all():
        raise ValueError(
            "image must be [H, W, C] with colours in [0, 1], or uint8; got shape "
            f"{image.shape} with values from {image.min()} to {image.max()}"
        )
    return values.mean(axis=-1)


def heatmap(values: ArrayLike, *, image: ArrayLike | None = None, ax: Axes | None = None) -> Axes:
    """Draws a heatmap, over its image where that is given.

    Red is above 0 and blue below, on a scale that is symmetric about 0.

    Args:
      values: `[H, W]`.
      image: `[H, W, C]` in [0, 1], or uint8.
      ax: axes to draw on; None makes a figure.

    Raises:
      ValueError: a heatmap of another shape, an image of another size or type, or colours outside
        [0, 1].
    """
    found = np.asarray(values)
    if found.ndim != 2:
        raise ValueError(f"values must be a heatmap [H, W], got shape {found.shape}")
    if image is not None and np.shape(image)[:2] != found.shape:
        raise ValueError(
            f"image must have the heatmap's size {found.shape}, got shape {np.shape(image)}; pass "
            "it as the network sees it: classifier.preprocessing(photograph)"
        )
    ax = own_axes() if ax is None else ax
    if image is not None:
        ax.imshow(_grey(image), cmap="gray", vmin=0, vmax=1)
    limit = _largest(found)
    opacity = 1 if image is None else OPACITY
    drawn = ax.imshow(found, cmap=SIGNED, vmin=-limit, vmax=limit, alpha=opacity)
    ax.set(xticks=[], yticks=[])
    ax.get_figure(root=True).colorbar(drawn, ax=ax, fraction=0.046)  # pyright: ignore
    return ax
