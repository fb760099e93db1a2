"""Backgrounds of cut-out scenes: crops of photographs, or one colour."""

import functools
import os
from pathlib import Path

import numpy as np
from PIL import Image

from lmjax._utils import photographs
from lmjax.data.files.images import SUFFIXES, read_image

COLOURS = {"grey": 128, "white": 255}
"""Plain backgrounds, by level."""

PHOTOGRAPHS = "photographs"
KINDS = (PHOTOGRAPHS, *COLOURS)

WALLPAPERS_FOLDER = "/usr/share/backgrounds"
WALLPAPERS = (
    # lomiri-wallpapers-16.04
    "Bridge_by_Sander_Klootwijk.jpg",
    "aitzgorri_by_Aitzol_Berasategi.jpg",
    "analogpattern_by_Peter_Nerlich.jpg",
    "life_by_Aitzol_Berasategi.jpg",
    "picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "seeding_by_Clements_Engelhardt.jpg",
    "sunset_by_Aitzol_Berasategi.jpg",
    # mate-backgrounds
    "mate/nature/Aqua.jpg",
    "mate/nature/Blinds.jpg",
    "mate/nature/Dune.jpg",
    "mate/nature/FreshFlower.jpg",
    "mate/nature/Garden.jpg",
    "mate/nature/GreenMeadow.jpg",
    "mate/nature/RainDrops.jpg",
    "mate/nature/Storm.jpg",
    "mate/nature/TwoWings.jpg",
    "mate/nature/Wood.jpg",
)
"""Those of Debian's wallpapers that are photographs and show none of the classes of stamps."""

_SHIPPED = (
    *("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png"),
    *("china.jpg", "flower.jpg"),
)
_LONGEST = 1400  # photographs are reduced to it, pixels
_CROPS = (0.4, 1.0)  # side of crops, as a share of the shorter side


def find(backgrounds: str | os.PathLike = PHOTOGRAPHS) -> dict[str, str]:
    """Finds photographs.

    Args:
      backgrounds: "photographs" for those that lmjax and scikit-image ship, and Debian's wallpapers
        where they are installed; "grey" or "white" for none; or a folder of pictures.

    Returns:
      Paths by name.

    Raises:
      ValueError: something else, or a folder without pictures.
    """
    if backgrounds in COLOURS:
        return {}
    if backgrounds == PHOTOGRAPHS:
        shipped = {name: str(photographs.find(name)) for name in _SHIPPED}
        return shipped | _present(Path(WALLPAPERS_FOLDER), WALLPAPERS)
    folder = Path(backgrounds)
    if not folder.is_dir():
        raise ValueError(
            f"backgrounds must be {', '.join(KINDS)} or a folder of pictures; got "
            f"{os.fspath(backgrounds)!r}, and there is no such folder"
        )
    names = sorted(each.name for each in folder.iterdir() if each.suffix.lower() in SUFFIXES)
    if not names:
        raise ValueError(f"backgrounds {folder} has no picture ({', '.join(SUFFIXES)})")
    return _present(folder, names)


def crop(path: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws a square of a photograph and resizes it, by Pillow's Lanczos filter.

    Args:
      path: of the photograph.
      rng: draws the side, from 0.4 to 1 of the shorter one, and the place.
      size: of the result, in pixels.

    Returns:
      uint8 `[size, size, 3]`.

    Raises:
      ValueError: a file that is damaged or no picture.
    """
    photograph = Image.fromarray(_read(path))
    side = max(1, int(rng.uniform(*_CROPS) * min(photograph.size)))
    left, top = (int(rng.integers(length - side + 1)) for length in photograph.size)
    square = photograph.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def _present(folder: Path, names) -> dict[str, str]:
    return {name: str(folder / name) for name in names if (folder / name).is_file()}


@functools.lru_cache(maxsize=64)
def _read(path: str) -> np.ndarray:
    photograph = Image.fromarray(read_image(path))
    photograph.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(photograph)
