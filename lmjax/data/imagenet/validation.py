"""ImageNet's validation images, with the labels of its networks: `imagenet:PATH[,labels=FILE]`."""

import os
from collections.abc import Mapping

from lmjax._utils.text import read_text
from lmjax.data.files.examples import Files, Row
from lmjax.data.files.folder import drawn, from_folder, picture_names, stem
from lmjax.data.files.table import read_lines
from lmjax.data.imagenet import synsets

_META = "meta.mat"


def from_imagenet(path: str | os.PathLike, *, labels: str | os.PathLike | None = None) -> Files:
    """Opens ILSVRC 2012's validation images, in class folders (n01440764) or all in one.

    Example:
      >>> source = lmjax.data.from_imagenet("ILSVRC2012_img_val")
      >>> source = lmjax.data.from_imagenet(
      ...     "ILSVRC/Data/CLS-LOC/val", labels="LOC_val_solution.csv")

    Args:
      path: the folder.
      labels: a list of the images' classes: `ILSVRC2012_validation_ground_truth.txt`, beside
        `meta.mat` of the same development kit, which has the numbers' WordNet ids; or Kaggle's
        `LOC_val_solution.csv`. By default, classes are those of the class folders, or of the
        images' original names (ILSVRC2012_val_00000001.JPEG), which this package knows.

    Returns:
      A source; ids are names below `path`, and their order is a hash of them.

    Raises:
      ValueError: images whose classes are not known; a list that cannot be used.
      OSError: the folder or a list cannot be read.

    References:
      Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge, arXiv 1409.0575.
    """
    if labels is None:
        source = from_folder(path)
        if source.class_names != synsets.synsets():
            raise ValueError(
                f"the classes of the images in {path} are not known: give folders that are called "
                "by WordNet ids (n01440764), images under their original names "
                "(ILSVRC2012_val_00000001.JPEG), or labels=FILE"
            )
        return source
    is_table = os.fspath(labels).lower().endswith(".csv")
    named = _read_kaggle(labels) if is_table else _read_ground_truth(labels)
    numbers = {synset: number for number, synset in enumerate(synsets.synsets())}
    rows = []
    for name in sorted(picture_names(os.fspath(path)), key=drawn):
        synset = named.get(stem(os.path.basename(name)))
        if synset not in numbers:
            raise ValueError(
                f"labels {labels} has none of ImageNet's classes for {os.path.join(path, name)}"
            )
        rows.append(Row(name, {"image": name}, numbers[synset]))
    if not rows:
        raise ValueError(f"folder {path} holds no image")
    return Files("imagenet", tuple(rows), {"image": os.path.abspath(path)}, synsets.synsets())


def _read_kaggle(path: str | os.PathLike) -> dict[str, str]:
    """Reads WordNet ids by names of images; each line has them before coordinates of boxes."""
    lines = read_lines(path, ("ImageId", "PredictionString"))
    return {line["ImageId"]: line["PredictionString"][: len("n01440764")] for _, line in lines}


def _read_ground_truth(path: str | os.PathLike) -> dict[str, str]:
    """Reads WordNet ids by names of images; line 1 belongs to ILSVRC2012_val_00000001."""
    lines = read_text(path, "labels").split()
    synset_of = _read_meta(os.path.join(os.path.dirname(os.path.abspath(path)), _META))
    unknown = [line for line in lines if line not in synset_of]
    if unknown:
        raise ValueError(
            f"labels {path}: no class has the number {unknown[0]!r}; give a list of numbers of "
            f"{_META}, or LOC_val_solution.csv"
        )
    return {f"ILSVRC2012_val_{i:08}": synset_of[line] for i, line in enumerate(lines, start=1)}


def _read_meta(path: str) -> Mapping[str, str]:
    """Reads WordNet ids by the development kit's numbers, which differ from those of networks."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        return {str(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets}
    except OSError as error:
        raise OSError(
            f"{path}, of the development kit (ILSVRC2012_devkit_t12), cannot be read: "
            f"{error.strerror}"
        ) from error
    except Exception as error:  # scipy raises nearly anything when a file is no .mat
        raise ValueError(f"{path} is not that of ILSVRC2012_devkit_t12: {error}") from error
