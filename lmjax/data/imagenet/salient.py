"""Salient ImageNet: features that robust networks use on ImageNet's images, judged by people.

    source = from_salient_imagenet("salient_imagenet_dataset", images="ILSVRC2012/train")
    source[0].object_mask, source[0].saliency, source[0].spurious_mask

For each class, the dataset takes the five features of a robust network that count most for it, and
for each feature the 65 images of the class that show it most, with a soft mask: the feature's map.
Five people said of each feature whether it is a part of the object (core), or of the background or
another object (spurious).
"""

import operator
import os
from collections.abc import Mapping

import numpy as np

from lmjax._utils.checks import check_choice
from lmjax.data.files.examples import Row, StoredFiles
from lmjax.data.files.folder import drawn
from lmjax.data.files.images import mask_rule, read_saliency
from lmjax.data.files.table import read_lines
from lmjax.data.imagenet import synsets
from lmjax.data.source import Example

FEATURES = ("core", "spurious")

_ANSWERS = "discover_spurious_features.csv"
_NAMES = "image_names_map.csv"
_COLUMNS = ("Input.class_index", "Input.feature_index", "Answer.main")
_NOT_THE_OBJECT = ("background", "separate_object")
_MAJORITY = 3  # of five people
_SUFFIX = ".JPEG"  # of images and of masks

# Masks cover what networks see: the crop of this size from the middle of the image, resized first
# so that its shorter side is that.
_CROP, _RESIZED = 224, 256
_HALF = 128  # of 255


def from_salient_imagenet(
    path: str | os.PathLike,
    *,
    images: str | os.PathLike,
    answers: str | os.PathLike | None = None,
    features: str = "core",
    at_least: int | str | None = None,
) -> "SalientImages":
    """Opens Salient ImageNet: training images with masks of their core and spurious features.

    The layout is `PATH/n01440764/feature_59/n01440764_18.JPEG`, a mask, and
    `PATH/n01440764/image_names_map.csv` with a column of names of images for each feature. A
    feature is spurious where at least three answers are `background` or `separate_object`, and core
    otherwise. Masks are the maximum over the features of their kind. They are known for a square in
    the middle of an image, and are put where it lies: nothing is marked beside it.

    Example:
      >>> source = lmjax.data.from_salient_imagenet(
      ...     "salient_imagenet_dataset", images="ILSVRC2012/train")

    Args:
      path: the folder of the masks, with a folder for each class.
      images: the folder of ImageNet's training images, with a folder for each class.
      answers: `discover_spurious_features.csv`, people's answers; by default it is looked for in
        `path`, and where the code of the authors has it, in `path/../mturk_results`.
      features: "core" or "spurious": which features `object_mask` and `saliency` are of. Examples
        are the images that are known to show at least one of them.
      at_least: the least value of soft masks, of 255, that is in a mask; 128 by default, half.

    Returns:
      A source; ids are names of images. `saliency` is the soft mask. `spurious_mask` is empty where
      the image is none of those of a spurious feature.

    Raises:
      ValueError: a table without the columns it should have; a folder of a feature without masks;
        no image.
      OSError: a folder or a table cannot be read.

    References:
      Singla & Feizi 2022, Salient ImageNet, ICLR, arXiv 2110.04301, sections 3 and 4;
      https://github.com/singlasahil14/salient_imagenet.
    """
    check_choice("features", features, FEATURES)
    judged = _judged(_find_answers(path) if answers is None else answers)
    rows = []
    for number, synset in enumerate(synsets.synsets()):
        if number in judged and os.path.isdir(os.path.join(path, synset)):
            files = _files(os.path.join(path, synset), synset, judged[number])
            rows += [
                Row(each["image"], each, number)
                for each in files.values()
                if any(kind.startswith(features) for kind in each)
            ]
    if not rows:
        raise ValueError(
            f"{path} has no folder of a class, as n01440764, with images of {features} features"
        )
    rows.sort(key=lambda row: drawn(row.id))
    folders = {"image": os.path.abspath(images), "mask": os.path.abspath(path)}
    rule = mask_rule(at_least=_HALF if at_least is None else at_least)
    kind = f"salient-imagenet/{features}"
    return SalientImages(kind, tuple(rows), folders, synsets.synsets(), rule)


class SalientImages(StoredFiles):
    """A source whose files are an image and the masks of its features (`core 59`, `spurious 7`)."""

    def __getitem__(self, index: int) -> Example:
        row = self.rows[operator.index(index)]
        image = self._read("image", self.path(row, "image"))
        core, spurious = (self._soft_mask(row, kind, image.shape[:2]) for kind in FEATURES)
        saliency = core if self.kind.endswith("core") else spurious
        least = np.float32(self.mask_rule["at_least"]) / np.float32(255)
        return Example(
            row.id,
            image,
            row.label,
            object_mask=saliency >= least,
            saliency=saliency,
            spurious_mask=spurious >= least,
        )

    def path(self, row: Row, kind: str) -> str:
        """Returns the path of one of a row's files."""
        return os.path.join(self.folders["image" if kind == "image" else "mask"], row.files[kind])

    def _soft_mask(self, row: Row, features: str, size: tuple[int, int]) -> np.ndarray:
        """Returns the maximum over the features of a kind, in the whole image: float32 `[H, W]`."""
        crop = np.zeros((_CROP, _CROP), np.float32)
        for kind in row.files:
            if kind.startswith(features):
                crop = np.maximum(crop, _read_crop(self.path(row, kind)))
        return _placed(crop, size)


def _find_answers(path: str | os.PathLike) -> str:
    places = (path, os.path.join(os.path.dirname(os.path.abspath(path)), "mturk_results"))
    for place in places:
        if os.path.isfile(os.path.join(place, _ANSWERS)):
            return os.path.join(place, _ANSWERS)
    raise ValueError(
        f"{_ANSWERS} is neither in {places[0]} nor in {places[1]}: get it from "
        "github.com/singlasahil14/salient_imagenet (mturk_results), or say answers=FILE"
    )


def _judged(path: str | os.PathLike) -> dict[int, dict[int, str]]:
    """Returns "core" or "spurious" by the numbers of class and feature."""
    votes = {}
    for at, line in read_lines(path, _COLUMNS):
        try:
            label, feature = (int(line[column]) for column in _COLUMNS[:2])
        except ValueError as error:
            raise ValueError(f"{path}, line {at}: no numbers of a class and a feature") from error
        votes.setdefault(label, {}).setdefault(feature, []).append(
            line["Answer.main"] in _NOT_THE_OBJECT
        )
    return {
        label: {
            feature: "spurious" if sum(answers) >= _MAJORITY else "core"
            for feature, answers in features.items()
        }
        for label, features in votes.items()
    }


def _files(folder: str, synset: str, features: Mapping[int, str]) -> dict[str, dict[str, str]]:
    """Lists the files of a class by image; kinds of files are `image`, `core 59`, `spurious 7`."""
    columns = {number: f"feature_{number}" for number in features}
    for name in columns.values():
        _check_masks(os.path.join(folder, name))
    files = {}
    table = os.path.join(folder, _NAMES)
    for _, line in read_lines(table, tuple(map(str, columns))):
        for number, name in columns.items():
            image = line[str(number)]
            if image:  # columns may differ in length
                files.setdefault(image, {"image": f"{synset}/{image}{_SUFFIX}"})[
                    f"{features[number]} {number}"
                ] = f"{synset}/{name}/{image}{_SUFFIX}"
    return files


def _check_masks(folder: str) -> None:
    try:
        with os.scandir(folder) as entries:
            if any(each.name.endswith(_SUFFIX) for each in entries):
                return
    except OSError as error:
        raise OSError(f"folder {folder} cannot be read: {error.strerror}") from error
    raise ValueError(f"folder {folder} holds no mask ({_SUFFIX}); is the dataset unpacked whole?")


def _read_crop(path: str) -> np.ndarray:
    mask = read_saliency(path)
    if mask.shape != (_CROP, _CROP):
        raise ValueError(
            f"{path} is {mask.shape[0]} x {mask.shape[1]} pixels; masks of Salient ImageNet are "
            f"{_CROP} x {_CROP}, the crop from the middle of the image resized to {_RESIZED}"
        )
    return mask


def _placed(crop: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Puts a crop of the resized image back into the image itself, by nearest neighbour.

    Args:
      crop: `[224, 224]`.
      size: height and width of the image.

    Returns:
      `[H, W]`, 0 outside the crop.
    """
    short = min(size)
    rows, columns = (_cells(each, int(_RESIZED * each / short)) for each in size)
    return np.pad(crop, 1).take(rows, axis=0).take(columns, axis=1)


def _cells(length: int, resized: int) -> np.ndarray:
    """Returns the cell of the crop for each pixel along a side, from 1; 0 and 225 are outside.

    Sizes and offsets are those of torchvision's Resize and CenterCrop.
    """
    first = round((resized - _CROP) / 2)
    centres = (np.arange(length) + 0.5) * resized / length
    return np.clip(np.floor(centres).astype(int) - first + 1, 0, _CROP + 1)
