"""Progress bars, on a terminal, in a log or in a notebook, and what they say."""

import contextlib
import contextvars
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from lmjax._utils.terminal import on_terminal

_about: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("about", default=())
_heard: contextvars.ContextVar[Callable[[int], None] | None] = contextvars.ContextVar(
    "heard", default=None
)

_SECONDS_IN_LOGS = 60  # from one line to the next


def progress_bar(
    shown: bool | None, *, total: int | None, unit: str, worth_it: bool = True, **options: Any
) -> Any:
    """Makes a bar of tqdm: a widget in a notebook, text elsewhere, in a log a line a minute.

    Args:
      shown: whether to show it; None shows it on a terminal and in a notebook, unless the
        environment has `TQDM_DISABLE`, as for notebooks that are stored with their outputs.
      total: how much there is to do.
      unit: what is counted, as it follows a number.
      worth_it: whether to show it where `shown` is None.
      **options: of tqdm, such as `desc` and `initial`.
    """
    watched = on_terminal() or in_notebook()
    if shown is None:
        shown = watched and worth_it and not os.environ.get("TQDM_DISABLE")
    return _tqdm()(
        total=total,
        unit=unit,
        mininterval=0.1 if watched else _SECONDS_IN_LOGS,
        disable=not shown,
        **options,
    )


def in_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get is None else get()
    return shell is not None and "IPKernelApp" in shell.config


@contextlib.contextmanager
def described(*about: str) -> Iterator[None]:
    """Says what is evaluated in the block, such as the method and the removal; blocks may nest."""
    token = _about.set((*_about.get(), *filter(None, about)))
    try:
        yield
    finally:
        _about.reset(token)


def description() -> str:
    """Returns what the blocks of `described` around the caller say."""
    return ", ".join(_about.get())


@contextlib.contextmanager
def heard(listener: Callable[[int], None]) -> Iterator[None]:
    """Tells a function, as long as the block runs, how many more variants have been evaluated."""
    token = _heard.set(listener)
    try:
        yield
    finally:
        _heard.reset(token)


def evaluated(variants: int) -> None:
    """Says that more variants have been evaluated, to the function that listens, if one does."""
    listener = _heard.get()
    if listener is not None:
        listener(variants)


def _tqdm() -> Any:
    with warnings.catch_warnings(action="ignore"):  # where a notebook lacks widgets, bars are text
        from tqdm.auto import tqdm
    return tqdm
