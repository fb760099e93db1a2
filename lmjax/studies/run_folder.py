"""Where rows are kept: Parquet shards that appear whole or not at all, in a folder of one study.

    OUT/manifest.json                             what the rows depend on
    OUT/rows-KEY/00000000-00000016.parquet        rows of images 0 to 15, their errors,
                                                  and what software and device made them
    OUT/rows-KEY/...

KEY is a hash of the manifest's `identity`. A shard is written under a hidden temporary name,
brought to the disk, and then renamed: a kill at any moment loses no more than the shard under way.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lmjax._utils.atomic import atomic_write
from lmjax._utils.identity import differences, plain

MANIFEST = "manifest.json"
_ERRORS = b"errors"
_MADE_BY = b"made_by"
# Hidden files of killed runs. One that is being written is seconds old, whichever machine writes.
_TEMPORARIES = ".*-" + 8 * "[0-9a-f]" + ".part"
_STALE_SECONDS = 24 * 3600


class Range(NamedTuple):
    """Images from `start` up to, not including, `stop`."""

    start: int
    stop: int


def ranges(images: int, length: int) -> list[Range]:
    """All images in shards of `length`."""
    return [Range(i, min(i + length, images)) for i in range(0, images, length)]


class Results:
    """The folder of a study.

    Args:
      out: the folder.
      identity: what rows depend on, as JSON can hold it.
    """

    def __init__(self, out: str | os.PathLike, identity: dict[str, Any]):
        self.out, self.identity = Path(out), plain(identity)
        canonical = json.dumps(self.identity, sort_keys=True)
        self.key = hashlib.sha256(canonical.encode()).hexdigest()[:12]
        self.folder = self.out / f"rows-{self.key}"

    def claim(self, about: dict[str, Any]) -> None:
        """Makes the folder, or checks that its rows depend on the same.

        Args:
          about: what else the manifest records.

        Raises:
          ValueError: the folder holds rows that depend on something else; says what.
          OSError: the folder cannot be made or written.
        """
        path = self.out / MANIFEST
        if path.exists():
            found = plain(read_manifest(self.out)["identity"])
            if found != self.identity:
                raise ValueError(
                    f"out {self.out} holds rows of something else: "
                    f"{'; '.join(differences(found, self.identity))}; give another folder"
                )
        text = json.dumps({"identity": self.identity, **about}, indent=2) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_text(text)
            for folder in (self.out, self.folder):
                _sweep(folder)
        except OSError as error:
            raise OSError(f"out {self.out} cannot be written: {error.strerror}") from error

    def path(self, images: Range) -> Path:
        """The shard of some images."""
        return self.folder / f"{images.start:08}-{images.stop:08}.parquet"

    def has(self, images: Range) -> bool:
        """Whether a shard is finished."""
        return self.path(images).exists()

    def write(
        self, images: Range, rows: list[dict], errors: list[dict], made_by: dict[str, Any]
    ) -> None:
        """A shard: rows, what is wrong with images that have none, and what made it.

        It takes the place of shorter ones, which a run over fewer images has ended with.
        """
        table = pa.Table.from_pylist(rows)
        notes = {_ERRORS: json.dumps(errors), _MADE_BY: json.dumps(made_by)}
        try:
            with atomic_write(self.path(images)) as temporary:
                pq.write_table(table.replace_schema_metadata(notes), temporary)
            for stop in range(images.start + 1, images.stop):
                self.path(Range(images.start, stop)).unlink(missing_ok=True)
        except OSError as error:
            raise OSError(
                f"rows cannot be written to {self.folder} ({error.strerror or error}); what was "
                "finished before is there: make room and run again to go on"
            ) from error

    def read(self, shards: Sequence[Range]) -> tuple[pa.Table, list[dict]]:
        """Rows of the finished ones of some shards, and errors."""
        return _read([self.path(images) for images in shards if self.has(images)])

    def errors(self, images: Range) -> list[dict]:
        """Errors of a finished shard."""
        return json.loads(_notes(self.path(images))[_ERRORS])

    def made_by(self, shards: Sequence[Range]) -> list[dict[str, Any]]:
        """What made the finished ones of some shards, each once."""
        paths = (self.path(images) for images in shards if self.has(images))
        return [
            json.loads(each) for each in dict.fromkeys(_notes(path)[_MADE_BY] for path in paths)
        ]


def read_manifest(out: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    path = Path(out) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        return {"identity": manifest.pop("identity"), **manifest}
    except FileNotFoundError:
        raise ValueError(f"{out} is no folder of a study: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run again") from error


def _read(paths: Sequence[Path]) -> tuple[pa.Table, list[dict]]:
    tables, errors = [], []
    for path in paths:
        with _naming(path):
            table = pq.read_table(path)
        errors += json.loads(table.schema.metadata[_ERRORS])
        if table.num_rows:
            tables.append(table.replace_schema_metadata(None))
    if not tables:
        return pa.table({}), errors
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks(), errors


def _notes(path: Path) -> dict[bytes, bytes]:
    with _naming(path):
        return pq.read_schema(path).metadata


@contextlib.contextmanager
def _naming(path: Path):
    """Says which file is damaged."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run again") from error


def _sweep(folder: Path) -> None:
    """Removes what killed runs have left."""
    for path in folder.glob(_TEMPORARIES):
        with contextlib.suppress(FileNotFoundError):  # another process may be sweeping too
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
