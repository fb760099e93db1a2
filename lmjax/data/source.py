"""Sources of images: the protocol that every source follows, and the examples that they hold."""

import functools
import hashlib
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from PIL.Image import Image

from lmjax._utils.checks import check_whole
from lmjax.data.files.images import read_image, read_mask, read_saliency

S = TypeVar("S")


@runtime_checkable
class Source(Protocol):
    """A sequence of examples, which studies, training and explanations take.

    `source[i]` is a `lmjax.data.Example`, or any object or mapping with at least an `image`, uint8
    `[H, W, 3]`, and those of the other fields of `Example` that are known. Pictures of Pillow are
    read as files are: `lmjax.data.files.images`.

    A source should have an attribute `version`, a string that changes when any of its examples may
    have changed: the rows of a study and the checkpoints of a training belong to a version. It is
    optional; without it, studies warn that they cannot notice other images.

    The sources of lmjax read a file only when its example is asked for, and can be pickled.
    """

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Returns an example."""
        ...


class Example(NamedTuple):
    """An image with its ground truth, as far as it is known.

    Attributes:
      id: a name that no other example of the source has.
      image: uint8 `[H, W, 3]`.
      label: the class, where known.
      object_mask: bool `[H, W]`, True on the object, where known.
      tight_mask: bool `[H, W]`, the object without a soft edge, where known.
      saliency: float32 `[H, W]` in [0, 1], a reference heatmap (of people's attention or of
        another method), where known.
      spurious_mask: bool `[H, W]`, True on features that occur with the class without being part of
        it, where known.
    """

    id: str
    image: np.ndarray
    label: int | None = None
    object_mask: np.ndarray | None = None
    tight_mask: np.ndarray | None = None
    saliency: np.ndarray | None = None
    spurious_mask: np.ndarray | None = None


class Scenes(Generic[S]):
    """A sequence of scenes, each made when it is asked for.

    Classes of scenes define `length` and `_make`.

    Attributes:
      length: number of scenes.
    """

    length: int

    def _make(self, index: int) -> S:
        """Makes the scene of a number from 0 to `length - 1`."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> S:
        i = operator.index(index)
        if not -self.length <= i < self.length:
            raise IndexError(f"index is {i}; this {type(self).__name__} has {self.length} scenes")
        return self._make(i % self.length)

    def __iter__(self) -> Iterator[S]:
        return (self[i] for i in range(self.length))


def read_example(source: Source, index: int) -> Example:
    """Reads item `index` of a source, whose items are objects or mappings.

    Raises:
      ValueError: a mask or heatmap whose size is not its image's, a label that is no whole number;
        and the source's own errors.
    """
    item = source[index]
    get = item.get if isinstance(item, Mapping) else functools.partial(getattr, item)
    label, name = get("label", None), get("id", None)
    name = str(index if name is None else name)
    maps = {}
    for kind in ("object_mask", "tight_mask", "saliency", "spurious_mask"):
        found = get(kind, None)
        read = read_saliency if kind == "saliency" else read_mask
        maps[kind] = None if found is None else _as_array(found, read, f"{kind} of {name}")
    example = Example(
        id=name,
        image=_as_array(get("image"), read_image, f"image {name}"),
        label=None if label is None else _as_label(label, name),
        **maps,
    )
    return check_sizes(example, {})


def _as_label(label: Any, name: str) -> int:
    """Returns a label as an int; True is 1."""
    is_flag = isinstance(label, bool | np.bool_)
    return int(label) if is_flag else check_whole(f"label of {name}", label)


def _as_array(found: Any, read: Callable[..., np.ndarray], name: str) -> np.ndarray:
    """Returns a field of an example; a picture of Pillow is read as files are."""
    return read(found, name=name) if isinstance(found, Image) else np.asarray(found)


def check_sizes(example: Example, names: dict[str, str]) -> Example:
    """Returns an example once its masks are known to have the size of its image.

    Args:
      example: the example.
      names: names of the files that its fields were read from.

    Raises:
      ValueError: a mask of another size. Stretching it could put it in the wrong place: the mask of
        a crop, or of an image that was turned, has another size too.
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
    """Returns a hash of the sizes and times of files, and of `parts`.

    Contents are not read: that would take minutes for ImageNet. Times are those of the last change,
    in whole seconds, as archives keep them. A missing file is hashed as missing.

    Args:
      paths: paths of the files. They are not hashed: give names in `parts`.
      *parts: everything else that examples depend on.

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
