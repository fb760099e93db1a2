"""Pictures in files, as arrays; what cannot be read reliably is an error that names the file.

    image = read_image("cat.jpg")       # uint8 [H, W, 3]
    mask = read_mask("cat.png")         # bool [H, W]
    saliency = read_saliency("map.png") # float32 [H, W]

All are turned by their EXIF orientation, as viewers display them; of animations, the first frame is
read. A picture that Pillow has opened is read as its file.
"""

import contextlib
import os
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from lmjax._utils.orientation import turn_of, turned
from lmjax.data.files.levels import (
    OPACITY,
    Source,
    content_of,
    in_halves,
    levels,
    opened,
    palette,
    source_of,
)

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pnm"),
)
"""Suffixes of files that are taken for pictures, in lower case."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are read, by Pillow's names; what a file holds counts, not its suffix."""

_KINDS = "JPEG, PNG, WebP, BMP, GIF, TIFF, PGM or PPM"

_BLURRED_BLACK = 32
File = str | os.PathLike | bytes | Image.Image


def read_image(file: File, *, name: str | None = None) -> np.ndarray:
    """Reads a picture in colours.

    Greyscale, palette and CMYK pictures become RGB. Opacity is dropped: the colours stored under
    transparent pixels show. Of the 16 bits of a PNG, the upper 8 are kept.

    Args:
      file: path, content, or a picture of Pillow.
      name: for errors; the path by default.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: a file that is damaged or no picture, or whose range of values is not known.
    """
    return _read(file, name, _colours)


def read_mask(
    file: File, *, name: str | None = None, background: int = 0, at_least: int | None = None
) -> np.ndarray:
    """Reads the mask of an object.

    Args:
      file, name: as in `read_image`.
      background: the value of pixels outside the object; all others are on it. Values are the
        numbers in the file, at any depth; those of one bit are 0 and 255. In pictures with a
        palette it is an index; in colours the largest channel counts, and transparent pixels are
        outside the object; where all others are black, these are the object. JPEG and other lossy
        compression blurs values: there, the threshold is half of 255.
      at_least: the least value on the object, instead of `background`.

    Returns:
      bool `[H, W]`, True on the object.

    Raises:
      ValueError: as in `read_image`; values that may mean one mask or another: blurred ones that
        are not black and white, numbers that the file cannot hold, parts of one, a palette whose
        order is not that of its colours.
    """

    def mask(picture: Image.Image, source: Source) -> np.ndarray:
        values, opaque = levels(picture, source)
        usual = at_least is None and background == 0
        if usual and not opaque.all() and _is_black(values[opaque], source):
            return opaque
        _check_rule(source.largest, background=background, at_least=at_least)
        if picture.mode == "P" and source.format != "GIF":
            _check_palette(picture, values, background=background, at_least=at_least)
        if source.lossy and at_least is None:
            if background:
                raise ValueError(
                    f"its compression blurs values, so background={background} cannot be told from "
                    "others; save masks as PNG, or say at_least"
                )
            return opaque & in_halves(values)
        return opaque & mask_of_values(values, background=background, at_least=at_least)

    return _read(file, name, mask, masks=True)


def mask_rule(
    background: int | str | None = None, at_least: int | str | None = None
) -> dict[str, int]:
    """Returns the options of `read_mask` that are given; numbers may be text.

    Raises:
      ValueError: not a number, or both.
    """
    given = {"background": background, "at_least": at_least}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if not str(value).isdecimal():
            raise ValueError(f"{name} must be a number from 0, got {value!r}")
    rule = {name: int(value) for name, value in given.items()}
    _check_one_rule(rule.get("background", 0), rule.get("at_least"))
    return rule


def mask_of_values(
    values: np.ndarray, *, background: int = 0, at_least: int | None = None
) -> np.ndarray:
    """Returns which values are on the object, as bool.

    Args:
      values: array of any shape.
      background, at_least: as in `read_mask`.

    Raises:
      ValueError: numbers that the type of the values cannot hold, or both options.
    """
    largest = int(np.iinfo(values.dtype).max) if values.dtype.kind == "u" else None
    _check_rule(largest, background=background, at_least=at_least)
    return values != background if at_least is None else values >= at_least


def read_saliency(file: File, *, name: str | None = None) -> np.ndarray:
    """Reads a heatmap from a grey picture, white where it is highest.

    Args:
      file, name: as in `read_image`.

    Returns:
      float32 `[H, W]` in [0, 1].

    Raises:
      ValueError: as in `read_image`.
    """

    def grey(picture: Image.Image, source: Source) -> np.ndarray:
        return np.asarray(
            _eight_bits(picture, source.format).convert("L"), np.float32
        ) / np.float32(255)

    return _read(file, name, grey)


def read_cutout(file: File) -> np.ndarray:
    """Reads a picture with its opacity.

    Args:
      file: as in `read_image`.

    Returns:
      uint8 `[H, W, 4]`: red, green and blue, and opacity from 0 to 255.

    Raises:
      ValueError: as in `read_image`; a picture without opacity, or transparent all over.
    """

    def with_opacity(picture: Image.Image, source: Source) -> np.ndarray:
        if picture.mode not in OPACITY and "transparency" not in picture.info:
            raise ValueError("it has no opacity, so that its object cannot be told from the rest")
        pixels = np.asarray(picture.convert("RGBA"))
        if not pixels[..., 3].any():
            raise ValueError("it is transparent all over")
        return pixels

    return _read(file, None, with_opacity)


def is_turned(path: str | os.PathLike) -> bool:
    """Returns whether an EXIF orientation turns a picture, so that it is not read as stored."""
    with Image.open(path, formats=FORMATS) as picture:
        return turn_of(picture) is not None


def _read(
    file: File,
    name: str | None,
    use: Callable[[Image.Image, Source], np.ndarray],
    *,
    masks: bool = False,
) -> np.ndarray:
    """Opens a picture and turns it; returns `use(picture, source)`."""
    if name is None:
        name = "picture" if isinstance(file, bytes | Image.Image) else os.fspath(file)
    content = b""
    try:
        if isinstance(file, Image.Image):
            given = contextlib.nullcontext(file)  # stays open
        else:
            content = content_of(file)
            given = opened(content, FORMATS)
        with given as picture:
            _check_depth(picture, masks=masks)
            source = source_of(picture, content)
            picture.load()
            return use(turned(picture), source)
    except UnidentifiedImageError as error:
        reason = f"it is no picture of a kind that is read ({_KINDS})" if content else "it is empty"
        raise ValueError(f"{name} cannot be read: {reason}") from error
    except Exception as error:  # Pillow raises nearly anything when a file is damaged
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"{name} cannot be read: {reason}") from error


def _check_depth(picture: Image.Image, *, masks: bool) -> None:
    """Raises ValueError where Pillow would drop the lower 8 of 16 bits and they may matter.

    Of grey pictures it keeps them, so this is about colours. In PNG their range is agreed, but the
    numbers of a mask can be low.
    """
    tiles = getattr(picture, "tile", ())
    deep = any(";16" in str(tile) for tile in tiles) and picture.mode[0] != "I"
    if deep and (masks or picture.format != "PNG"):
        raise ValueError("its colours have 16 bits, of which 8 would be lost; save it with 8")


def _colours(picture: Image.Image, source: Source) -> np.ndarray:
    picture = _eight_bits(picture, source.format)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # the same colours; straight to RGB, Pillow may warn
    return np.asarray(picture.convert("RGB"))


def _eight_bits(picture: Image.Image, kind: str) -> Image.Image:
    if picture.mode != "F" and not picture.mode.startswith("I"):
        return picture
    if kind != "PNG":
        raise ValueError(
            f"its values (Pillow's mode {picture.mode}) have no agreed range; save it with 8 bits "
            "per channel"
        )
    return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))


def _is_black(values: np.ndarray, source: Source) -> bool:
    return bool((values <= (_BLURRED_BLACK if source.lossy else 0)).all())


def _check_rule(largest: int | None, *, background: int, at_least: int | None) -> None:
    """Raises ValueError where a rule asks for a number that values cannot be, or is two rules."""
    _check_one_rule(background, at_least)
    for name, value in (("background", background), ("at_least", at_least)):
        if largest is not None and value is not None and value > largest:
            remedy = "save it with 8 bits, or " if largest < 255 else ""
            raise ValueError(
                f"its values are from 0 to {largest}, so {name}={value} cannot be meant; {remedy}"
                f"give a {name} in its values"
            )


def _check_one_rule(background: int, at_least: int | None) -> None:
    if background and at_least is not None:
        raise ValueError(
            f"background={background} and at_least={at_least} both say which values of a mask are "
            "on the object; give one of them"
        )


def _check_palette(
    picture: Image.Image, values: np.ndarray, *, background: int, at_least: int | None
) -> None:
    """Raises ValueError where the order of a palette is an accident of saving.

    Then it begins with another colour than black and has black too, or holds greys that answer
    otherwise than their indices.
    """
    used = np.unique(values)
    colours = palette(picture)[used]
    if at_least is None and background == 0:
        black = np.asarray(colours.max(axis=1) == 0)
        accident = used.min(initial=1) == 0 and black[1:].any() and not black[0]
    else:
        rule = {"background": background, "at_least": at_least}
        greys = colours[:, 0]
        differ = np.any(mask_of_values(used, **rule) != mask_of_values(greys, **rule))
        accident = (greys == colours.T).all() and len(set(greys.tolist())) > 1 and differ
    if accident:
        raise ValueError(
            "its palette is in another order than its colours, so that indices do not say what is "
            "on the object; save the mask in greys, without a palette"
        )
