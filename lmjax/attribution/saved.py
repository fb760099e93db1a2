"""What results of attribution methods and curves have in common: files, and pictures."""

import html
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self


class Saved:
    """A result that is kept in one file, with the samples to go on from where it has any.

    Notebooks show it as text and, where it has one target, as a picture.
    """

    KIND: ClassVar[str]
    target: Any
    plot: Callable[..., Any]

    def save(self, path: str | os.PathLike) -> Path:
        """Writes all of it to one `.npz` file with a JSON header, without pickle; returns the path.

        A file of another result of this kind is replaced, any other file is not.

        Raises:
          ValueError: a path that does not end in `.npz`, or a file that holds something else.
          OSError: the file cannot be written.
        """
        from lmjax.attribution import files

        return files.write(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads what `save` has written; a method that samples can go on from it.

        Raises:
          ValueError: another file, a damaged one, or one of another version's format.
          OSError: the file cannot be read.
        """
        from lmjax.attribution import files

        return files.read(cls, path)

    def _repr_html_(self) -> str:
        """Shows the result in notebooks."""
        from lmjax import plots

        shown = "" if isinstance(self.target, tuple) else plots.as_html(self.plot().figure)
        return f"<pre>{html.escape(repr(self))}</pre>{shown}"
