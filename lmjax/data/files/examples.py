"""Sources whose images and masks are files."""

import dataclasses
import functools
import operator
import os
from typing import NamedTuple

import numpy as np

from lmjax.data.files.images import is_turned, read_image, read_mask, read_saliency
from lmjax.data.source import Example, check_sizes, files_version


class Row(NamedTuple):
    """An example that is not read yet.

    Attributes:
      id: id of the example.
      files: names of files by content: `image`, and where known `object_mask`, `tight_mask` and
        `saliency`.
      label: the class, where known.
    """

    id: str
    files: dict[str, str]
    label: int | None = None


@dataclasses.dataclass(frozen=True)
class Files:
    """A source whose examples are files, each read on demand.

    Attributes:
      kind: how the files were found, for `version`.
      rows: the examples.
      folders: folder of the files of each kind, `image`, `object_mask`, `tight_mask`, `saliency`.
      class_names: in the order of labels, where known.
      mask_rule: options of `lmjax.data.files.images.read_mask`.
    """

    kind: str
    rows: tuple[Row, ...] = dataclasses.field(repr=False)
    folders: dict[str, str]
    class_names: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
    mask_rule: dict[str, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def version(self) -> str:
        """Hash of names, labels, sizes and times of all files; contents are not read."""
        paths = (self.path(row, kind) for row in self.rows for kind in row.files)
        return f"{self.kind}/{files_version(paths, self.mask_rule, *self.rows)}"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[operator.index(index)]
        paths = {kind: self.path(row, kind) for kind in row.files}
        fields = {kind: self._read(kind, path) for kind, path in paths.items()}
        return check_sizes(Example(row.id, label=row.label, **fields), paths)

    def _read(self, kind: str, path: str) -> np.ndarray:
        if kind == "image":
            return read_image(path)
        if kind == "saliency":
            return read_saliency(path)
        return read_mask(path, name=None, **self.mask_rule)

    def path(self, row: Row, kind: str) -> str:
        """Returns the path of one of a row's files."""
        return os.path.join(self.folders[kind], row.files[kind])


class StoredFiles(Files):
    """A source whose masks fit the stored pixels.

    An image with an EXIF orientation is an error, since its mask would not fit the turned image.
    """

    def _read(self, kind: str, path: str) -> np.ndarray:
        pixels = super()._read(kind, path)
        if kind == "image" and is_turned(path):
            raise ValueError(f"{path} is turned by its EXIF orientation, and its masks are not")
        return pixels
