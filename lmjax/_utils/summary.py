"""Short descriptions of arrays, for `repr`."""

from typing import Any

import jax
import numpy as np

from lmjax._utils.brief import brief

_SHOWN = 3


def summarize(value: Any) -> str:
    """Describes a value in under 60 characters: numbers in full, arrays by type, shape and range.

    Args:
      value: an array, a number, a tuple of numbers, or anything that stands in the place of one in
        a pytree (such as a tracer).
    """
    if isinstance(value, tuple):
        shown = ", ".join(map(str, value[:_SHOWN]))
        return f"({shown})" if len(value) <= _SHOWN else f"({shown}, ... {len(value)} in all)"
    known = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
    if not known and not isinstance(value, np.ndarray | np.generic | float | int):
        return brief(value)
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array.item():.4g}" if array.dtype.kind == "f" else str(array.item())
    described = f"{array.dtype}{list(array.shape)}"
    if array.size == 0:
        return described
    return f"{described} from {array.min():.4g} to {array.max():.4g}"
