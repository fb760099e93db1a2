"""Networks: their registry, their weights, and classifiers made of both.

Names are looked up when they are used, so that importing this package stays light.
"""

import importlib

_EXPORTS = {
    "Classifier": "classifier",
    "Preprocessing": "preprocess",
    "WeightSource": "registry",
    "convert": "loading",
    "load": "loading",
    "names": "registry",
    "tags": "registry",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
