"""The folder of a study: its rows in Parquet shards that appear whole or not at all.

    OUT/manifest.json                             what the rows depend on
    OUT/rows-KEY/00000000-00000016.parquet        rows of images 0 to 15, their errors, the
                                                  software, device and engine that made them, and a
                                                  hash of all this, which reading compares
    OUT/rows-KEY/...

KEY is a hash of the manifest's `identity`. A shard is written under a hidden temporary name,
flushed to the disk, and then renamed: a kill at any moment loses no more than the unfinished shard.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmjax._utils import run_folder
from lmjax._utils.atomic import atomic_write
from lmjax._utils.identity import plain
from lmjax._utils.run_folder import MANIFEST, check_free, check_identity, is_temporary, write_json
from lmjax._utils.text import one_line

_ERRORS = b"errors"
_MADE_BY = b"made_by"
_SHA256 = b"sha256"
_REMEDY = "delete it and run again"
_KIND = "study"
# Of hidden files of killed runs. A file that another process is writing is seconds old.
_STALE_SECONDS = 24 * 3600


class Range(NamedTuple):
    """Images from `start` up to, not including, `stop`."""

    start: int
    stop: int


def ranges(images: int, length: int) -> list[Range]:
    """Divides all images into shards of `length`."""
    return [Range(i, min(i + length, images)) for i in range(0, images, length)]


class Results:
    """Rows of a study in a folder.

    Args:
      output: the folder.
      identity: what rows depend on, in types that JSON has.
    """

    def __init__(self, output: str | os.PathLike, identity: dict[str, Any]):
        self.output, self.identity = Path(output), plain(identity)
        canonical = json.dumps(self.identity, sort_keys=True)
        self.key = hashlib.sha256(canonical.encode()).hexdigest()[:12]
        self.folder = self.output / f"rows-{self.key}"

    def claim(self, about: dict[str, Any]) -> None:
        """Makes the folder, or checks that the rows in it depend on the same identity.

        A folder without rows, such as a run leaves that could not start, is as good as a new one.

        Args:
          about: further entries of the manifest.

        Raises:
          ValueError: the folder holds rows that depend on something else, and says what; or files
            that are not of a study.
          OSError: the folder cannot be made or written.
        """
        check_free(self.output, _KIND)
        try:
            if any(self.output.glob("rows-*/*.parquet")):
                self._check_identity("rows of something else")
            self.output.mkdir(parents=True, exist_ok=True)
            self.describe(about)
            self.folder.mkdir(exist_ok=True)
            for folder in (self.output, self.folder):
                _sweep(folder)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"output {self.output} cannot be written: {reason}") from error

    def describe(self, about: dict[str, Any]) -> None:
        """Writes the manifest.

        Of processes with more and fewer images in one folder, it is that of the last to call this.

        Args:
          about: entries besides the identity.
        """
        write_json(self.output / MANIFEST, {"identity": self.identity, **about})

    def _check_identity(self, holds: str) -> None:
        found = plain(read_manifest(self.output)["identity"])
        check_identity(self.output, found, self.identity, holds=holds)

    def path(self, images: Range) -> Path:
        """Returns the file of a shard."""
        return self.folder / f"{images.start:08}-{images.stop:08}.parquet"

    def has(self, images: Range) -> bool:
        """Returns whether a shard is finished, or a longer one of a run over more images."""
        return self._file(images) is not None

    def _file(self, images: Range) -> Path | None:
        """Returns the shortest file that holds the rows of a shard, if there is one."""
        longest = images.start + self.identity["images_per_shard"]
        ends = range(images.stop, longest + 1)
        paths = (self.path(Range(images.start, stop)) for stop in ends)
        return next(filter(Path.exists, paths), None)

    def write(
        self, images: Range, rows: list[dict], errors: list[dict], made_by: dict[str, Any]
    ) -> None:
        """Writes a shard, and removes shorter ones with which a run over fewer images ended.

        Args:
          images: of the shard.
          rows: of these images.
          errors: of images without rows.
          made_by: software, device and engine, for the record.

        Raises:
          ValueError: another run has taken the folder, before this one had rows.
          OSError: it cannot be written.
        """
        self._check_identity("another run by now")
        table = pa.Table.from_pylist(rows)
        notes = {_ERRORS: json.dumps(errors), _MADE_BY: json.dumps(made_by)}
        notes[_SHA256] = _hash(table, notes)
        try:
            with atomic_write(self.path(images)) as temporary:
                pq.write_table(table.replace_schema_metadata(notes), temporary)
            for stop in range(images.start + 1, images.stop):
                self.path(Range(images.start, stop)).unlink(missing_ok=True)
        except OSError as error:
            raise OSError(
                f"rows cannot be written to {self.folder} ({error.strerror or error}); finished "
                "shards are kept: make room and run again to go on"
            ) from error

    def read(self, shards: Sequence[Range]) -> tuple[pa.Table, list[dict]]:
        """Reads the rows and errors of those of the shards that are finished."""
        tables, errors = [], []
        for images in shards:
            if (path := self._file(images)) is not None:
                table = _shard(path)
                errors += _errors(table, images)
                if table.num_rows:
                    tables.append(_rows(table, images))
        if not tables:
            return pa.table({}), errors
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks(), errors

    def errors(self, images: Range) -> list[dict]:
        """Reads the errors of a finished shard."""
        path = self._file(images)
        return [] if path is None else _errors(_shard(path), images)

    def made_by(self, shards: Sequence[Range]) -> list[dict[str, Any]]:
        """Reads `made_by` of the finished shards, each different one once."""
        paths = filter(None, map(self._file, shards))
        notes = dict.fromkeys(_shard(path).schema.metadata[_MADE_BY] for path in paths)
        return [json.loads(each) for each in notes]


def read_manifest(output: str | os.PathLike) -> dict[str, Any]:
    """Reads the manifest of a folder.

    Raises:
      ValueError: there is none, or it is damaged; names file and field.
    """
    return run_folder.read_manifest(Path(output), _KIND)


def _rows(shard: pa.Table, images: Range) -> pa.Table:
    """Returns the rows of some images of a shard, which may be a longer one."""
    rows = shard.replace_schema_metadata(None)
    return rows.filter(pc.call_function("less", [rows.column("image"), images.stop]))


def _errors(shard: pa.Table, images: Range) -> list[dict]:
    """Returns the errors of some images of a shard, which may be a longer one."""
    found = json.loads(shard.schema.metadata[_ERRORS])
    return [error for error in found if error["image"] < images.stop]


def _shard(path: Path) -> pa.Table:
    """Reads a shard; raises ValueError where it does not hold what was written."""
    content = pa.BufferReader(path.read_bytes())
    try:
        table = pq.read_table(content)
        notes = dict(table.schema.metadata or {})
        if notes.pop(_SHA256).decode() != _hash(table, notes):
            raise ValueError("its rows are not those that were written")
    except Exception as error:  # pyarrow raises half a dozen types on damaged bytes
        raise ValueError(f"{path} is damaged ({one_line(error)}); {_REMEDY}") from error
    return table


def _hash(table: pa.Table, notes: Mapping[bytes, str | bytes]) -> str:
    """Hashes rows and notes."""
    digest = hashlib.sha256(json.dumps(table.to_pylist(), default=repr).encode())
    for name in (_ERRORS, _MADE_BY):
        note = notes[name]
        digest.update(note if isinstance(note, bytes) else note.encode())
    return digest.hexdigest()


def _sweep(folder: Path) -> None:
    """Removes temporary files of killed runs."""
    for path in filter(lambda path: is_temporary(path.name), folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # another process may be sweeping too
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
