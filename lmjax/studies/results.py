"""Where rows are kept: Parquet shards that appear whole or not at all, in a folder of one study.

    OUT/manifest.json                             what the rows depend on, and what made them
    OUT/rows-KEY/00000000-00000016.parquet        rows of images 0 to 15, and their errors
    OUT/rows-KEY/...

KEY is a hash of all that rows depend on. A shard is written under a hidden temporary name, brought
to the disk, and then renamed: a kill at any moment loses no more than the shard under way.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lmjax.atomic import atomic_write

MANIFEST = "manifest.json"
_ERRORS = b"errors"


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
        self.out, self.identity = Path(out), json.loads(json.dumps(identity))
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
            found = read_manifest(self.out)["identity"]
            if found != self.identity:
                raise ValueError(
                    f"out {self.out} holds rows of something else: "
                    f"{'; '.join(_differences(found, self.identity))}; give another folder"
                )
        text = json.dumps({"identity": self.identity, **about}, indent=2) + "\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_text(text)
        except OSError as error:
            raise OSError(f"out {self.out} cannot be written: {error.strerror}") from error

    def path(self, images: Range) -> Path:
        """The shard of some images."""
        return self.folder / f"{images.start:08}-{images.stop:08}.parquet"

    def has(self, images: Range) -> bool:
        """Whether a shard is finished."""
        return self.path(images).exists()

    def write(self, images: Range, rows: list[dict], errors: list[dict]) -> None:
        """A shard: rows, and what is wrong with images that have none."""
        table = pa.Table.from_pylist(rows)
        table = table.replace_schema_metadata({_ERRORS: json.dumps(errors)})
        try:
            with atomic_write(self.path(images)) as temporary:
                pq.write_table(table, temporary)
        except OSError as error:
            raise OSError(
                f"rows cannot be written to {self.folder} ({error.strerror or error}); what was "
                "finished before is there: make room and run again to go on"
            ) from error

    def read(self, shards: Sequence[Range]) -> tuple[pa.Table, list[dict]]:
        """Rows of the finished ones of some shards, and errors."""
        return _read([self.path(images) for images in shards if self.has(images)])


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
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is damaged ({error}); delete it and run again") from error
        errors += json.loads(table.schema.metadata[_ERRORS])
        if table.num_rows:
            tables.append(table.replace_schema_metadata(None))
    if not tables:
        return pa.table({}), errors
    return pa.concat_tables(tables, promote_options="default").combine_chunks(), errors


def _differences(found, wanted, name: str = "") -> list[str]:
    """Where two manifests differ, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            text
            for key in dict.fromkeys((*found, *wanted))
            for text in _differences(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
        ]
    if found == wanted:
        return []
    return [f"{name} is {json.dumps(found)} there and {json.dumps(wanted)} here"]
