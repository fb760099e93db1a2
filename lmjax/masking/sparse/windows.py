"""Sliding windows, and where they touch a mask."""

from typing import NamedTuple

import numpy as np

from lmjax.masking import layers


class Window(NamedTuple):
    """A sliding window, as in torch; `padding` is the number of zero rows on each side."""

    size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    ceil_mode: bool = False

    def pads(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Returns the rows above and below, columns left and right; see `layers.window_pads`."""
        return layers.window_pads(
            shape,
            window=self.size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
        )

    def outputs(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width of what the window gives on an image of (H, W)."""
        reach = self.dilation * (self.size - 1) + 1
        height, width = (
            (length + sum(pads) - reach) // self.stride + 1
            for length, pads in zip(shape, self.pads(shape))
        )
        return height, width

    def shifts(self, padded: np.ndarray, axis: int) -> list[np.ndarray]:
        """Returns a view of a padded array for each step of the window along one axis."""
        reach = self.dilation * (self.size - 1)
        last = padded.shape[axis] - reach
        views = []
        for start in range(0, reach + 1, self.dilation):
            view: list[slice] = [slice(None)] * padded.ndim
            view[axis] = slice(start, start + last, self.stride)
            views.append(padded[tuple(view)])
        return views


NEIGHBOURS = Window(3, padding=1)
POINT = Window(1)


def touched(mask: np.ndarray, window: Window) -> np.ndarray:
    """Returns where a window touches a mask `[N, H, W]`: `layers.pool_mask` in NumPy."""
    for axis, pads in zip((1, 2), window.pads(mask.shape[1:])):
        around = [(0, 0)] * 3
        around[axis] = pads
        padded = np.pad(mask, around) if any(pads) else mask
        first, *others = window.shifts(padded, axis)
        mask = first.copy()
        for view in others:
            mask |= view
    return mask
