"""Files of arrays with a header: `.npz`, which NumPy reads too, without pickle."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmjax._utils.atomic import atomic_write
from lmjax._utils.outputs import check_writable

_HEADER = "header"
_FORMAT = 1
_SUFFIX = ".npz"


def write(
    path: str | os.PathLike, kind: str, header: Mapping[str, Any], arrays: Mapping[str, Any]
) -> Path:
    """Writes arrays and a header; the file appears whole or not at all.

    Args:
      path: ends in `.npz`. A file of the same kind is replaced, and no other.
      kind: of the contents, such as "attribution".
      header: JSON.
      arrays: by name; those that are None are left out.

    Raises:
      ValueError: another suffix, or a file there that does not hold the same kind of result.
      OSError: the file cannot be written.
    """
    path = check_path(path, kind)
    text = json.dumps({"kind": kind, "format": _FORMAT, **header}, default=_plain)
    found: dict[str, Any] = {_HEADER: np.frombuffer(text.encode(), np.uint8)}
    found |= {name: np.asarray(x) for name, x in arrays.items() if x is not None}
    content = io.BytesIO()
    np.savez(content, **found)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return path


def check_path(path: str | os.PathLike, kind: str) -> Path:
    """Returns a path that `write` may write to; raises as `write` does."""
    path = Path(path)
    if path.suffix != _SUFFIX:
        raise ValueError(f"path must end in {_SUFFIX}, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    check_writable(path, path.parent, "path")
    if path.exists():
        try:
            read(path, kind)
        except ValueError as error:
            raise ValueError(f"{error}; it was left as it was, give another name") from error
    return path


def read(path: str | os.PathLike, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads the header and the arrays of a file that `write` has made.

    Raises:
      ValueError: a file that is damaged, that `write` has not made, that holds another kind of
        result, or that has the format of another version.
      OSError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
    except OSError:
        raise
    except Exception as error:  # damaged bytes may be anything
        what: Any = "it is no .npz archive" if "pickle" in str(error) else error
        raise damaged(path, kind, what) from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        found = header.get("kind") if isinstance(header, dict) else header
        raise ValueError(f"{path} holds {found!r}; expected {kind!r}")
    if header.get("format") != _FORMAT:
        raise ValueError(
            f"{path} has format {header.get('format')!r}, this version of lmjax reads {_FORMAT}; "
            "read it with the version that wrote it"
        )
    return header, arrays


def damaged(path: str | os.PathLike, kind: str, error: Exception | str) -> ValueError:
    """Returns the error of a file that does not hold what it should."""
    return ValueError(f"{path} is not a whole file of this type: {kind} ({error})")


def _plain(value: Any) -> Any:
    """Returns NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON")
