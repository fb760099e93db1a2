"""The numbers that a picture's file stores, which Pillow rescales in files of unusual depths.

A mask means the numbers in its file: 3 is 3 in a PNG of two bits, in a PGM whose largest value is 3
and in a picture of 8 bits.
"""

import io
import os
import re
from typing import NamedTuple

import numpy as np
from PIL import Image

_LOSSLESS_TIFF = (
    *("raw", "packbits", "tiff_lzw", "tiff_ccitt", "group3", "group4", "tiff_deflate"),
    *("tiff_adobe_deflate", "tiff_raw_16", "tiff_thunderscan", "lzma", "zstd"),
)
_FEW_BITS = re.compile(r"L;([24])I?R?")
_HEADER = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\r\n]*)+(\d+)" + rb"(?:#[^\r\n]*[\r\n])*\s")
_HALF = 128
OPACITY = ("LA", "La", "PA", "RGBA", "RGBa")
"""Modes of Pillow that have opacity."""


class Source(NamedTuple):
    """Facts about a picture that its file alone tells.

    Attributes:
      format: Pillow's name.
      lossy: whether its compression changes numbers.
      largest: the largest number that it can store, where that is unusual.
      numbers: those of a PGM or PPM file, which Pillow rescales.
    """

    format: str
    lossy: bool
    largest: int | None
    numbers: np.ndarray | None


def source_of(picture: Image.Image, content: bytes) -> Source:
    """Returns what is known of a picture that Pillow has opened, best not loaded yet.

    Args:
      picture: the picture.
      content: of its file; empty where it is not at hand.
    """
    numbers, largest = None, _most(picture)
    if picture.format == "PPM" and (found := _read_pnm(content)) is not None:
        numbers, largest = found
    return Source(picture.format or "", _is_lossy(picture, content), largest, numbers)


def levels(picture: Image.Image, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Returns values `[H, W]`, and which pixels are opaque.

    Args:
      picture: loaded and turned.
      source: of the picture.
    """
    clear = "transparency" in picture.info or picture.mode in OPACITY
    opaque = (
        np.asarray(picture.convert("RGBA"))[..., 3] > 0
        if clear and not picture.mode.startswith("I")
        else np.ones((picture.height, picture.width), bool)
    )
    if source.numbers is not None:
        numbers = source.numbers
        return (numbers if numbers.ndim == 2 else numbers.max(axis=-1)), opaque
    if picture.mode == "1":
        return np.asarray(picture.convert("L")), opaque  # 0 and 255, as of other grey pictures
    if picture.mode == "L" and source.largest is not None:
        return np.asarray(picture) // (255 // source.largest), opaque
    if picture.mode == "P" and source.format == "GIF":
        return _of_gif(picture), opaque
    if picture.mode in ("L", "P") or picture.mode.startswith("I"):
        return np.asarray(picture), opaque
    if picture.mode == "F":
        return _whole(np.asarray(picture)), opaque
    pixels = picture.convert("RGBA" if clear else "RGB")  # straight to RGB, Pillow may warn
    return np.asarray(pixels)[..., :3].max(axis=-1), opaque


def _of_gif(picture: Image.Image) -> np.ndarray:
    """Returns greys where there are no colours, else indices: writers of GIF number greys anew."""
    indices = np.asarray(picture)
    colours = palette(picture)
    greys = (colours == colours[:, :1]).all(axis=1)
    return colours[indices, 0] if greys[np.unique(indices)].all() else indices


def palette(picture: Image.Image) -> np.ndarray:
    """Returns the colours of a palette, `[256, 3]`; those that it lacks are black."""
    table = np.zeros(768, np.uint8)
    given = picture.getpalette("RGB") or []
    table[: len(given)] = given
    return table.reshape(256, 3)


def _whole(values: np.ndarray) -> np.ndarray:
    """Returns the values of a mask, which are whole numbers."""
    wrong = values[np.rint(values) != values]  # NaN too
    if wrong.size:
        raise ValueError(f"a mask holds whole numbers, and it holds {wrong[0]:g}")
    return values


def _is_lossy(picture: Image.Image, content: bytes) -> bool:
    """Returns whether a picture's compression changes its numbers.

    Args:
      picture: as Pillow opened it.
      content: of its file; empty where it is not at hand.
    """
    if picture.format == "WEBP":
        return not content or b"VP8 " in content
    if picture.format == "TIFF":
        return picture.info.get("compression", "raw") not in _LOSSLESS_TIFF
    return picture.format in ("JPEG", "MPO")


def in_halves(values: np.ndarray) -> np.ndarray:
    """Returns which values of a lossy picture are above half of 255.

    Args:
      values: of any shape, 0 to 255.

    Raises:
      ValueError: values that are not clearly black or white, as of masks with numbers of classes.
    """
    between = np.mean((values > _HALF / 2) & (values < 255 - _HALF / 2))
    if 0 < values.max(initial=0) < _HALF or between > 0.1:
        raise ValueError(
            "its compression blurs values, and they are not just black and white; save masks as "
            "PNG, or say at_least"
        )
    return values >= _HALF


def _most(picture: Image.Image) -> int | None:
    """Returns the largest number that a picture of 2 or 4 bits can store; None for others.

    Args:
      picture: as Pillow opened it, not loaded yet.
    """
    for tile in getattr(picture, "tile", ()):
        raw = tile.args if isinstance(tile.args, str) else tile.args[0]
        if few := _FEW_BITS.fullmatch(str(raw)):
            return 2 ** int(few[1]) - 1
    return None


def _read_pnm(content: bytes) -> tuple[np.ndarray, int] | None:
    """Reads the numbers of a PGM or PPM file, and the largest that it may store.

    Args:
      content: of the file.

    Returns:
      Values, uint16 `[H, W]` or `[H, W, 3]`, and the largest; None for other files.

    Raises:
      ValueError: numbers that are missing, or above the largest.
    """
    header = _HEADER.match(content)
    if header is None:
        return None
    kind, width, height, largest = map(int, header.groups())
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    if not 0 < largest < 2**16:
        raise ValueError(f"its largest value is {largest}, which must be from 1 to 65535")
    count = int(np.prod(shape))
    rest = content[header.end() :]
    if kind < 4:
        numbers = re.sub(rb"#[^\r\n]*", b"", rest).split(maxsplit=count)[:count]
        values = np.array([*map(int, numbers)], np.int64)
    else:
        dtype = np.dtype(np.uint8 if largest < 256 else ">u2")
        values = np.frombuffer(rest, dtype, min(count, len(rest) // dtype.itemsize))
    if len(values) < count:
        raise ValueError(f"it ends after {len(values)} of {count} values")
    if values.max(initial=0) > largest:
        raise ValueError(f"it holds {values.max()}, and its largest value should be {largest}")
    return values.astype(np.uint16).reshape(shape), largest


def content_of(file: str | os.PathLike | bytes) -> bytes:
    """Returns the content of a file that is given by its path or content."""
    if isinstance(file, bytes):
        return file
    with open(file, "rb") as stream:
        return stream.read()


def opened(content: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Opens a picture of one of some formats; Pillow tries no others."""
    return Image.open(io.BytesIO(content), formats=formats)
