"""Parts that the tensorflow-datasets builders share; TensorFlow is not needed.

Importing this module imports tensorflow-datasets.
"""

import io
import os
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lmjax.data.files.examples import Files
from lmjax.data.files.images import FORMATS, is_turned
from lmjax.data.imagenet import synsets

_PLAIN = (("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"))


def png(pixels: np.ndarray) -> io.BytesIO:
    """Encodes an image as PNG; given an array, tensorflow-datasets would call TensorFlow.

    Args:
      pixels: uint8 `[H, W, 3]` or `[H, W]`, or bool `[H, W]`, which becomes 0 and 1.
    """
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "png", compress_level=1)
    file.seek(0)
    return file


def encoded(scene: Any) -> dict[str, Any]:
    """Returns what all scenes of lmjax have, as an example of tensorflow-datasets."""
    plain = {name: getattr(scene, name) for name in ("id", "label", "photograph")}
    pixels = ("image", "object_mask", "tight_mask")
    return plain | {name: png(getattr(scene, name)) for name in pixels}


def mask_feature() -> tfds.features.Image:
    """Returns the feature of masks, and of heatmaps in 256 levels."""
    return tfds.features.Image(shape=(None, None, 1), encoding_format="png")


class ImagenetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of ImageNet's images, written from sources in their order.

    Builders define the sources of their splits (`sources`) and the masks of their examples
    (`MASKS`). Labels are the numbers of ImageNet's networks.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (tensorflow-datasets' own idiom)
    MASKS: tuple[str, ...] = ()
    HOMEPAGE: str
    CITATION: str

    def sources(self, folder: os.PathLike) -> dict[str, Files]:
        """Opens the sources of the splits, in a folder laid out as in the instructions."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=synsets.synsets()),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                features | {name: mask_feature() for name in self.MASKS}
            ),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        sources = self.sources(dl_manager.manual_dir)
        return {split: self._generate_examples(source) for split, source in sources.items()}

    def _generate_examples(self, source: Files):
        for index, row in enumerate(source.rows):
            example = source[index]
            masks = {name: png(_levels(getattr(example, name))) for name in self.MASKS}
            yield (
                index,
                {
                    "id": example.id,
                    "image": _stored(source.path(row, "image"), example.image),
                    "label": example.label,
                }
                | masks,
            )


def _levels(mask: np.ndarray) -> np.ndarray:
    return mask if mask.dtype == bool else np.round(mask * 255)


def _stored(path: str, image: np.ndarray) -> str | io.BytesIO:
    """Returns the file itself where all readers decode it alike, else its pixels as PNG."""
    with Image.open(path, formats=FORMATS) as picture:
        plain = (picture.format, picture.mode) in _PLAIN
    return path if plain and not is_turned(path) else png(image)
