"""What a source of images gives, and how what it holds is named.

A source has a length, `source[i]` is an `Example`, and `version` is a string that changes when any
of its examples may have changed: rows of studies belong to it. Sources read a file when its example
is asked for, never before, and can be pickled.
"""

import hashlib
import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Example(NamedTuple):
    """An image and what is known of it.

    Attributes:
      id: a name that no other example of the source has.
      image: uint8 `[H, W, 3]`.
      label: the class, where known.
      object_mask: bool `[H, W]`, True on the object, where known.
      tight_mask: bool `[H, W]`, the object without a soft edge, where known.
      saliency: float32 `[H, W]` in [0, 1], where people or a method look, where known.
      spurious_mask: bool `[H, W]`, True on what goes with the class and is no part of it, where
        known.
    """

    id: str
    image: np.ndarray
    label: int | None = None
    object_mask: np.ndarray | None = None
    tight_mask: np.ndarray | None = None
    saliency: np.ndarray | None = None
    spurious_mask: np.ndarray | None = None


def check_sizes(example: Example, names: dict[str, str]) -> Example:
    """The example, if its masks are of its image's size.

    Args:
      example: to be checked.
      names: of the files that fields were read from.

    Raises:
      ValueError: a mask of another size. Stretching it could put it in the wrong place: what
        belongs to a crop, or to an image that was turned, has another size too.
    """
    for field in ("object_mask", "tight_mask", "saliency", "spurious_mask"):
        mask = getattr(example, field, None)
        if mask is not None and mask.shape != example.image.shape[:2]:
            what = " ".join(filter(None, (field, names.get(field))))
            raise ValueError(
                f"{what} is {_size(mask.shape)} pixels (height x width), its image "
                f"{names.get('image', example.id)} {_size(example.image.shape[:2])}; give masks of "
                "the image as it is displayed, at its full size"
            )
    return example


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def files_version(paths: Iterable[str | os.PathLike], *parts: object) -> str:
    """A hash of the names, sizes and times of files, and of `parts`.

    Contents are not read: that would take minutes for ImageNet. Times are of the last change, in
    whole seconds, as archives keep them. A file that is not there counts as such.

    Args:
      paths: of files; names are those `parts` should tell apart, so paths are not hashed.
      parts: whatever else examples depend on.

    Returns:
      16 hexadecimal digits.
    """
    digest = hashlib.sha256(repr(parts).encode())
    for path in paths:
        try:
            status = os.stat(path)
            digest.update(f"{status.st_size} {int(status.st_mtime)}\n".encode())
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()[:16]
