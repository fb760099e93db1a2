"""Files that commands are told to write: no file of something else is overwritten."""

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path


def check_output(
    path: str | os.PathLike,
    *,
    suffixes: Sequence[str],
    ours: Callable[[Path], bool],
    what: str,
    argument: str = "output",
) -> Path:
    """Returns the path of a file to write, once it is known to be writable and free.

    Args:
      path: of the file.
      suffixes: that it may have, in lower case.
      ours: whether a file that is there was written for the same purpose, so that it is replaced;
        may raise ValueError or OSError where it was not.
      what: such files are, with an article, for the error.
      argument: what the path is called, for the error.

    Raises:
      ValueError: another suffix, or a file of something else.
      OSError: a folder that does not exist or cannot be written, or a path that is a folder.
    """
    path = check_place(path, suffixes, argument)
    if path.exists() and not _says(ours, path):
        raise ValueError(
            f"{argument} {path} exists and is not {what}; it was left as it is. Give another name, "
            "or move it away"
        )
    check_writable(path, path.parent, argument)
    return path


def check_place(path: str | os.PathLike, suffixes: Sequence[str], argument: str = "output") -> Path:
    """Returns the path of a file whose suffix is allowed and whose folder is there.

    Raises:
      ValueError: another suffix.
      OSError: a folder that does not exist, a path that is a folder, or a name that is too long.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{argument} must end in {', '.join(suffixes)}; got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{argument} folder {path.parent} does not exist; create it first")
    check_no_folder(path, argument)
    return path


def check_no_folder(path: Path, argument: str = "output") -> None:
    """Raises OSError for a folder in the place of a file, and for a name that is too long."""
    check_length(path, argument)
    if path.is_dir():
        raise IsADirectoryError(f"{argument} {path} is a folder; give another name")


def check_length(path: Path, argument: str = "output") -> None:
    """Raises OSError for a name that is too long for a file in this folder, which is there."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            message = f"{argument} {path.name} is too long for a file's name; give a shorter one"
            raise OSError(message) from error


def check_writable(path: Path, folder: Path, argument: str = "output") -> None:
    """Raises OSError, with the path that was asked for, where a folder cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{argument} {path} cannot be written: {error.strerror}") from error


def _says(ours: Callable[[Path], bool], path: Path) -> bool:
    """Returns whether a file is ours; one that cannot be read as such is not."""
    try:
        return not path.stat().st_size or ours(path)
    except (ValueError, OSError):
        return False
