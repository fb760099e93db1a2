"""Compiled functions of which a process keeps only the programs that were used last.

`jax.jit` keeps a program for every shape it meets. Each takes memory, and on Linux memory maps, of
which a process may have 65,530 before it crashes: about 30 for a network of one layer, 600 for a
ResNet-18 on visible positions. Images of many sizes would use them up.
"""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import core, lax

from lmjax._utils import compiler_options

MOST_PROGRAMS = 256
"""The most programs that are kept."""
MOST_MAPS = 14_000
"""The most memory maps that these take together, unless a single one takes more."""

_MAPS = Path("/proc/self/maps")
Key = tuple[Hashable, ...]
"""A function, and what its program is compiled for."""


class Kept:
    """Programs in the order of their last use, from which the oldest go when there are too many.

    A program that has gone is compiled again when it is needed, and gives the same bits.

    Attributes:
      most_programs, most_maps: the bounds.
    """

    def __init__(self, most_programs: int = MOST_PROGRAMS, most_maps: int = MOST_MAPS):
        self.most_programs, self.most_maps = most_programs, most_maps
        self._programs: OrderedDict[Key, Any] = OrderedDict()
        self._maps: dict[Key, int] = {}
        self._lock = threading.RLock()

    def run(self, key: Key, make: Callable[[], Any], call: Callable[[Any], Any]) -> Any:
        """Returns `call(program)`, and counts the memory maps that a new program takes.

        Args:
          key: of the program.
          make: makes it where it is not kept.
          call: calls it.
        """
        with self._lock:
            new = key not in self._programs
            if new:
                self._programs[key], self._maps[key] = make(), 0
            self._programs.move_to_end(key)
            program = self._programs[key]
        if not new:
            return call(program)
        before = _count_maps()
        try:
            result = call(program)
        except BaseException:
            with self._lock:  # what fails may never be called again
                if self._programs.get(key) is program:
                    self._drop(key)
            raise
        with self._lock:
            if key in self._maps:
                self._maps[key] = max(_count_maps() - before, 0)
            while self._too_many():
                self._drop(next(iter(self._programs)))
        return result

    def of(self, function: Callable) -> dict[Key, Any]:
        """Returns the programs of a function, whose keys begin with it."""
        with self._lock:
            return {k: v for k, v in self._programs.items() if k[0] is function}

    def drop(self, function: Callable) -> None:
        """Drops the programs of a function."""
        with self._lock:
            for key in self.of(function):
                self._drop(key)

    def _too_many(self) -> bool:
        count, maps = len(self._programs), sum(self._maps.values())
        return count > 1 and (count > self.most_programs or maps > self.most_maps)

    def _drop(self, key: Key) -> None:
        del self._programs[key], self._maps[key]


_KEPT = Kept()


class BoundedJit:
    """A function compiled as `jax.jit` does, of which only the programs used last are kept.

    Args:
      function: pure function of arrays.
      static_argnames: names of arguments that are static; they are passed by name.
      kept: where programs are kept; by default all functions share their bounds.
    """

    def __init__(
        self,
        function: Callable,
        *,
        static_argnames: str | Iterable[str] = (),
        kept: Kept = _KEPT,
    ):
        functools.update_wrapper(self, function)
        names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
        self._function, self._static, self._kept = function, names, kept

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._run(lambda program: program(*args, **options), args, options)

    def alone(self, *args: Any, **options: Any) -> Any:
        """Calls the function where no other program runs beside it.

        On a CPU it is compiled to keep all cores busy by itself. Within a trace of JAX it is an
        ordinary call.
        """
        if _traced((args, options)):
            return self(*args, **options)
        key = *self.key(args, options), "alone"
        chosen = compiler_options.for_one_call()
        make = functools.partial(self._make, compiler_options=chosen)
        return self._kept.run(key, make, lambda program: program(*args, **options))

    def lower(self, *args: Any, **options: Any) -> Any:
        """Lowers the function for arguments, as a jitted function does."""
        return self._run(lambda program: program.lower(*args, **options), args, options)

    def eval_shape(self, *args: Any, **options: Any) -> Any:
        """Returns the shape and type of the result for arguments, as a jitted function does."""
        return self._run(lambda program: program.eval_shape(*args, **options), args, options)

    def clear_cache(self) -> None:
        """Drops all programs of the function."""
        self._kept.drop(self)

    def num_programs(self) -> int:
        """Returns how many compiled programs of the function are kept that were called directly."""
        return sum(program._cache_size() for program in self._kept.of(self).values())

    def compiled(self, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Returns the trace for arguments (`jax.stages.Traced`), and the program.

        The program takes the arguments that are not static, in any thread. It is that of a call
        with these arguments: neither compiles what the other has compiled.
        """

        def compile(program: Any) -> tuple[Any, Any]:
            traced = program.trace(*args, **options)
            return traced, traced.lower().compile()

        return self._run(compile, args, options)

    def key(self, args: tuple, options: dict[str, Any]) -> Key:
        """Returns what tells the programs of the function from one another."""
        arrays = args, {k: v for k, v in options.items() if k not in self._static}
        settings = tuple((k, options[k]) for k in self._static if k in options)
        leaves, tree = jax.tree.flatten(arrays)
        return self, settings, tree, tuple(map(np.shape, leaves))

    def _run(self, call: Callable, args: tuple, options: dict[str, Any]) -> Any:
        return self._kept.run(self.key(args, options), self._make, call)

    def _make(self, **compilation: Any) -> Any:
        @functools.wraps(self._function)
        def own(*args: Any, **options: Any) -> Any:  # JAX keeps programs as long as their function
            return self._function(*args, **options)

        return jax.jit(own, static_argnames=self._static, **compilation)


def bounded_jit(**options: Any) -> Callable[[Callable], BoundedJit]:
    """Returns a decorator that makes a `BoundedJit` with some options."""
    return functools.partial(BoundedJit, **options)


def _traced(arguments: Any) -> bool:
    """Whether JAX is tracing: arguments, or the function that the call is in."""
    leaves = *jax.tree.leaves(arguments), lax.iota(np.int32, 1)  # in `jit` new arrays are traced
    return any(isinstance(leaf, core.Tracer) for leaf in leaves)


def _count_maps() -> int:
    """Counts the memory maps of this process; 0 where the system does not tell."""
    try:
        return _MAPS.read_bytes().count(b"\n")
    except OSError:
        return 0
