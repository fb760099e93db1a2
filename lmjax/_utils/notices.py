"""Warnings that come once in a call that does the same for many images, methods or removals."""

import contextlib
import contextvars
import warnings
from collections.abc import Iterator

_said: contextvars.ContextVar[set[str] | None] = contextvars.ContextVar("said", default=None)


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """Lets `warn` say each thing once as long as the block runs; blocks may hold others."""
    if _said.get() is not None:
        yield
        return
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)


def warn(about: str, message: str, *, stacklevel: int) -> None:
    """Warns, unless the block of `said_once` around it was warned about the same thing.

    Args:
      about: what the warning is about; messages on it may differ.
      message: the text.
      stacklevel: as in `warnings.warn`, counted from the caller.
    """
    said = _said.get()
    if said is not None:
        if about in said:
            return
        said.add(about)
    warnings.warn(message, UserWarning, stacklevel=stacklevel + 1)
