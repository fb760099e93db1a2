"""Images to explain: photographs, arrays and digit scenes, preprocessed for a classifier."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL.Image import Image

from lmjax._utils.checks import check_choice
from lmjax._utils.photographs import find
from lmjax.data.files.images import read_image
from lmjax.explanation.defaults import PHOTOGRAPH, SCENE
from lmjax.masking.checks import check_colours
from lmjax.models import Classifier
from lmjax.removals.held_out import image_hash

_SHIPPED = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "china": "china.jpg",
    "flower": "flower.jpg",
    "hopper": "grace_hopper.jpg",
}


class InputImage(NamedTuple):
    """An image as the network is given it, before normalisation.

    Attributes:
      name: name of the file, "photograph:NAME", "scene:N", or "array".
      pixels: float32 `[H, W, C]` in [0, 1].
      label: the true class, where known.
      object_mask: `[H, W]` bool, where known.
      sha256: hash of the file; None for a scene and an array.
      hash: of the pixels before preprocessing, as files of removals know them.
      photograph: `[h, w, C]`, the whole photograph, resized like `pixels`; None where these are the
        whole.
      corner: row and column of `pixels` in it.
    """

    name: str
    pixels: np.ndarray
    label: int | None = None
    object_mask: np.ndarray | None = None
    sha256: str | None = None
    hash: str = ""
    photograph: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)


def load_image(image: str | os.PathLike | np.ndarray | Image, classifier: Classifier) -> InputImage:
    """Loads an image and preprocesses it for a classifier.

    Args:
      image: as in `lmjax.explain`.
      classifier: its preprocessing resizes and crops; its class names tell whether a digit scene's
        label is one of its classes.

    Raises:
      ValueError: an image that cannot be read, or an array of another type or shape.
      OSError: no such file.
    """
    if isinstance(image, str) and image.startswith(SCENE):
        return _load_scene(_scene_index(image), classifier)
    if isinstance(image, str) and image.startswith(PHOTOGRAPH):
        return _load_photograph(image, classifier)
    if isinstance(image, str) and "://" in image:
        raise ValueError(f"image {image} is an address; download it, and give the file")
    if isinstance(image, str | os.PathLike):
        return _load_file(Path(image), classifier)
    if isinstance(image, Image):
        return _framed("array", read_image(image, name="image"), classifier)
    return _framed("array", _as_uint8(np.asarray(image)), classifier)


def _framed(name: str, photograph: np.ndarray, classifier: Classifier, **known: Any) -> InputImage:
    """Returns what the network sees of a photograph, and where in the whole it is."""
    preprocessing, known["hash"] = classifier.preprocessing, image_hash(photograph)
    pixels = preprocessing(photograph)
    whole = dataclasses.replace(preprocessing, crop=None)(photograph)
    more = np.subtract(whole.shape[:2], pixels.shape[:2])
    if more.min() < 0 or more.max() == 0:  # padded, or nothing is cut off
        return InputImage(name, pixels, **known)
    top, left = (round(int(each) / 2) for each in more)  # as the preprocessing crops
    return InputImage(name, pixels, photograph=whole, corner=(top, left), **known)


def _load_scene(index: int, classifier: Classifier) -> InputImage:
    from lmjax.data import DigitScenes

    scene = DigitScenes("test", length=index + 1)[index]
    return InputImage(
        name=f"{SCENE}{index}",
        pixels=classifier.preprocessing(scene.image),
        # The digit is no class of a network with other class names.
        label=scene.label if classifier.class_names == DigitScenes.class_names else None,
        object_mask=classifier.preprocessing.for_mask(scene.object_mask),
        hash=image_hash(scene.image),
    )


def _load_photograph(image: str, classifier: Classifier) -> InputImage:
    files = {f"{PHOTOGRAPH}{name}": file for name, file in _SHIPPED.items()}
    file = files[check_choice("image", image, files)]
    return _load_file(find(file), classifier)._replace(name=image)


def _load_file(path: Path, classifier: Classifier) -> InputImage:
    if path.is_dir():
        raise IsADirectoryError(f"image {path} is a folder; give its photographs: {path}/*.jpg")
    if not path.is_file():
        raise FileNotFoundError(
            f"image {path} is not a file; give a photograph, {PHOTOGRAPH}NAME or {SCENE}N"
        )
    content = path.read_bytes()
    pixels = read_image(content, name=f"image {path}")
    return _framed(path.name, pixels, classifier, sha256=hashlib.sha256(content).hexdigest())


def _as_uint8(image: np.ndarray) -> np.ndarray:
    """Returns an array of display colours in 0..255, which preprocessing takes."""
    if image.dtype.kind != "f":
        return image
    if not np.isfinite(image).all():
        raise ValueError("image holds NaN or infinity; fill them in first")
    check_colours(image)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _scene_index(image: str) -> int:
    number = image.removeprefix(SCENE)
    if not number.isdecimal():
        raise ValueError(f"image {image!r}: give a number after {SCENE}, from 0")
    return int(number)
