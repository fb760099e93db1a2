"""Calls of compiled programs: one ahead of the host, and on a CPU several at a time.

A program leaves cores of a CPU idle, between its operations and in those that are too small to
divide. Calls from two threads fill them: 1.1 to 1.7 times as fast on two cores, with the same bits.
"""

import collections
import functools
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lmjax._utils.bounded import BoundedJit
from lmjax._utils.jaxprs import primitives
from lmjax._utils.processes import usable_cores
from lmjax.evaluation.lapack import LAPACK

_MOST_THREADS = 2  # more were not measured, and each takes the memory of a batch
_LOOKING = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")
# Programs with these wait for other threads, or for the host, which may take one at a time.
_WAITS = LAPACK | {
    *("lmjax_host_call", "pure_callback", "io_callback", "debug_callback", "debug_print"),
    *("buffer_callback", "check", "spsolve", "ffi_call", "call_exported"),
}


class Call(NamedTuple):
    """A call that computes logits of some variants.

    Attributes:
      variants: their numbers `[n]`, -1 for padding.
      function: of `arguments` and `static` to logits `[n, K]`.
      arguments: arrays.
      static: static arguments, by name.
    """

    variants: np.ndarray
    function: BoundedJit
    arguments: tuple
    static: dict[str, Any]

    def __call__(self) -> jax.Array:
        """Starts it, and returns what will be its logits."""
        return self.function(*self.arguments, **self.static)


def most_threads(mesh: Mesh) -> int:
    """Returns how many calls at a time a mesh may be given: several on a single CPU device."""
    alone = mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"
    return _MOST_THREADS if alone else 1


def threads_of(mesh: Mesh) -> int:
    """Returns how many calls at a time a mesh is given: no more than there are cores."""
    return min(usable_cores(), most_threads(mesh))


def results(
    calls: Iterator[Call], threads: int
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Yields the variants and logits of each call, in order, while the next ones are computed.

    Args:
      calls: made one after the other, as results are taken: no more than `threads` + 1 are ahead.
      threads: how many run at a time. Those of programs that wait for others, or for the host, run
        one after the other.
    """
    if _looks_into_programs():
        threads = 1
    pending: collections.deque[tuple[np.ndarray, Callable[[], np.ndarray]]] = collections.deque()
    programs: dict[Any, Any] = {}
    pool = ThreadPoolExecutor(threads)  # starts threads when it is given something
    try:
        for i, call in enumerate(calls):
            # JAX compiles for settings of the thread that it is called in. So the first call is an
            # ordinary one, for which a thread waits, and other threads are given programs.
            program = _program(call, programs) if threads > 1 and i > 0 else None
            if program is not None:
                wait = pool.submit(_run, program, call.arguments).result
            elif threads > 1 and i == 0:
                wait = pool.submit(np.asarray, call()).result
            else:
                wait = functools.partial(np.asarray, call())
            pending.append((call.variants, wait))
            while len(pending) > (1 if program is None else threads):
                yield _first(pending)
        while pending:
            yield _first(pending)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # nobody needs what they compute


def _first(pending: collections.deque) -> tuple[np.ndarray, np.ndarray]:
    variants, wait = pending.popleft()
    return variants, wait()


def _run(program: Callable, arguments: tuple) -> np.ndarray:
    return np.asarray(program(*arguments))


def _program(call: Call, known: dict[Any, Any]) -> Callable | None:
    """Returns the compiled program of a call; None for one that would wait for another thread.

    Args:
      call: the call.
      known: programs that were asked for before, to which this is added.
    """
    key = call.function.key(call.arguments, call.static)
    if key not in known:
        traced, program = call.function.compiled(*call.arguments, **call.static)
        waits = traced.jaxpr.effects or not _WAITS.isdisjoint(primitives(traced.jaxpr))
        known[key] = None if waits else program
    return known[key]


def _looks_into_programs() -> bool:
    """Returns whether JAX is asked to look at each operation, which it does in its own thread."""
    return any(getattr(jax.config, name) for name in _LOOKING)
