"""Tables and heatmaps as figures. The only module that imports matplotlib."""

import dataclasses
import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure

_MOST_COLUMNS = 5
_PANEL = 3.1  # inches
_COLOURS = "RdBu_r"  # blue: speaks against the class; red: speaks for it
_OBJECT = "#00b050"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One heatmap of a figure.

    Attributes:
      title: one line or two.
      heatmap: `[H, W]`.
    """

    title: str
    heatmap: np.ndarray


def explanation(
    image: np.ndarray,
    segments: np.ndarray,
    panels: Sequence[Panel],
    *,
    title: str,
    image_title: str,
    colour_label: str,
    object_mask: np.ndarray | None = None,
) -> Figure:
    """The image, its segments, and heatmaps over the image, all on one colour scale.

    Args:
      image: `[H, W, C]` in [0, 1], C 1 or 3.
      segments: `[H, W]` ints.
      panels: the heatmaps.
      title: of the figure.
      image_title: over the image.
      colour_label: beside the colour bar.
      object_mask: `[H, W]` bool, outlined in green where given.

    Returns:
      A figure, to be saved with `save`.
    """
    from skimage.segmentation import mark_boundaries

    image = image.repeat(3, axis=-1) if image.shape[-1] == 1 else image
    limit = max(np.abs(panel.heatmap).max() for panel in panels) or 1.0
    count = len(panels) + 2
    rows = -(-count // _MOST_COLUMNS)
    columns = -(-count // rows)
    aspect = image.shape[0] / image.shape[1]
    size = (_PANEL * columns + 0.8, (_PANEL * aspect + 0.7) * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()

    axes[0].imshow(image)
    axes[0].set_title(image_title)
    axes[1].imshow(mark_boundaries(image, segments, color=(1, 0.9, 0)))
    axes[1].set_title(f"{segments.max() + 1} segments")
    grey = image.mean(axis=-1)
    for ax, panel in zip(axes[2:], panels):
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1)
        drawn = ax.imshow(panel.heatmap, cmap=_COLOURS, vmin=-limit, vmax=limit, alpha=0.65)
        ax.set_title(panel.title)
    if object_mask is not None:
        for ax in axes[2:count]:
            ax.contour(object_mask, levels=[0.5], colors=_OBJECT, linewidths=1.2)
    figure.colorbar(drawn, ax=axes.tolist(), label=colour_label, shrink=0.85)
    figure.suptitle(title)
    return figure


def save(figure: Figure, file: str | os.PathLike | BinaryIO, *, format: str | None = None) -> None:
    """Writes a figure; `format` ("png", "pdf", "svg") defaults to the suffix of a path."""
    figure.savefig(file, format=format, dpi=150)
