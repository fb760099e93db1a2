"""Sources of images with ground truth: digit scenes, made offline.

Names are looked up when they are used, so that importing this package stays light.
"""

import importlib

_EXPORTS = {
    "DigitScenes": "digit_scenes",
    "Scene": "digit_scenes",
    "prepare_digit_scenes": "digit_scenes_builder",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
