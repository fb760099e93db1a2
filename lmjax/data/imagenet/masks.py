"""ImageNet's images with a mask file each: Pixel ImageNet, ImageNet-S and PartImageNet.

    source = from_pixel_imagenet("pixel-imagenet-v2", images="ILSVRC2012/train")
    source = from_imagenet_s("ImageNetS919", split="validation")
    source = from_part_imagenet("PartImageNet", split="val")

Examples are the images that have a mask. Their order is a hash of their names, as in folders, and
their labels are the numbers of ImageNet's networks.
"""

import os

import numpy as np

from lmjax._utils.checks import check_choice
from lmjax.data.files.examples import Files, Row, StoredFiles
from lmjax.data.files.folder import drawn, picture_names, stem
from lmjax.data.files.images import read_image
from lmjax.data.imagenet import synsets

IMAGENET_S_SPLITS = ("validation", "train-semi")
PART_IMAGENET_SPLITS = ("train", "val", "test")

_SUFFIX = ".JPEG"  # of all of ImageNet's images
_SYNSET = len("n01440764")
_PART_BACKGROUND = 158  # 0..157 are PartImageNet's classes
_OTHER, _IGNORED = 0, 1000


def from_pixel_imagenet(path: str | os.PathLike, *, images: str | os.PathLike) -> Files:
    """Opens Pixel ImageNet: objects of ImageNet's training images, segmented from their boxes.

    The layout is `PATH/n01440764/n01440764_18.png` beside `IMAGES/n01440764/n01440764_18.JPEG`. The
    object is where a mask is not 0: other values number its instances.

    Args:
      path: the folder of the masks.
      images: the folder of the training images, `ILSVRC2012/train`.

    Returns:
      A source; ids are names of images.

    Raises:
      ValueError: no mask, or one that is not named as ImageNet's images are.
      OSError: `path` cannot be read.

    References:
      Zhang et al. 2020, Interactive Object Segmentation With Inside-Outside Guidance, CVPR;
      https://github.com/shiyinzhang/Pixel-ImageNet.
    """
    return _masked(StoredFiles, "pixel-imagenet", images, path)


def from_imagenet_s(path: str | os.PathLike, *, split: str = "validation") -> Files:
    """Opens ImageNet-S: ImageNet's images with their classes segmented by people.

    The layout is `PATH/validation/n01440764/ILSVRC2012_val_00000293.JPEG` beside
    `PATH/validation-segmentation/n01440764/ILSVRC2012_val_00000293.png`. The object is all that a
    mask assigns to a class: the image's own, except in the few images that show several. Pixels
    that the annotators left open (1000) count as outside the object.

    Args:
      path: `ImageNetS919`, `ImageNetS300` or `ImageNetS50`.
      split: "validation", or "train-semi": ten training images of each class.

    Returns:
      A source; ids are names of images. Where two classes were merged, the label is that of both.

    Raises:
      ValueError: another split; no mask, or one that is not in the folder of one of ImageNet's
        classes.
      OSError: the folder of the masks cannot be read.

    References:
      Gao et al. 2022, Large-scale Unsupervised Semantic Segmentation, arXiv 2106.03149, section 3;
      https://github.com/LUSSeg/ImageNet-S.
    """
    check_choice("split", split, IMAGENET_S_SPLITS)
    images, masks = (os.path.join(path, each) for each in (split, f"{split}-segmentation"))
    return _masked(ClassNumbers, f"imagenet-s/{split}", images, masks)


def from_part_imagenet(path: str | os.PathLike, *, split: str = "val") -> Files:
    """Opens PartImageNet: whole objects in images of 158 of ImageNet's classes.

    The layout is that of PartImageNet_Seg: `PATH/images/val/n01440764_18.JPEG` beside
    `PATH/annotations/val_whole/n01440764_18.png`, whose values are classes, and 158 outside the
    object.

    Args:
      path: the folder `PartImageNet`.
      split: "train", "val" or "test". The images of all are of ImageNet's training set.

    Returns:
      A source; ids are names of images.

    Raises:
      ValueError: another split; no mask, or one that is not named as ImageNet's images are.
      OSError: the folder of the masks cannot be read.

    References:
      He et al. 2022, PartImageNet, ECCV, arXiv 2112.00933; https://github.com/TACJu/PartImageNet.
    """
    check_choice("split", split, PART_IMAGENET_SPLITS)
    images = os.path.join(path, "images", split)
    masks = os.path.join(path, "annotations", f"{split}_whole")
    rule = {"background": _PART_BACKGROUND}
    return _masked(Files, f"part-imagenet/{split}", images, masks, rule)


class ClassNumbers(Files):
    """A source whose masks are coloured by the numbers of classes, red + 256 green."""

    def _read(self, kind: str, path: str) -> np.ndarray:
        if kind != "object_mask":
            return super()._read(kind, path)
        numbers = read_image(path).astype(np.int64) @ (1, 256, 0)
        return (numbers != _OTHER) & (numbers != _IGNORED)


def _masked(
    source: type[Files],
    kind: str,
    images: str | os.PathLike,
    masks: str | os.PathLike,
    mask_rule: dict[str, int] | None = None,
) -> Files:
    """Opens all masks of a folder, each with the image of the same name."""
    numbers = {name: number for number, name in enumerate(synsets.synsets())}
    rows = []
    for name in picture_names(os.fspath(masks)):
        if name[:_SYNSET] not in numbers:
            raise ValueError(
                f"{os.path.join(masks, name)}: its name begins with none of the WordNet ids of "
                "ImageNet's classes, as n01440764"
            )
        image = stem(name) + _SUFFIX
        rows.append(Row(image, {"image": image, "object_mask": name}, numbers[name[:_SYNSET]]))
    if not rows:
        raise ValueError(f"folder {masks} holds no mask")
    rows.sort(key=lambda row: drawn(row.id))
    folders = {"image": os.path.abspath(images), "object_mask": os.path.abspath(masks)}
    return source(kind, tuple(rows), folders, synsets.synsets(), mask_rule or {})
