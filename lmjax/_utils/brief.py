"""Values in a few words, for `repr`."""

from typing import Any

import jax
import numpy as np
from jax import core

_SHOWN = 4  # numbers of an array that are worth showing


def brief(value: Any, *, most: int = 100) -> str:
    """Returns a value in a few words: large arrays by dtype and shape, functions by name.

    Args:
      value: anything.
      most: characters; a longer `repr` is cut off.
    """
    if isinstance(value, jax.Array | np.ndarray):
        known = isinstance(value, np.ndarray) or not isinstance(value, core.Tracer)
        if known and value.ndim > 0 and value.size <= _SHOWN:
            return str(np.asarray(value).tolist())
        return f"{value.dtype}{list(value.shape)}"
    text = getattr(value, "__qualname__", None) or repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
