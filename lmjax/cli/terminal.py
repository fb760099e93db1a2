"""Prints of commands, on any standard output and standard error."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from lmjax._utils.text import printable

_NAMES = {"stdout": "standard output", "stderr": "standard error"}


def say_written(path: object, then: str = "") -> None:
    """Prints that a file was written, on one line: line breaks in its name are escaped.

    Args:
      path: of the file.
      then: what follows its name.

    Raises:
      OSError: it cannot be printed, as on a full disk.
    """
    say(f"wrote {path}{then}".replace("\n", r"\n"))


def say(text: object) -> None:
    """Prints a line, or several; names in it cannot move the cursor or change colours.

    Where nobody reads any more, as after `| head`, nothing is printed.

    Args:
      text: any value.

    Raises:
      OSError: it cannot be written, as on a full disk.
    """
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        _discard("stdout")


def warn(text: object) -> None:
    """Prints to standard error, if that can be written."""
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError:
        _discard("stderr")


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Makes standard output and standard error such that any text can be printed to them.

    Streams that a process lacks take all and keep nothing; letters that an encoding lacks become
    escapes. At the end, a pipe that is closed is no error, and a full disk is.

    Raises:
      SystemExit: standard output could not be written, in one line.
    """
    for name in _NAMES:
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except BrokenPipeError:  # nobody reads the rest
        _discard("stdout")
        _discard("stderr")
    except SystemExit as stop:
        failed = _flush()
        if failed and stop.code in (None, 0):
            raise SystemExit(failed) from None
        raise
    else:
        if failed := _flush():
            raise SystemExit(failed)


def _flush() -> str | None:
    """Writes out what was printed; returns what is wrong, if anything."""
    wrong = None
    for name, meant in _NAMES.items():
        try:
            getattr(sys, name).flush()
        except BrokenPipeError:
            _discard(name)
        except (OSError, ValueError) as error:
            _discard(name)
            wrong = f"lmjax: error: {meant} cannot be written: {error}"
    return wrong


def _discard(name: str) -> None:
    """Lets a stream take all and keep nothing, what it holds already too."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, getattr(sys, name).fileno())
        os.close(nowhere)
