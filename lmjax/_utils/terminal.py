"""Standard error, which a process may lack."""

import sys


def on_terminal() -> bool:
    """Returns whether standard error is a terminal, on which progress is shown."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except (ValueError, OSError):  # it is closed
        return False
