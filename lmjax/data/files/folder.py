"""Folders of images, a folder for each class: `folder:PATH[,masks=PATH][,...]`."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from lmjax.data.files.classes import number
from lmjax.data.files.examples import Files, Row
from lmjax.data.files.images import SUFFIXES, mask_rule
from lmjax.data.imagenet import synsets

_KINDS = {"masks": "object_mask", "tight_masks": "tight_mask", "saliency": "saliency"}


def from_folder(
    path: str | os.PathLike,
    *,
    masks: str | os.PathLike | None = None,
    tight_masks: str | os.PathLike | None = None,
    saliency: str | os.PathLike | None = None,
    classes: str | os.PathLike | None = None,
    background: int | str | None = None,
    at_least: int | str | None = None,
) -> Files:
    """Opens a folder with one folder of images for each class, or with images without classes.

    Example:
      >>> source = lmjax.data.from_folder("cub/images", masks="cub/segmentations", at_least=128)
      >>> source[0].id, source[0].label
      ('004.Groove_billed_Ani/Groove_Billed_Ani_0060_1519.jpg', 3)

    The order of the images is a hash of their names. So the first images are a random sample of all
    classes, the same on every machine. Validation images of ILSVRC 2012 that lie in one folder,
    under their original names, have their classes. Skipped are files without a picture's suffix,
    hidden files (.thumbnails), images beside class folders, and links to a folder above.

    Args:
      path: a folder of class folders, in which images may lie in folders again; or of images.
      masks: a folder of object masks under the same names and subfolders, with any suffix. An image
        may have none.
      tight_masks: a folder of masks of the objects without a soft edge, laid out in the same way.
      saliency: a folder of heatmaps, laid out in the same way.
      classes: a text file with the names of class folders, one a line, in the order of labels; by
        default WordNet ids have ImageNet's numbers, numbers their own, other names those of the
        alphabet (`lmjax.data.files.classes.number`).
      background: the value of masks outside the object, 0 by default; all others are on it.
      at_least: the least value on the object, instead of `background`
        (`lmjax.data.files.images.read_mask`).

    Returns:
      A source; ids are names below `path`.

    Raises:
      ValueError: no image; no mask for any image; two files for one; a class that is not listed,
        or no WordNet id among ImageNet's.
      OSError: a folder that cannot be read.
    """
    given = {"masks": masks, "tight_masks": tight_masks, "saliency": saliency}
    given = {option: each for option, each in given.items() if each is not None}
    folders = {"image": path} | {_KINDS[option]: each for option, each in given.items()}
    folders = {kind: os.path.abspath(each) for kind, each in folders.items()}
    besides = {os.path.realpath(each) for kind, each in folders.items() if kind != "image"}
    names, class_folders = _images(folders["image"], besides)
    class_of = (
        {name: name.split("/")[0] for name in names}
        if class_folders
        else synsets.validation_classes(names)
    )
    numbers, class_names = number([*class_folders, *class_of.values()], classes=classes)
    beside = {_KINDS[option]: _partners(names, folders[_KINDS[option]], option) for option in given}
    rows = tuple(
        Row(
            _text(name),
            {"image": name}
            | {kind: found[stem(name)] for kind, found in beside.items() if stem(name) in found},
            numbers[class_of[name]] if class_of else None,
        )
        for name in sorted(names, key=drawn)
    )
    names = class_names if class_of else None
    return Files("folder", rows, folders, names, mask_rule(background, at_least))


def _images(path: str, besides: set[str]) -> tuple[list[str], list[str]]:
    """Lists images below a folder, and its class folders except `besides`."""
    folders, loose = _entries(path)
    besides = besides | _above(path)
    found = {
        folder: [f"{folder}/{name}" for name in picture_names(os.path.join(path, folder))]
        for folder in folders
        if os.path.realpath(os.path.join(path, folder)) not in besides
    }
    names = [name for of_class in found.values() for name in of_class]
    if not names and not loose:
        raise ValueError(f"folder {path} holds no image ({', '.join(SUFFIXES)})")
    if not names:
        return loose, []
    for folder, of_class in found.items():
        if not of_class:
            warnings.warn(
                f"{os.path.join(path, folder)} holds no image; its class keeps its number",
                stacklevel=4,
            )
    if loose:
        warnings.warn(
            f"{path} has class folders; the {len(loose)} images beside them, such as {loose[0]}, "
            "are skipped",
            stacklevel=4,
        )
    return names, list(found)


def _above(path: str) -> set[str]:
    """Returns a folder and its parents: links to them are not classes."""
    folder = Path(path).resolve()
    return {str(each) for each in (folder, *folder.parents)}


def _entries(path: str) -> tuple[list[str], list[str]]:
    """Lists the folders in a folder, and its pictures."""
    with _open(path) as entries:
        found = sorted((each.name, _is_folder(each)) for each in entries if not _hidden(each.name))
    folders = [name for name, is_folder in found if is_folder]
    return folders, [name for name, is_folder in found if not is_folder and _is_picture(name)]


def _is_folder(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a folder, or a link to one."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def picture_names(path: str) -> Iterator[str]:
    """Lists the pictures in and below a folder, by paths relative to it, with slashes."""
    with _open(path) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    for each in entries:
        if _hidden(each.name):
            continue
        if each.is_dir(follow_symlinks=False):
            yield from (f"{each.name}/{name}" for name in picture_names(each.path))
        elif _is_picture(each.name):
            yield each.name


def _open(path: str):
    try:
        return os.scandir(path)
    except OSError as error:
        raise OSError(f"folder {path} cannot be read: {error.strerror}") from error


def _partners(names: list[str], path: str, option: str) -> dict[str, str]:
    """Finds the files of images in another folder, by the images' names without suffix."""
    found = _by_stem(picture_names(path), f"{option} {path}")
    images = _by_stem(names, f"{option} {path}: images")
    if not found.keys() & images.keys():
        raise ValueError(
            f"{option} {path} has a file for none of the {len(names)} images; the one for "
            f"{names[0]} would be {os.path.join(path, stem(names[0]))} with any of the suffixes "
            f"{', '.join(SUFFIXES)}"
        )
    return found


def _by_stem(names, what: str) -> dict[str, str]:
    found = {}
    for name in names:
        other = found.setdefault(stem(name), name)
        if other != name:
            raise ValueError(f"{what} {other} and {name} go by the same name without suffix")
    return found


def stem(name: str) -> str:
    """Returns a name without its suffix."""
    return os.path.splitext(name)[0]


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _text(name: str) -> str:
    """Returns a printable name: bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def drawn(name: str) -> bytes:
    """Hashes a name; sorting by it mixes the classes, alike on every machine."""
    return hashlib.sha256(os.fsencode(name)).digest()
