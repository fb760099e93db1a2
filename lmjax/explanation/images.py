"""Images to explain: photographs, arrays and digit scenes, preprocessed for a classifier."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lmjax._utils.checks import check_choice
from lmjax.explanation.defaults import PHOTOGRAPH, SCENE
from lmjax.masking.checks import check_colours
from lmjax.models import Classifier

# In the package of scikit-image, so that nothing is fetched.
_SHIPPED = ("astronaut", "chelsea", "coffee", "rocket")


class InputImage(NamedTuple):
    """An image as the network is given it, before normalisation.

    Attributes:
      name: name of the file, "scene:N", or "array".
      pixels: float32 `[H, W, C]` in [0, 1].
      label: the true class, where known.
      object_mask: `[H, W]` bool, where known.
      sha256: hash of the file; None for a scene and an array.
    """

    name: str
    pixels: np.ndarray
    label: int | None = None
    object_mask: np.ndarray | None = None
    sha256: str | None = None


def load_image(image: str | os.PathLike | np.ndarray, classifier: Classifier) -> InputImage:
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
    if isinstance(image, str | os.PathLike):
        return _load_file(Path(image), classifier)
    return InputImage("array", classifier.preprocessing(_as_uint8(np.asarray(image))))


def _load_scene(index: int, classifier: Classifier) -> InputImage:
    from lmjax.data import DigitScenes

    scene = DigitScenes("test", length=index + 1)[index]
    return InputImage(
        name=f"{SCENE}{index}",
        pixels=classifier.preprocessing(scene.image),
        # The digit is no class of a network with other class names.
        label=scene.label if classifier.class_names == DigitScenes.class_names else None,
        object_mask=classifier.preprocessing.for_mask(scene.object_mask),
    )


def _load_photograph(image: str, classifier: Classifier) -> InputImage:
    import skimage.data

    name = check_choice("image", image.removeprefix(PHOTOGRAPH), _SHIPPED)
    return InputImage(image, classifier.preprocessing(getattr(skimage.data, name)()))


def _load_file(path: Path, classifier: Classifier) -> InputImage:
    if not path.is_file():
        raise FileNotFoundError(
            f"image {path} is not a file; give a photograph, {PHOTOGRAPH}NAME or {SCENE}N"
        )
    content = path.read_bytes()
    try:
        with Image.open(path) as photograph:
            pixels = classifier.preprocessing(photograph)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image {path} cannot be read: {error}; give a whole PNG, JPEG, WebP or other picture "
            "that Pillow reads"
        ) from error
    return InputImage(path.name, pixels, sha256=hashlib.sha256(content).hexdigest())


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
