"""What the fuzz tests have in common: inputs by number, and what may come of them.

An input is made by a function of a generator of random numbers and a folder. It may give an answer,
which the function checks itself, or one of lmjax's own errors; anything else is a finding. Input
number n of a kind is the same in every run with the same seed.
"""

import atexit
import collections
import contextlib
import linecache
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmjax.masking import LayerMaskError

PACKAGE = str(Path(__file__).parents[2] / "lmjax")
LONGEST = 180  # seconds of one input, of a study too, on a busy machine
_MEMORY = 6 * 2**30
_MESSAGE = 1500  # letters of an error

Attempt = Callable[[np.random.Generator, Path], str]
"""Tries one input in an empty folder; returns what came of it, such as "answer"."""


class Hang(BaseException):
    """Raised where an input takes too long."""


class Finding(NamedTuple):
    """An input with another outcome than an answer or an error of lmjax.

    Attributes:
      kind, number: of the input.
      text: what happened.
    """

    kind: str
    number: int
    text: str


class Counts(NamedTuple):
    """What came of the inputs of a kind.

    Attributes:
      outcomes: how many inputs had each outcome.
      findings: those that are wrong.
    """

    outcomes: collections.Counter
    findings: list[Finding]


def run(
    kind: str,
    attempt: Attempt,
    folder: Path,
    *,
    inputs: int,
    seconds: float,
    seed: int,
    first: int = 0,
) -> Counts:
    """Tries inputs `first` to `first + inputs - 1` of a kind, as many as the seconds allow."""
    counts = Counts(collections.Counter(), [])
    end = time.monotonic() + seconds
    for number in range(first, first + inputs):
        if time.monotonic() > end:
            counts.outcomes["not reached"] += first + inputs - number
            break
        place = folder / str(number)
        place.mkdir()
        if os.environ.get("LMJAX_FUZZ_SHOW"):
            print(kind, number, file=sys.stderr, flush=True)
        outcome, text = _try(attempt, np.random.default_rng([seed, number]), place)
        counts.outcomes[outcome] += 1
        if text:
            counts.findings.append(Finding(kind, number, text))
    return counts


def _try(attempt: Attempt, rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """Returns the outcome, and for a finding what is wrong."""
    try:
        with _time_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attempt(rng, folder), ""
    except (Exception, Hang) as error:
        wrong = what_is_wrong(error)
        if wrong is None:
            return "refused", ""
        return "FINDING", f"{wrong}\n{_where(error)}"


def what_is_wrong(error: BaseException) -> str | None:
    """Returns what is wrong with an error, or None where it is one of lmjax's own."""
    name = f"{type(error).__name__}: {str(error)[:400]}"
    if isinstance(error, OSError) and error.errno and error.filename:
        return None  # the system's, which names the file
    if "embedded null byte" in str(error):
        return None  # Python's, of any path
    notes = getattr(error, "__notes__", ())
    outside = not traceback.extract_tb(error.__traceback__)[-1].filename.startswith(PACKAGE)
    if outside and any(note.startswith("layer_mask: function must") for note in notes):
        return None  # the user's network refuses the images, whose shape the note says
    if not isinstance(error, ValueError | TypeError | OSError | ImportError):
        return name
    if not _is_raised_by_lmjax(error):
        return f"not lmjax's own: {name}"
    if isinstance(error, LayerMaskError):
        return None  # it shows the operation, in lines of its own
    text = str(getattr(error, "short", error)).replace("a\nb", "")  # one of the strange names
    if not text.strip() or "\n" in text or len(text) > _MESSAGE:
        return f"not one line: {name}"
    return None


def _is_raised_by_lmjax(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    return last.filename.startswith(PACKAGE) and line.startswith("raise")


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    shown = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames if _is_ours(f)]
    return " < ".join(reversed(shown[-6:]))


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(str(Path(PACKAGE).parent))


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def ring(*_):
        raise Hang(f"took more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def kept_folder() -> Path:
    """A folder for what inputs share, until the process ends."""
    folder = tempfile.mkdtemp(prefix="lmjax-fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def pick(rng: np.random.Generator, choices):
    """One of some things, of any types."""
    choices = list(choices)
    return choices[int(rng.integers(len(choices)))]


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Bytes with something wrong: cut, flipped, overwritten, doubled, or empty."""
    if not content:
        return b"\0"
    how, at = pick(rng, range(6)), int(rng.integers(len(content)))
    changed = bytearray(content)
    if how == 0:
        return content[:at]
    if how == 1:
        for _ in range(int(rng.integers(1, 6))):
            changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    elif how == 2:
        length = int(rng.integers(1, 40))
        changed[at : at + length] = rng.bytes(length)
    elif how == 3:
        changed[at:at] = content[: int(rng.integers(1, 200))]
    elif how == 4:  # the head, where formats keep their numbers
        changed[int(rng.integers(min(len(changed), 64)))] = int(rng.integers(256))
    else:
        del changed[at : at + int(rng.integers(1, 40))]
    return bytes(changed)


STRANGE_TEXT = (
    *("", " ", "a b", "$x$", "näme 日本", "\x1b[2J", "-1", "--", "nan", "inf", "1e999", "..", "/"),
    *("a\nb", "=1+1", "<b>", "%s", "{}", "\u202egnp", "x" * 300, "None", "null", "0", "1,2", "@"),
    *("\udcfe", "\0", "~", "*", "a=b", "a:b", "True"),
)
STRANGE_NUMBERS = (
    *(0, -1, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**30, -(2**63)),
    *(0.5, -0.5, 1.5, 1e-30, 1e30, 1e308, float("nan"), float("inf"), -float("inf")),
)


def strange(rng: np.random.Generator):
    """A value that no argument takes, or few."""
    others = (
        None,
        True,
        False,
        (),
        [],
        {},
        b"",
        object(),
        [None],
        "x",
        1j,
        np.float32(2),
        {"a": 1},
    )
    return pick(rng, (*STRANGE_NUMBERS, *STRANGE_TEXT, *others, *others))


@contextlib.contextmanager
def memory_limit(more: int = _MEMORY) -> Iterator[None]:
    """Lets this process ask for no more than some bytes above what it has.

    An input that would fill the machine's memory is then a MemoryError, which is a finding.
    """
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
