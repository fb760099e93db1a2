"""Draws that can be continued: row i depends on the key and on i alone."""

import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lmjax._utils.keys import check_key
from lmjax._utils.sizes import power_of_two


def threefry(key: jax.Array) -> jax.Array:
    """Returns a threefry key: the key itself, or one drawn from a key of another implementation.

    A threefry draw depends on the key and the position alone. Keys of implementation "rbg" promise
    no such thing: their bits depend on the shape of the draw and on the device.
    """
    key = check_key(key)
    if jax.random.key_impl(key) == "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), "uint32"), impl="threefry2x32")


def hash_draws(key: jax.Array) -> str:
    """Hashes a few draws of a key, to tell later whether the same key still gives the same draws.

    They could change with JAX's version and configuration.
    """
    with jax.threefry_partitionable(True):
        drawn = b"".join(np.asarray(each).tobytes() for each in _few_draws(key))
    return hashlib.sha256(drawn).hexdigest()[:16]


@jax.jit  # one program in the place of a handful
def _few_draws(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(threefry(jax.random.fold_in(key, 1)))
    bits = jax.random.bits(first, (4,), np.uint32)
    return bits, jax.random.uniform(second, (4,), np.float32)


def draw_rows(draw: Callable[[int], Any], first: int, last: int) -> Any:
    """Returns rows `first` to `last - 1` of a draw, independent of how many are drawn.

    Args:
      draw: number of rows -> arrays with that leading axis (any pytree of them), from a threefry
        key.
      first: first row.
      last: row to stop before.
    """
    with jax.threefry_partitionable(True):  # bits depend on their position only, not on the shape
        rows = draw(power_of_two(last))
    return jax.tree.map(lambda array: np.asarray(array)[first:last], rows)
