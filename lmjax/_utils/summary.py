"""Short descriptions of values, for `repr`."""

import sys
from typing import Any

import numpy as np

from lmjax._utils.text import one_line

_SHOWN = 3


def brief(value: Any, *, most: int = 100) -> str:
    """Describes a value in a few words: colours in full, functions by name, arrays as `summarize`.

    Args:
      value: anything.
      most: characters; a longer `repr` is cut off, and its line breaks are spaces.
    """
    if is_concrete(value) or isinstance(value, np.ndarray):
        is_key = not isinstance(value.dtype, np.dtype)  # a random key, whose bits say nothing
        if is_key or (value.ndim == 1 and value.size <= _SHOWN):
            return f"{value.dtype}{list(value.shape)}" if is_key else str(value.tolist())
        return summarize(value)
    text = getattr(value, "__qualname__", None) or repr(value)
    text = one_line(text) if "\n" in text else text
    return text if len(text) <= most else f"{text[: most - 3]}..."


def summarize(value: Any) -> str:
    """Describes a value in under 60 characters: numbers in full, arrays by type, shape and range.

    Args:
      value: an array, a number, a tuple of numbers, or anything that stands in the place of one in
        a pytree (such as a tracer).
    """
    if isinstance(value, tuple):
        shown = ", ".join(map(str, value[:_SHOWN]))
        return f"({shown})" if len(value) <= _SHOWN else f"({shown}, ... {len(value)} in all)"
    if not isinstance(value, np.ndarray | np.generic | float | int) and not is_concrete(value):
        if value is None:
            return "None"
        shape = getattr(value, "shape", None)
        return type(value).__name__ if shape is None else f"{type(value).__name__}{list(shape)}"
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array.item():.4g}" if array.dtype.kind == "f" else str(array.item())
    described = f"{array.dtype}{list(array.shape)}"
    if array.size == 0 or not is_real(array.dtype):
        return described
    return f"{described} from {array.min():.4g} to {array.max():.4g}"


def is_real(dtype: np.dtype) -> bool:
    """Returns whether a type is of real numbers, bool and bfloat16 among them."""
    if dtype.kind in "biuf":
        return True
    import jax.numpy as jnp

    return bool(jnp.issubdtype(dtype, jnp.floating))


def is_concrete(value: Any) -> bool:
    """Returns whether a value is a JAX array whose numbers are known; does not import JAX."""
    jax = sys.modules.get("jax")
    if jax is None or not isinstance(value, getattr(jax, "Array", ())):
        return False
    return not isinstance(value, jax.core.Tracer)
