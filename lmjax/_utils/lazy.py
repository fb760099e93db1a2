"""Package attributes that are imported when they are first used."""

import importlib
from collections.abc import Callable, Mapping


def attach(
    package: str, exports: Mapping[str, str], *, replaced: Mapping[str, str] | None = None
) -> tuple[Callable, Callable, list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` for a package that imports lazily.

    Static tools see none of these names: import them under `typing.TYPE_CHECKING` as well.

    Args:
      package: its `__name__`.
      exports: public name -> module that holds it, or the module itself where it has that name.
      replaced: name that an earlier release had -> what to use now, for the error message.
    """

    def getattribute(name: str):
        if replaced is not None and name in replaced:
            raise AttributeError(f"{package}.{name} is gone; use {replaced[name]}")
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(exports[name])
        return module if exports[name].endswith(f".{name}") else getattr(module, name)

    return getattribute, lambda: sorted(exports), sorted(exports)
