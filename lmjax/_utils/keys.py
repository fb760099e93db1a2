"""The check of random keys."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_WORDS = {(2,), (4,)}  # of keys that are not typed: threefry's and those of rbg


def check_key(key: Any) -> Any:
    """Returns a random key; raises ValueError for anything but one key.

    Args:
      key: of `jax.random.key`, or the two words of `jax.random.PRNGKey`.
    """
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.shape == ():
                return key
            raise ValueError(f"key must be one key, got {key.shape}; take one: key[0]")
        if key.dtype == np.uint32 and key.shape in _WORDS:
            return key
    shown = f"{key.dtype} {key.shape}" if hasattr(key, "shape") else repr(key)
    raise ValueError(f"key must be a random key, such as jax.random.key(0); got {shown}")
