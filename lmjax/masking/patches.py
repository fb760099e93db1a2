"""Patches: the squares of pixels that a transformer is shown, or not shown, as a whole."""

from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)


def whole_patches(masks: Array, size: int) -> Array:
    """Hides every patch of which a mask hides a pixel: what token dropping leaves visible.

    Args:
      masks: bool `[..., H, W]`, True = visible, of NumPy or JAX.
      size: side of a patch, in pixels.

    Returns:
      bool `[..., H, W]`.

    Raises:
      ValueError: height or width is not a multiple of `size`.
    """
    *leading, height, width = masks.shape
    if height % size or width % size:
        raise ValueError(
            f"masks of {height} x {width} pixels are not made of patches of {size} x {size}; take "
            "a height and a width that are multiples of it"
        )
    patches = masks.reshape(*leading, height // size, size, width // size, size)
    return patches.all(axis=(-3, -1)).repeat(size, axis=-2).repeat(size, axis=-1)
