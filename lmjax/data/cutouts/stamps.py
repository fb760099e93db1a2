"""Stamps: cut-outs of objects with opacity, as Debian's tuxpaint-stamps-default installs them."""

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lmjax.data.cutouts.classes import CLASSES
from lmjax.data.files.images import read_cutout
from lmjax.data.imagenet.synsets import imagenet_classes

FOLDER = "/usr/share/tuxpaint/stamps"
"""Where the package puts its stamps."""

INSTALL = "apt-get install tuxpaint-stamps-default"

_FAINTEST = 16  # opacity, of 255; less is haze around a cut-out
_SPECK = 0.01  # share of the cut-out's pixels; detached parts that are smaller are specks


def find(folder: str | os.PathLike | None = None) -> dict[str, str]:
    """Finds the stamps that `CLASSES` lists.

    Args:
      folder: laid out as `FOLDER` is, which None takes. Stamps that it lacks are left out.

    Returns:
      Paths by name, in an order that is drawn from the names.

    Raises:
      ValueError: no such folder, or none of the stamps in it.
    """
    root = Path(FOLDER if folder is None else folder)
    paths = {name: root / f"{name}.png" for name in CLASSES}
    found = {name: str(path) for name, path in paths.items() if path.is_file()}
    if not found:
        example = next(iter(CLASSES))
        missing = f"it has none of the {len(CLASSES)} known ones, such as {example}.png"
        raise ValueError(
            f"no stamps in {root}: {missing if root.is_dir() else 'there is no such folder'}; to "
            f"install them, run {INSTALL} (its folder is {FOLDER})"
        )
    return {name: found[name] for name in sorted(found, key=_digest)}


@functools.cache
def labels() -> Mapping[str, tuple[int, ...]]:
    """Returns the classes of `CLASSES` as the numbers of ImageNet's networks."""
    number = {each.name: each.index for each in imagenet_classes()}
    return {stamp: tuple(number[name] for name in names) for stamp, names in CLASSES.items()}


def enlarge(path: str, side: int) -> np.ndarray:
    """Returns a stamp whose longer side has a given length, by Pillow's bicubic filter.

    Haze (opacity below 16 of 255) and detached specks (below 1% of the cut-out's pixels) are made
    wholly transparent: hardly anyone sees them, and they would be part of the object's mask.

    Args:
      path: of its file.
      side: of the part that is not wholly transparent, in pixels.

    Returns:
      uint8 `[h, w, 4]`: colours, and opacity from 0 to 255.

    Raises:
      ValueError: a file that is damaged, no picture or no cut-out.
    """
    stamp = Image.fromarray(_read(path))
    scale = side / max(stamp.size)
    size = [max(1, round(scale * length)) for length in stamp.size]
    pixels = np.array(stamp.resize((size[0], size[1]), Image.Resampling.BICUBIC))
    pixels[..., 3] = _clean(pixels[..., 3])
    return pixels


@functools.lru_cache(maxsize=256)
def _read(path: str) -> np.ndarray:
    """Reads a stamp without its transparent border."""
    pixels = read_cutout(path)
    rows, columns = (np.flatnonzero(pixels[..., 3].any(axis=axis)) for axis in (1, 0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _clean(opacity: np.ndarray) -> np.ndarray:
    """Returns opacity `[h, w]` without haze and specks; see `enlarge`."""
    from scipy import ndimage

    kept = opacity >= _FAINTEST
    labelled: Any = ndimage.label(kept, np.ones((3, 3)))  # of parts, from 1
    parts = labelled[0]
    small = np.bincount(parts[kept], minlength=1) < _SPECK * kept.sum()
    return np.where(kept & ~small[parts], opacity, 0)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
