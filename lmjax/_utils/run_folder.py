"""Folders of runs: manifests that are compared before anything is written, and damaged files."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmjax._utils.atomic import atomic_write
from lmjax._utils.identity import differences

MANIFEST = "manifest.json"


def check_identity(out: Path, found: Any, wanted: Any, *, holds: str) -> None:
    """Raises ValueError where a folder's results depend on something else than a new run's would.

    Args:
      out: the folder.
      found: what its results depend on, as JSON.
      wanted: what the new run's results depend on, as JSON.
      holds: what the folder holds, for the error.
    """
    different = differences(found, wanted)
    if different:
        raise ValueError(f"out {out} holds {holds}: {'; '.join(different)}; give another folder")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, which appears whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


@contextlib.contextmanager
def naming_damaged(path: Path, remedy: str) -> Iterator[None]:
    """Turns errors of a file that cannot be parsed into a ValueError with its name and a remedy."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from error
