"""Records of TFRecord files by their number, without TensorFlow.

The format has no index. But each record starts with its length, so one pass over the lengths finds
all records, at a few microseconds each.
"""

import bisect
import itertools
import os
import struct
from collections.abc import Sequence

_HEADER = struct.Struct("<QI")  # length, its checksum
_FOOTER = 4  # checksum of the record


class TfrecordFiles:
    """The records of TFRecord files, read on demand; checksums are ignored.

    Args:
      paths: paths of the files.
      lengths: number of records in each.
    """

    def __init__(self, paths: Sequence[str | os.PathLike], lengths: Sequence[int]):
        self._paths, self._lengths = list(paths), list(lengths)
        self._ends = list(itertools.accumulate(lengths))
        self._places = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        """Returns record `index`, from 0.

        Raises:
          ValueError: a file with a different number of records.
          OSError: a file that cannot be read.
        """
        number = bisect.bisect_right(self._ends, index)
        if number not in self._places:
            self._places[number] = self._find(number)
        first = self._ends[number] - self._lengths[number]
        start, length = self._places[number][index - first]
        with open(self._paths[number], "rb") as file:
            file.seek(start)
            return file.read(length)

    def _find(self, number: int) -> list[tuple[int, int]]:
        """Finds where each record of a file starts, and its length."""
        path, places = self._paths[number], []
        size = os.path.getsize(path)
        with open(path, "rb", buffering=0) as file:
            end = 0
            while end + _HEADER.size < size:
                file.seek(end)
                length, _ = _HEADER.unpack(file.read(_HEADER.size))
                places.append((end + _HEADER.size, length))
                end += _HEADER.size + length + _FOOTER
        if end != size or len(places) != self._lengths[number]:
            raise ValueError(
                f"{path} does not hold {self._lengths[number]} whole records, as its dataset says; "
                "it is damaged or incomplete"
            )
        return places
