"""Cut-out scenes: photographic cut-outs on photographs, with exact masks, for ImageNet's networks.

The cut-outs are stamps of Debian's package tuxpaint-stamps-default (`lmjax.data.cutouts.stamps`).
Each scene is one of them, by default at 35 to 60% of the side that networks see, on a crop of a
photograph.

    scenes = CutoutScenes(length=500)
    scene = scenes[0]
    scene.image, scene.label, scene.classes, scene.object_mask

A scene depends on the name of its stamp, its number among the scenes of that stamp, the seed, the
size and the background alone: numbers are drawn by NumPy's PCG64, Pillow resizes in integers, and
opacity is applied in integers. So machines agree where their files and versions of Pillow do.
"""

import copy
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmjax._utils.checks import check_numbers, check_whole
from lmjax._utils.summary import brief
from lmjax.data.cutouts import backgrounds as photographs
from lmjax.data.cutouts import stamps as cutouts
from lmjax.data.imagenet.synsets import imagenet_classes
from lmjax.data.source import Scenes, files_version

SIZE = 256
"""Height and width of a scene in pixels: networks that resize to it do not change it."""

SIDES = (0.35, 0.60)
"""Range of the longer side of a cut-out, as a share of the part that networks see."""

_LEAST_SIDE = 0.05
_SMALLEST = 32
_OPAQUE = 128


@dataclass(frozen=True, eq=False)
class CutoutScene:
    """An image of an object on a background, with its ground truth.

    Attributes:
      id: "cutout_scenes/<stamp>/<number>/<seed>", where the number counts scenes of the stamp.
      image: uint8 `[size, size, 3]`.
      label: one of `classes`, the first unless the scene was selected by a network.
      object_mask: bool `[size, size]`, True on every pixel that the cut-out influenced. Elsewhere
        the image is the background, bit for bit.
      tight_mask: bool `[size, size]`, True where the cut-out is at least half opaque.
      background: uint8 `[size, size, 3]`, the image without the cut-out.
      classes: all classes that are right for the stamp, as numbers of ImageNet's networks.
      stamp: name of the cut-out.
      photograph: file name of the background, or its colour.
    """

    id: str
    image: np.ndarray
    label: int
    object_mask: np.ndarray
    tight_mask: np.ndarray
    background: np.ndarray
    classes: tuple[int, ...]
    stamp: str
    photograph: str


class CutoutScenes(Scenes[CutoutScene]):
    """A sequence of `CutoutScene`, each made on demand (in about 10 milliseconds).

    Scenes go through the stamps in turn, in an order that is drawn from their names: with S stamps,
    scene `i` is number `i // S` of stamp `i % S`. A longer sequence only adds scenes.

    Cut-outs lie within the middle 7/8 of the side: of 256 pixels, the 224 that most networks cut
    out. Scenes of one seed and size have the same cut-outs at the same places on all backgrounds.

    Args:
      length: number of scenes.
      seed: another seed has other places, sizes and backgrounds.
      size: height and width in pixels, 32 or more. Half of the stamps have less than 200 pixels,
        so that much larger scenes are blurred.
      backgrounds: "photographs", those that lmjax and scikit-image ship, and Debian's wallpapers
        where they are installed (lomiri-wallpapers-16.04, mate-backgrounds); "grey"; "white"; or a
        folder of pictures.
      sides: range from which the longer side of a cut-out is drawn, as a share of the part that
        networks see, from 0.05 to 1.
      stamps: a folder laid out as /usr/share/tuxpaint/stamps, which None takes.

    Attributes:
      stamps: names of the stamps that are there.

    Raises:
      ValueError: a negative length or seed, a size below 32, sides that are no range, no stamps, or
        no backgrounds. A stamp or photograph that is damaged raises it when a scene needs it.
    """

    def __init__(
        self,
        *,
        length: int = 500,
        seed: int = 0,
        size: int = SIZE,
        backgrounds: str | os.PathLike = photographs.PHOTOGRAPHS,
        sides: tuple[float, float] = SIDES,
        stamps: str | os.PathLike | None = None,
    ) -> None:
        self.length = check_whole("length", length, least=0)
        self.seed = check_whole("seed", seed, least=0)
        self.size = check_whole("size", size, least=_SMALLEST)
        self.backgrounds = os.fspath(backgrounds)
        self.sides = _check_sides(sides)
        self._photographs = photographs.find(backgrounds)
        self._stamps = cutouts.find(stamps)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of ImageNet's classes, in the order of labels."""
        return tuple(each.name for each in imagenet_classes())

    @property
    def stamps(self) -> tuple[str, ...]:
        """Names of the stamps, in the order of scenes."""
        return tuple(self._stamps)

    @property
    def version(self) -> str:
        """Identifies the scenes, independently of their number; a hash of the files behind them."""
        files = (*self._stamps.values(), *self._photographs.values())
        right = [(stamp, cutouts.labels()[stamp]) for stamp in self._stamps]
        kind = self.backgrounds if self.backgrounds in photographs.COLOURS else "photographs"
        digest = files_version(files, right, *self._photographs)
        sides = "" if self.sides == SIDES else f"/{self.written_sides}"
        return f"cutout_scenes/{kind}/{self.seed}/{self.size}{sides}/1/{digest}"

    @property
    def written_sides(self) -> str:
        """The range of sides as text, such as `"0.7-1"`."""
        return "-".join(repr(side).removesuffix(".0") for side in self.sides)

    def with_length(self, length: int) -> "CutoutScenes":
        """Returns the same sequence with another length."""
        other = copy.copy(self)
        other.length = check_whole("length", length, least=0)
        return other

    def __repr__(self) -> str:
        return (
            f"CutoutScenes(length={self.length}, seed={self.seed}, size={self.size}, "
            f"backgrounds={self.backgrounds!r}, sides={self.sides}, {len(self._stamps)} stamps)"
        )

    def _make(self, index: int) -> CutoutScene:
        number, which = divmod(index, len(self._stamps))
        stamp = self.stamps[which]
        rng = _generator(stamp, number, self.seed)
        cutout, corner = _place(self._stamps[stamp], rng, self.size, self.sides)
        photograph, background = self._background(rng)
        image, opacity = _paste(cutout, corner, background)
        right = cutouts.labels()[stamp]
        return CutoutScene(
            id=f"cutout_scenes/{stamp}/{number}/{self.seed}",
            image=image,
            label=right[0],
            object_mask=opacity > 0,
            tight_mask=opacity >= _OPAQUE,
            background=background,
            classes=right,
            stamp=stamp,
            photograph=photograph,
        )

    def _background(self, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        if self.backgrounds in photographs.COLOURS:
            level = photographs.COLOURS[self.backgrounds]
            return self.backgrounds, np.full((self.size, self.size, 3), level, np.uint8)
        name = tuple(self._photographs)[rng.integers(len(self._photographs))]
        return name, photographs.crop(self._photographs[name], rng, self.size)


def _generator(stamp: str, number: int, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(stamp.encode()).digest()
    key = int.from_bytes(digest[:8], "big"), number, seed
    return np.random.Generator(np.random.PCG64(key))


def _check_sides(sides: Sequence[float]) -> tuple[float, float]:
    found = check_numbers("sides", sides)
    if found.shape != (2,) or not _LEAST_SIDE <= found[0] <= found[1] <= 1:
        raise ValueError(
            f"sides must be two shares from {_LEAST_SIDE} to 1, the lower first; got {brief(sides)}"
        )
    return float(found[0]), float(found[1])


def _place(
    path: str, rng: np.random.Generator, size: int, sides: tuple[float, float]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Draws the size and the place of a cut-out; returns its pixels and its row and column."""
    seen = size * 7 // 8
    cutout = cutouts.enlarge(path, round(rng.uniform(*sides) * seen))
    margin = (size - seen) // 2
    top, left = (margin + int(rng.integers(seen - length + 1)) for length in cutout.shape[:2])
    return cutout, (top, left)


def _paste(
    cutout: np.ndarray, corner: tuple[int, int], background: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image, and the opacity of the cut-out, uint8 `[H, W]`.

    Blends in integers, rounding to nearest: opacity 0 leaves the background bit for bit.
    """
    (top, left), (height, width) = corner, cutout.shape[:2]
    box = slice(top, top + height), slice(left, left + width)
    image, opacity = background.copy(), np.zeros(background.shape[:2], np.uint8)
    opacity[box] = cutout[..., 3]
    over, share = cutout[..., :3].astype(np.int32), cutout[..., 3:].astype(np.int32)
    image[box] = (over * share + image[box] * (255 - share) + 127) // 255
    return image, opacity
