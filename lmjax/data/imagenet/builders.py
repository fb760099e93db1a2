"""ImageNet and its masks as tensorflow-datasets datasets, in array_record files.

    builder = lmjax.data.prepare_imagenet("salient_imagenet", "downloads", data_dir="datasets")
    source = lmjax.data.from_tfds("salient_imagenet", split="train", data_dir="datasets")

TensorFlow is not needed. The same examples can be read from the original files, without preparing
them, by the sources that each builder names. Importing this module imports tensorflow-datasets and
registers the builders with it.
"""

import os
from pathlib import Path

import tensorflow_datasets as tfds

from lmjax.data.files.examples import Files
from lmjax.data.imagenet.masks import from_imagenet_s, from_part_imagenet, from_pixel_imagenet
from lmjax.data.imagenet.salient import FEATURES, from_salient_imagenet
from lmjax.data.imagenet.validation import from_imagenet
from lmjax.data.tfds.building import ImagenetBuilder

_TRAIN = "ILSVRC2012/train, ImageNet's training images, with a folder for each class"


class ImagenetValidation(ImagenetBuilder):
    """ImageNet's 50,000 validation images (`lmjax.data.from_imagenet`)."""

    name = "imagenet_validation"
    HOMEPAGE = "https://image-net.org"
    CITATION = "Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge, IJCV"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put here ILSVRC2012_img_val, the images in class folders (n01440764) or all in one; and, "
        "without their original names, ILSVRC2012_validation_ground_truth.txt with meta.mat "
        "of ILSVRC2012_devkit_t12, or LOC_val_solution.csv of Kaggle."
    )

    def sources(self, folder: os.PathLike) -> dict[str, Files]:
        lists = ("ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv")
        labels = next((Path(folder, each) for each in lists if Path(folder, each).is_file()), None)
        return {"validation": from_imagenet(Path(folder, "ILSVRC2012_img_val"), labels=labels)}


class SalientImagenet(ImagenetBuilder):
    """Masks of core and spurious features of ImageNet (`lmjax.data.from_salient_imagenet`)."""

    name = "salient_imagenet"
    MASKS = ("object_mask", "saliency", "spurious_mask")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=each, description=f"Objects are {each} features.")
        for each in FEATURES
    ]
    HOMEPAGE = "https://github.com/singlasahil14/salient_imagenet"
    CITATION = (
        "Singla & Feizi 2022, Salient ImageNet: How to discover spurious features in Deep "
        "Learning?, ICLR"
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put here salient_imagenet_dataset, unpacked from its zip; "
        "mturk_results/discover_spurious_features.csv of the authors' code; and " + _TRAIN + "."
    )

    def sources(self, folder: os.PathLike) -> dict[str, Files]:
        source = from_salient_imagenet(
            Path(folder, "salient_imagenet_dataset"),
            images=Path(folder, "ILSVRC2012/train"),
            features=_config_name(self),
        )
        return {"train": source}


class PixelImagenet(ImagenetBuilder):
    """Objects of ImageNet's training images (`lmjax.data.from_pixel_imagenet`)."""

    name = "pixel_imagenet"
    MASKS = ("object_mask",)
    HOMEPAGE = "https://github.com/shiyinzhang/Pixel-ImageNet"
    CITATION = (
        "Zhang et al. 2020, Interactive Object Segmentation With Inside-Outside Guidance, CVPR"
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put here pixel-imagenet-v2, the masks, with a folder for each class; and " + _TRAIN + "."
    )

    def sources(self, folder: os.PathLike) -> dict[str, Files]:
        images = Path(folder, "ILSVRC2012/train")
        return {"train": from_pixel_imagenet(Path(folder, "pixel-imagenet-v2"), images=images)}


class ImagenetS(ImagenetBuilder):
    """ImageNet's images with their classes segmented (`lmjax.data.from_imagenet_s`)."""

    name = "imagenet_s"
    MASKS = ("object_mask",)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=each, description=f"{each} classes.")
        for each in ("919", "300", "50")
    ]
    HOMEPAGE = "https://github.com/LUSSeg/ImageNet-S"
    CITATION = "Gao et al. 2022, Large-scale Unsupervised Semantic Segmentation, TPAMI"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put here ImageNetS919 (or ImageNetS300, ImageNetS50), as the authors' "
        "data_preparation.sh makes it."
    )

    def sources(self, folder: os.PathLike) -> dict[str, Files]:
        path = Path(folder, f"ImageNetS{_config_name(self)}")
        return {
            "validation": from_imagenet_s(path, split="validation"),
            "train": from_imagenet_s(path, split="train-semi"),
        }


class PartImagenet(ImagenetBuilder):
    """Whole objects of 158 of ImageNet's classes (`lmjax.data.from_part_imagenet`)."""

    name = "part_imagenet"
    MASKS = ("object_mask",)
    HOMEPAGE = "https://github.com/TACJu/PartImageNet"
    CITATION = "He et al. 2022, PartImageNet: A Large, High-Quality Dataset of Parts, ECCV"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put here PartImageNet, unpacked from PartImageNet_Seg.zip."

    def sources(self, folder: os.PathLike) -> dict[str, Files]:
        path = Path(folder, "PartImageNet")
        splits = {"train": "train", "validation": "val", "test": "test"}
        return {name: from_part_imagenet(path, split=split) for name, split in splits.items()}


BUILDERS = {
    builder.name: builder
    for builder in (ImagenetValidation, SalientImagenet, PixelImagenet, ImagenetS, PartImagenet)
}


def prepare_imagenet(
    dataset: str,
    folder: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
) -> ImagenetBuilder:
    """Writes a dataset of ImageNet's images as array_record files, unless they are there already.

    Example:
      >>> prepare_imagenet("imagenet_s/50", "downloads")
      >>> source = lmjax.data.from_tfds("imagenet_s/50", split="validation")

    Args:
      dataset: "imagenet_validation", "salient_imagenet", "salient_imagenet/spurious",
        "pixel_imagenet", "imagenet_s" (919 classes; also "imagenet_s/300" and "imagenet_s/50") or
        "part_imagenet".
      folder: folder of the files that were downloaded by hand, or of links to them, named as in
        `BUILDERS[name].MANUAL_DOWNLOAD_INSTRUCTIONS`.
      data_dir: folder of tensorflow-datasets; its own default otherwise.

    Returns:
      The builder. ``builder.as_data_source(split)[i]`` is a dict of ``id``, ``image``, ``label``
      (of ImageNet's networks), and those of ``object_mask``, ``saliency`` and ``spurious_mask``
      that the dataset has (uint8 `[H, W, 1]`).

    Raises:
      ValueError: no such dataset; or an example that cannot be read, with its file's name. A
        dataset is prepared whole or not at all.
      OSError: a folder cannot be read or written.
    """
    name, _, config = dataset.partition("/")
    builder = BUILDERS.get(name)
    if builder is None or (config and config not in builder.builder_configs):
        known = [
            "/".join(filter(None, (each.name, chosen)))
            for each in BUILDERS.values()
            for chosen in each.builder_configs or ("",)
        ]
        raise ValueError(f"dataset must be one of {', '.join(known)}; got {dataset!r}")
    where = {} if data_dir is None else {"data_dir": os.fspath(data_dir)}
    prepared = builder(config=config or None, file_format="array_record", **where)
    prepared.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=os.fspath(folder))
    )
    return prepared


def _config_name(builder) -> str:
    """The name of a builder's configuration."""
    assert builder.builder_config is not None  # those that ask have some
    return builder.builder_config.name
