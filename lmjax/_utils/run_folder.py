"""Folders of runs: whose they are, and manifests, which are checked before anything is written.

A command writes into an empty folder, or one with a manifest of its own kind (`KINDS`), and deletes
no names but those that it writes.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lmjax._utils.atomic import atomic_write
from lmjax._utils.checks import LARGEST
from lmjax._utils.identity import differences
from lmjax._utils.text import one_line

MANIFEST = "manifest.json"


class _Field(NamedTuple):
    """A condition on a field of a manifest."""

    fits: Callable[[Any], bool]
    allowed: str


def _is(kind: type, allowed: str) -> _Field:
    return _Field(lambda value: isinstance(value, kind), allowed)


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST["images"]


_TEXT, _OBJECT = _is(str, "text"), _is(dict, "an object")
_COUNT = _Field(_is_count, f"a whole number from 1 to {LARGEST['images']}")
_LIST = _Field(
    lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value),
    "a list of objects",
)
# Fields in dots; `[]` stands for each entry of a list.
_FIELDS = {
    "study": {
        "identity": _OBJECT,
        "identity.study": _TEXT,
        "identity.settings": _OBJECT,
        "identity.networks": _LIST,
        "identity.networks[].name": _TEXT,
        "identity.networks[].weights_sha256": _TEXT,
        "identity.source": _TEXT,
        "identity.lmjax": _TEXT,
        "identity.images_per_shard": _COUNT,
        "images": _COUNT,
        "settings": _OBJECT,
    },
    "training": {
        "network": _TEXT,
        "classes": _COUNT,
        "source": _TEXT,
        "settings": _OBJECT,
        "lmjax": _TEXT,
    },
}
KINDS = tuple(_FIELDS)
"""Kinds of folders that have manifests."""


def check_free(output: Path, kind: str) -> None:
    """Raises an error where a folder holds files of something else than a run of a kind.

    Hidden files do not count: no run has names that begin with a dot, but for its temporary files.

    Args:
      output: the folder, which need not exist.
      kind: one of `KINDS`.

    Raises:
      ValueError: there are files and no manifest, or the manifest is damaged, or of a run of
        something else.
      NotADirectoryError: a file.
    """
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"output {output} is a file; give a folder")
    # Names first: of two processes that start together, one writes the manifest before all else.
    names = (
        [name for name in sorted(os.listdir(output)) if name[0] != "."] if output.exists() else []
    )
    if (output / MANIFEST).exists():
        read_manifest(output, kind)
    elif names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ValueError(
            f"output {output} holds files that are not of a {kind} run: {', '.join(names[:3])}"
            f"{more}; nothing was changed. Give an empty or a new folder"
        )


def read_manifest(output: Path, kind: str) -> dict[str, Any]:
    """Reads the manifest of a folder, and checks that it has all fields of its kind.

    Args:
      output: the folder.
      kind: one of `KINDS`.

    Raises:
      ValueError: there is none, it is damaged, or of a run of something else; names file and field.
    """
    path = output / MANIFEST
    if not path.is_file():
        raise ValueError(f"{output} is no folder of a {kind}: it has no {MANIFEST}")
    remedy = "restore it, or delete the folder to start anew"
    with naming_damaged(path, remedy):
        manifest = json.loads(path.read_text(encoding="utf-8"))
    wrong = {each: _wrong(manifest, fields) for each, fields in _FIELDS.items()}
    if wrong[kind] is None:
        return manifest
    for other, field in wrong.items():
        if field is None:
            raise ValueError(f"{output} is no folder of a {kind}, but of a {other}")
    raise ValueError(f"{path} is damaged ({wrong[kind]}); {remedy}")


def _wrong(manifest: Any, fields: dict[str, _Field]) -> str | None:
    """Returns what is wrong with the first field that is, or None."""
    if not isinstance(manifest, dict):
        return f"it must hold an object, and holds {_brief(manifest)}"
    for name, field in fields.items():
        for place, holder in _holders(manifest, name):
            key = place.rpartition(".")[2]
            if key not in holder:
                return f"it has no {place}"
            if not field.fits(holder[key]):
                return f"{place} must be {field.allowed}, and is {_brief(holder[key])}"
    return None


def _holders(manifest: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives the objects that a field is in, and its name there; those around it are checked."""
    before, dot, key = name.rpartition(".")
    if not dot:
        yield key, manifest
        return
    for place, holder in _holders(manifest, before.removesuffix("[]")):
        value = holder[place.rpartition(".")[2]]
        if before.endswith("[]"):
            for i, each in enumerate(value):
                yield f"{place}[{i}].{key}", each
        else:
            yield f"{place}.{key}", value


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def check_identity(output: Path, found: Any, wanted: Any, *, holds: str) -> None:
    """Raises ValueError where a folder's results depend on something else than a new run's would.

    Args:
      output: the folder.
      found: what its results depend on, as JSON.
      wanted: what the new run's results depend on, as JSON.
      holds: what the folder holds, for the error.
    """
    different = differences(found, wanted)
    if different:
        raise ValueError(
            f"output {output} holds {holds}: {'; '.join(different)}; give another folder"
        )


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, which appears whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def is_temporary(name: str) -> bool:
    """Returns whether a name is one that `atomic_write` gives to an unfinished file."""
    return re.fullmatch(r"\..+\.[0-9]+-[0-9a-f]{8}\.part", name) is not None


@contextlib.contextmanager
def alone(output: Path) -> Iterator[None]:
    """Keeps other runs out of a folder as long as the block runs; a kill ends that too.

    Where the system or the disk knows no locks, nothing is kept out.

    Args:
      output: the folder, which exists.

    Raises:
      ValueError: another run is in it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(output, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"output {output} is in use: another process trains in it; wait for its end, or "
                "give another folder"
            ) from None
        except OSError:  # a disk without locks
            pass
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming_damaged(path: Path, remedy: str) -> Iterator[None]:
    """Turns errors of a file that cannot be parsed into a ValueError with its name and a remedy."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}); {remedy}") from error
