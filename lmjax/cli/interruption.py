"""Ctrl-C and SIGTERM: a command stops after the step under way, at once when asked again."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lmjax._utils import interruption

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds from an interrupt to the end of a command that meets no place to stop, such as while it
# compiles; and where it has work that it can still save, as a training has after a step.
GRACE, LONG_GRACE = 4.0, 60.0
_MESSAGE = "lmjax: interrupted; what is finished is kept (once more ends at once)\n"


@contextlib.contextmanager
def interruptible(*, last: bool = False, grace: float = GRACE) -> Iterator[None]:
    """Lets a command stop where nothing is lost, or after a time where it meets no such place.

    Files appear whole or not at all, so that a late end loses what was not yet written and nothing
    else.

    Args:
      last: whether the process ends with the block. Signals are ignored from then on, for nothing
        is left to be stopped; Python's own handlers would end a finished command as a failure.
      grace: seconds after which the process ends all the same, unless there is work to save
        (`interruption.unsaved`).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hears, tells = socket.socketpair()
    tells.setblocking(False)
    # Python's handlers wait until compiled code returns; this thread does not.
    timers: list[threading.Timer] = []
    watcher = threading.Thread(target=_watch, args=(hears, grace, timers), daemon=True)
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
        for timer in timers:
            timer.cancel()
        hears.close()
        interruption.forget()


def _watch(hears: socket.socket, grace: float, timers: list[threading.Timer]) -> None:
    """Notes the first signal, and ends the process at the second, or after a time.

    Args:
      hears: gives a byte for each signal.
      grace: the time, in seconds.
      timers: gets the timer, which the end of the block cancels.
    """
    while number := hears.recv(1):
        if number[0] not in _SIGNALS:
            continue
        if not interruption.note(number[0]):
            os._exit(128 + number[0])
        with contextlib.suppress(OSError):
            os.write(2, (os.linesep * os.isatty(2) + _MESSAGE).encode())  # below a progress bar
        timers.append(_later(grace, _give_up, number[0], timers))


def _give_up(number: int, timers: list[threading.Timer]) -> None:
    """Ends the process, at once or where there is work to save a while later."""
    if interruption.unsaved():
        timers.append(_later(LONG_GRACE, os._exit, 128 + number))
    else:
        os._exit(128 + number)


def _later(seconds: float, function: Callable, *arguments: Any) -> threading.Timer:
    timer = threading.Timer(seconds, function, arguments)
    timer.daemon = True
    timer.start()
    return timer


def end(signal_number: int) -> None:
    """Ends the process at once: threads of JAX may still work, and would not survive its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(128 + signal_number)
