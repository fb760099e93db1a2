"""Ctrl-C and SIGTERM: a command stops after the step under way, at once when asked again."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

from lmjax._utils import interruption

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MESSAGE = "lmjax: interrupted; what is finished is kept (once more ends at once)\n"


@contextlib.contextmanager
def interruptible(grace: float, *, last: bool = False) -> Iterator[None]:
    """Lets a command stop where nothing is lost, or after a time where it meets no such place.

    Whatever is written appears whole or not at all, so that a late end loses what was not yet
    written and nothing else.

    Args:
      grace: seconds after which the process ends all the same.
      last: whether the process ends with the block. Signals are ignored from then on, for nothing
        is left to be stopped; Python's own handlers would end a finished command as a failure.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hears, tells = socket.socketpair()
    tells.setblocking(False)
    # Python's handlers wait until compiled code returns; this thread does not.
    watcher = threading.Thread(target=_watch, args=(hears, grace), daemon=True)
    watcher.start()
    before = {each: signal.signal(each, lambda *_: None) for each in _SIGNALS}
    wakened = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakened)
        for each, handler in before.items():
            signal.signal(each, signal.SIG_IGN if last else handler)
        tells.close()
        watcher.join()
        hears.close()
        interruption.forget()


def _watch(hears: socket.socket, grace: float) -> None:
    """Notes the first signal, and ends the process at the second, or after a time."""
    while number := hears.recv(1):
        if number[0] not in _SIGNALS:
            continue
        if not interruption.note(number[0]):
            os._exit(128 + number[0])
        with contextlib.suppress(OSError):
            os.write(2, (os.linesep * os.isatty(2) + _MESSAGE).encode())  # below a progress bar
        timer = threading.Timer(grace, os._exit, [128 + number[0]])
        timer.daemon = True
        timer.start()


def end(signal_number: int) -> None:
    """Ends the process at once: threads of JAX may still work, and would not survive its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(128 + signal_number)
