"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

# Characters of its name in that of an unfinished file, which fits wherever the whole name does.
_NAMED = 20


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, moved there when the block ends well, else removed.

    What is there after a crash, even of the machine, is whole: contents reach the disk before the
    name does. Writers do not meet: each has a temporary path of its own, and the last to finish
    wins.

    Args:
      path: where the file is to appear; its folder must exist.
    """
    path = Path(path)
    unfinished = f".{path.name[:_NAMED]}.{os.getpid()}-{secrets.token_hex(4)}.part"
    temporary = path.with_name(unfinished)
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        if os.name == "posix":  # elsewhere folders cannot be opened
            _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Writes files, of which none appears before all are on the disk.

    Args:
      contents: of the files by path; their folders must exist.
    """
    with contextlib.ExitStack() as files:
        for path, content in contents.items():
            temporary = files.enter_context(atomic_write(path))
            temporary.write_bytes(content)
            _to_disk(temporary)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
