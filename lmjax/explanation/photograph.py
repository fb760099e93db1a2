"""Pictures to explain: photographs and digit scenes, as a network sees them."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lmjax.models import Classifier

SCENE = "scene:"
_DEFAULT_SCENE = 0


class Picture(NamedTuple):
    """An image as the network sees it.

    Attributes:
      name: file name or scene.
      image: float32 `[H, W, C]` in [0, 1].
      label: the true class, where known.
      object_mask: `[H, W]` bool, where known.
      sha256: of the file, or None for a scene.
    """

    name: str
    image: np.ndarray
    label: int | None = None
    object_mask: np.ndarray | None = None
    sha256: str | None = None


def read_picture(image: str | None, classifier: Classifier) -> Picture:
    """A photograph or a digit scene, preprocessed for a classifier; see `lmjax.explain.explain`."""
    preprocessing = classifier.preprocessing
    if image is None or str(image).startswith(SCENE):
        from lmjax.data import DigitScenes

        index = _DEFAULT_SCENE if image is None else _scene_index(str(image))
        scene = DigitScenes("test", length=index + 1)[index]
        return Picture(
            name=f"{SCENE}{index}",
            image=preprocessing(scene.image),
            # Another network has other classes: its names do not tell what the digit is.
            label=scene.label if classifier.class_names == DigitScenes.class_names else None,
            object_mask=preprocessing.for_mask(scene.object_mask),
        )
    path = Path(image)
    if not path.is_file():
        raise FileNotFoundError(
            f"image {path} is not a file; give a photograph, {SCENE}N, or nothing for {SCENE}0"
        )
    content = path.read_bytes()
    try:
        with Image.open(path) as photograph:
            pixels = preprocessing(photograph)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image {path} cannot be read: {error}; give a whole PNG, JPEG, WebP or other picture "
            "that Pillow reads"
        ) from error
    return Picture(path.name, pixels, sha256=hashlib.sha256(content).hexdigest())


def _scene_index(image: str) -> int:
    number = image.removeprefix(SCENE)
    if not number.isdecimal():
        raise ValueError(f"image {image!r}: give a number after {SCENE}, from 0")
    return int(number)
