"""Stopping between two steps, where nothing is lost, when a command is interrupted.

A KeyboardInterrupt can come anywhere: in a lock of a thread, or in a callback of JAX that drops it.
Commands note the signal instead (`lmjax.cli.interruption`), and loops ask between their steps.
Outside commands nothing is noted, and Ctrl-C is Python's own.
"""

import threading

_noted: list[int] = []
_unsaved = threading.Event()


class Interrupted(KeyboardInterrupt):
    """A command was asked to stop.

    Attributes:
      signal: number of the signal.
    """

    def __init__(self, signal: int):
        super().__init__(signal)
        self.signal = signal


def note(signal: int) -> bool:
    """Notes a signal; returns whether it is the first."""
    _noted.append(signal)
    return len(_noted) == 1


def forget() -> None:
    """Forgets what was noted, and what is unsaved."""
    _noted.clear()
    _unsaved.clear()


def set_unsaved(value: bool) -> None:
    """Says whether there is work that the next place to stop would save, such as steps."""
    if value:
        _unsaved.set()
    else:
        _unsaved.clear()


def unsaved() -> bool:
    """Returns whether ending now would lose work that a little patience would save."""
    return _unsaved.is_set()


def noted() -> bool:
    """Returns whether this command was asked to stop."""
    return bool(_noted)


def stop_if_noted() -> None:
    """Raises Interrupted where this command was asked to stop."""
    if _noted:
        raise Interrupted(_noted[0])
