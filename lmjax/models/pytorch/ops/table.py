"""The table of operations: which JAX function computes which operation of ATen."""

from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]

_TABLE: dict[str, Function] = {}


class UnsupportedOperationError(ValueError):
    """An operation of an exported graph that the table lacks.

    Attributes:
      operation: its name in torch, such as `aten.fft_fft.default`.
      path: the dotted path of the module that calls it, empty for the outermost module.
    """

    def __init__(self, operation: str, path: str = "", *, reason: str = "has no JAX function here"):
        self.operation = operation
        self.path = path
        where = f"in module {path!r}" if path else "in the outermost module"
        super().__init__(
            f"{operation}, {where}, {reason}: give it one by "
            f'lmjax.models.pytorch.register_op("{operation}", function), where function takes the '
            "operation's arguments with tensors as JAX arrays; or replace it in the module"
        )


def register_op(name: str, function: Function) -> None:
    """Adds an operation to the table, or replaces one.

    Args:
      name: the operation's name with its overload, such as `aten.fft_fft.default`.
      function: takes the operation's arguments in ATen's order, with tensors as JAX arrays, dtypes
        as NumPy's and sizes as Python's integers, and returns what the operation returns. Devices,
        memory layouts and other arguments without a meaning in JAX are left out.

    Raises:
      ValueError: the name has no overload.
      TypeError: the function is not callable.
    """
    if name.count(".") < 2 and name.startswith("aten"):
        raise ValueError(f"name is {name!r}; must end in an overload: {name + '.default'!r}")
    if not callable(function):
        raise TypeError(f"function is a {type(function).__name__}; must be callable")
    _TABLE[name] = function


def rule(*names: str) -> Callable[[Function], Function]:
    """Returns a decorator that puts a function into the table under all of the names."""

    def add(function: Function) -> Function:
        _TABLE.update(dict.fromkeys(names, function))
        return function

    return add


def add_rules(functions: dict[str, Function]) -> None:
    """Adds functions to the table by their names in ATen, `aten.` left out."""
    _TABLE.update({f"aten.{name}": function for name, function in functions.items()})


def supported() -> tuple[str, ...]:
    """Returns the names of all operations in the table, sorted."""
    return tuple(sorted(_TABLE))


def find(name: str, path: str = "") -> Function:
    """Returns the function of an operation.

    Raises:
      UnsupportedOperationError: the table lacks it.
    """
    if name not in _TABLE:
        raise UnsupportedOperationError(name, path)
    return _TABLE[name]


def refused(name: str, reason: str) -> Callable[[], Any]:
    """Returns a result that raises when something uses it."""

    def take():
        raise UnsupportedOperationError(name, reason=reason)

    return take
