"""Text from outside (names of files, classes, networks), made safe to show, and names of files."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_KEPT = "\n\t"
# Letters that turn the direction of all text after them.
_TURNING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control letters, half letters, separators of lines
_LONGEST = 120  # letters of a file's name without its suffix; folders hold 255 bytes
_FORMULA = ("=", "+", "-", "@", "\t", "\n")


def printable(text: Any) -> str:
    r"""Replaces what a terminal, a page or a figure would obey or refuse by escapes.

    These are control letters except line breaks and tabs, bytes of file names that are not UTF-8,
    and letters that turn the direction of text.

    Example:
      >>> printable("\x1b[2Jcat")
      '\\x1b[2Jcat'

    Args:
      text: any value; its `str` is taken.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    unseen = unicodedata.category(letter) in _UNSEEN and letter not in _KEPT
    if not (unseen or letter in _TURNING):
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode()


def one_line(text: Any) -> str:
    """Returns a text, such as the message of a library's error, with spaces for line breaks.

    Args:
      text: any value; its `str` is taken.
    """
    return " ".join(str(text).split())


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, in the plural but for one: "1 image", "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def read_text(path: str | os.PathLike, what: str) -> str:
    """Reads a text file in UTF-8, with or without a mark of the order of bytes.

    Args:
      path: the file.
      what: it is, such as the name of the argument, for the error.

    Raises:
      ValueError: it is in another encoding, or no text.
      OSError: it cannot be read.
    """
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {path} is no text in UTF-8: {error.reason}") from error
    except OSError as error:
        raise OSError(f"{what} {path} cannot be read: {error.strerror}") from error


def cell(value: Any) -> Any:
    """Returns a value for a cell of a table of text that no spreadsheet takes for a formula.

    Text that begins as formulas do gets an apostrophe before it, which spreadsheets do not show.
    Numbers are returned as they are.

    Args:
      value: of any type.
    """
    if not isinstance(value, str):
        return value
    value = printable(value)
    return f"'{value}" if value.startswith(_FORMULA) else value


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """Returns a name for a file, without suffix, for each of some names; no two are alike.

    Letters other than A-Z, a-z, digits, dot, underscore and hyphen become hyphens. Where names
    would then be the same, also on disks that do not tell capitals, and where a name is too long
    for a file, a hash of the name follows.

    Args:
      names: different ones.
    """
    short = {name: re.sub("[^A-Za-z0-9._-]+", "-", name) for name in names}
    folded = [stem.casefold() for stem in short.values()]
    return {
        name: stem
        if folded.count(stem.casefold()) == 1 and len(stem) <= _LONGEST
        else f"{stem[:_LONGEST]}-{_hash(name)}"
        for name, stem in short.items()
    }


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def without_addresses(text: str) -> str:
    """Removes addresses in memory, as of functions in a `repr`, which differ in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)
