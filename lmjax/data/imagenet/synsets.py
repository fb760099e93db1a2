"""Facts about ILSVRC 2012, the data that ImageNet networks are trained and tested on."""

import functools
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+", re.ASCII)


@functools.cache
def synsets() -> tuple[str, ...]:
    """Returns the WordNet ids of the 1000 classes, ascending as networks' outputs are."""
    return tuple((Path(__file__).parent / "synsets.txt").read_text("ascii").split())


class ImagenetClass(NamedTuple):
    """One of the 1000 classes.

    Attributes:
      index: of networks' outputs, from 0.
      synset: its WordNet id, as class folders are called.
      name: short and readable, as torchvision publishes it; no two classes have the same.
    """

    index: int
    synset: str
    name: str


@functools.cache
def imagenet_classes() -> tuple[ImagenetClass, ...]:
    """Returns the 1000 classes in the order of networks' outputs.

    Example:
      >>> lmjax.data.imagenet_classes()[207]
      ImagenetClass(index=207, synset='n02099601', name='golden retriever')
    """
    from lmjax.models.registry import class_names

    named = zip(synsets(), class_names("imagenet"), strict=True)
    return tuple(ImagenetClass(index, *each) for index, each in enumerate(named))


def validation_classes(names: Iterable[str]) -> dict[str, str]:
    """Returns the WordNet ids of validation images, by the names of ILSVRC2012_img_val.tar.

    The list is that of tensorflow-datasets, which is not imported for it.

    Args:
      names: such as "ILSVRC2012_val_00000001.JPEG".

    Returns:
      WordNet ids by name; empty unless all are names of validation images.
    """
    names = set(names)
    numbers = {name: int(m[1]) for name in names if (m := _VALIDATION_IMAGE.fullmatch(name))}
    if len(numbers) < len(names):
        return {}
    listed = _validation_list()
    if not all(0 < number <= len(listed) for number in numbers.values()):
        return {}
    return {name: listed[number - 1] for name, number in numbers.items()}


@functools.cache
def _validation_list() -> list[str]:
    spec = importlib.util.find_spec("tensorflow_datasets")
    assert spec is not None  # lmjax depends on it
    assert spec.submodule_search_locations is not None
    (package,) = spec.submodule_search_locations
    return (Path(package) / "datasets/imagenet2012/validation_labels.txt").read_text().split()
