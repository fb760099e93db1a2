"""Fingerprints of functions and classes that users write: another body gives another one."""

import dataclasses
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from lmjax._utils.summary import is_concrete

_PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes)
# Set by Python where a class is made, or by caches in it.
_OF_EVERY_CLASS = {"__doc__", "__dict__", "__weakref__", "__firstlineno__", "_abc_impl"}


def fingerprint(value: Any) -> str:
    """Returns the first digits of a sha256 over what a function, class or object does.

    It covers bytecode, constants, defaults, closed-over values and attributes, and the functions,
    classes, arrays and plain values that these name. Installed packages are known by the names of
    what is used of them. Lists and dicts are passed over, since functions keep caches in them.
    """
    digest = hashlib.sha256()
    pending, seen = [value], {}
    while pending:
        part, inside = _divide(pending.pop(), seen)
        digest.update(part + b"\0")
        pending += reversed(inside)
    return digest.hexdigest()[:12]


def _divide(value: Any, seen: dict[int, Any]) -> tuple[bytes, list[Any]]:
    """Returns what a value is by itself, and the values inside; of a known one nothing."""
    if isinstance(value, _PLAIN):
        return repr(value).encode(), []
    if isinstance(value, tuple | frozenset):
        values = list(value) if isinstance(value, tuple) else sorted(value, key=repr)
        return f"{type(value).__name__}{len(values)}".encode(), values
    if isinstance(value, np.ndarray | np.generic) or is_concrete(value):
        return _of_array(value), []
    if isinstance(value, types.CodeType):
        return value.co_code, [value.co_names, value.co_consts]
    if id(value) in seen:
        return b"again", []
    seen[id(value)] = value  # kept, so that no other value has its id
    if isinstance(value, functools.partial):
        return b"partial", [value.func, value.args, tuple(sorted(value.keywords.items()))]
    if hasattr(value, "__wrapped__"):  # by jax.jit, functools.cache and the like
        return b"wrapped", [value.__wrapped__]
    if isinstance(value, types.MethodType | staticmethod | classmethod):
        return b"method", [value.__func__, getattr(value, "__self__", None)]
    if isinstance(value, property):
        return b"property", [value.fget]
    if isinstance(value, types.ModuleType):
        return value.__name__.encode(), []
    if isinstance(value, type | types.FunctionType):
        name = f"{value.__module__}.{value.__qualname__}".encode()
        if not is_own(value):
            return name, []
        return name, [*(_of_class(value) if isinstance(value, type) else _of_function(value))]
    return b"object", [type(value), *_attributes(value)]


def _of_array(value: Any) -> bytes:
    if not isinstance(value.dtype, np.dtype):  # a random key
        import jax

        value = jax.random.key_data(value)
    array = np.asarray(value)
    return f"{array.dtype}{array.shape}".encode() + array.tobytes()


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    yield function.__code__
    yield function.__defaults__
    yield tuple(sorted((function.__kwdefaults__ or {}).items()))
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    names = [*_names(function.__code__)]
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    yield from found
    for module in found:
        if isinstance(module, types.ModuleType) and is_own(module):
            yield from (vars(module)[name] for name in names if name in vars(module))


def _of_class(kind: type) -> Iterator[Any]:
    yield kind.__bases__
    yield from sorted((k, v) for k, v in vars(kind).items() if k not in _OF_EVERY_CLASS)


def _attributes(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if is_own(type(value)):
        return sorted(getattr(value, "__dict__", {}).items())
    return []


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def is_own(value: Any) -> bool:
    """Returns whether a module, class or function is the user's: neither installed nor lmjax's."""
    while isinstance(value, functools.partial):
        value = value.func
    module = str(getattr(value, "__module__", None) or getattr(value, "__name__", ""))
    if module.partition(".")[0] in ("lmjax", "builtins"):
        return False
    path = getattr(sys.modules.get(module), "__file__", None) or ""
    in_packages = "site-packages" in path or "dist-packages" in path
    return not in_packages and not path.startswith(sysconfig.get_path("stdlib"))
