"""Packages whose names are imported when they are first used, so that importing them is cheap."""

import importlib
from collections.abc import Callable, Mapping


def attach(package: str, exports: Mapping[str, str]) -> tuple[Callable, Callable, list[str]]:
    """What a package assigns to `__getattr__`, `__dir__` and `__all__`.

    Args:
      package: its `__name__`.
      exports: public name -> module that holds it, or the module itself where it has that name.
    """

    def getattribute(name: str):
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(exports[name])
        return module if exports[name].endswith(f".{name}") else getattr(module, name)

    return getattribute, lambda: sorted(exports), sorted(exports)
