"""Sizes that arrays are filled up to, so that few shapes compile."""

import numpy as np


def power_of_two(number: int) -> int:
    """Rounds up to a power of two."""
    return 2 ** (number - 1).bit_length()


def segments_size(num_segments: int) -> int:
    """Returns the size that axes of segments are filled up to: a power of two, at least 16."""
    return max(power_of_two(num_segments), 16)


def filled(array: np.ndarray, axis: int) -> np.ndarray:
    """Fills an axis of segments up with zeros."""
    missing = segments_size(array.shape[axis]) - array.shape[axis]
    if missing == 0:
        return array
    return np.pad(array, [(0, missing if a == axis % array.ndim else 0) for a in range(array.ndim)])
