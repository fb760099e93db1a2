"""Sliding windows of any layout, and where they touch a mask.

Rows and columns of an image each have a size, a stride, a dilation, and how many positions outside
the image a window may reach before and behind it.
"""

import operator
from typing import Any, NamedTuple

import numpy as np

from lmjax._utils.summary import brief

# One number for rows and columns, or one for each.
Pair = int | tuple[int, int]
# One number for all sides, (rows, columns), or ((top, bottom), (left, right)).
Padding = Pair | tuple[tuple[int, int], tuple[int, int]]


class Slide(NamedTuple):
    """A sliding window along one axis.

    Attributes:
      size, stride, dilation: as in torch.
      low, high: how many positions outside the image there are before and behind it.
    """

    size: int
    stride: int = 1
    low: int = 0
    high: int = 0
    dilation: int = 1

    @property
    def reach(self) -> int:
        """How many positions there are from a window's first to its last, both included."""
        return self.dilation * (self.size - 1) + 1

    def outputs(self, length: int) -> int:
        """Returns how many windows there are along `length` positions."""
        return (length + self.low + self.high - self.reach) // self.stride + 1

    def ceiled(self, length: int) -> "Slide":
        """Returns a slide with one more window where the last one does not reach the end.

        As torch's pools have it in ceil mode: not where it would begin behind the image.
        """
        left = length + self.low + self.high - self.reach
        steps = -(-left // self.stride)
        if steps * self.stride >= length + self.low:
            steps -= 1
        return self._replace(high=self.high + max(steps * self.stride - left, 0))

    def shifts(self, padded: np.ndarray, axis: int) -> list[np.ndarray]:
        """Returns a view of a padded array for each step of the window along one axis."""
        last = padded.shape[axis] - self.reach + 1
        views = []
        for start in range(0, self.reach, self.dilation):
            view: list[slice] = [slice(None)] * padded.ndim
            view[axis] = slice(start, start + last, self.stride)
            views.append(padded[tuple(view)])
        return views

    def inside(self, length: int) -> np.ndarray:
        """Returns how many positions of each window are inside an image of a length."""
        around = np.pad(np.ones(length, int), (self.low, self.high))
        return np.sum(self.shifts(around, 0), axis=0)


class Window(NamedTuple):
    """A sliding window over images: its slide over rows and its slide over columns."""

    rows: Slide
    columns: Slide

    @classmethod
    def of(cls, size: Pair, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1) -> "Window":
        """Returns the window that torch's arguments mean.

        Args:
          size, stride, dilation: a number, or (rows, columns).
          padding: a number, (rows, columns), or ((top, bottom), (left, right)).

        Raises:
          ValueError: an argument has another form, or is too small.
        """
        sizes, strides = _pair(size, "size"), _pair(stride, "stride")
        pads, dilations = _pads(padding), _pair(dilation, "dilation")
        rows, columns = (
            Slide(size, stride, low, high, dilation if size > 1 else 1)
            for size, stride, (low, high), dilation in zip(sizes, strides, pads, dilations)
        )
        return cls(rows, columns)

    @classmethod
    def over(
        cls,
        shape: tuple[int, ...],
        *,
        window: Pair,
        stride: Pair,
        padding: Padding,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ) -> "Window":
        """Returns the window of a pool over images of (H, W), with the padding of `ceil_mode`."""
        height, width = shape
        made = cls.of(window, stride, padding, dilation)
        if not ceil_mode:
            return made
        return cls(made.rows.ceiled(height), made.columns.ceiled(width))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the window, holes left out."""
        return self.rows.size, self.columns.size

    @property
    def size(self) -> int:
        """How many positions a window has."""
        return self.rows.size * self.columns.size

    @property
    def strides(self) -> tuple[int, int]:
        """The steps down and to the right."""
        return self.rows.stride, self.columns.stride

    @property
    def dilations(self) -> tuple[int, int]:
        """The steps between positions of a window, down and to the right."""
        return self.rows.dilation, self.columns.dilation

    @property
    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The rows above and below, and the columns left and right of an image."""
        return (self.rows.low, self.rows.high), (self.columns.low, self.columns.high)

    @property
    def centred(self) -> tuple[int, int]:
        """The padding, (rows, columns), with which a window of odd size keeps an image's size."""
        return (self.rows.reach - 1) // 2, (self.columns.reach - 1) // 2

    @property
    def rings(self) -> int:
        """How many rings around what is visible a window that touches it can read."""
        return max(self.rows.reach, self.columns.reach) - 1

    def outputs(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width of what the window gives on an image of (H, W)."""
        return self.rows.outputs(shape[0]), self.columns.outputs(shape[1])

    def inside(self, shape: tuple[int, int]) -> np.ndarray:
        """Returns how many positions of each window are inside an image of (H, W)."""
        return np.outer(self.rows.inside(shape[0]), self.columns.inside(shape[1]))

    def widened(self, rings: int) -> "Window":
        """Returns the window of all that an output depends on where rings are filled first."""
        rows, columns = (
            Slide(slide.reach + 2 * rings, slide.stride, slide.low + rings, slide.high + rings)
            for slide in self
        )
        return Window(rows, columns)

    def unpadded(self) -> "Window":
        """Returns the window that stays inside an image."""
        rows, columns = (slide._replace(low=0, high=0) for slide in self)
        return Window(rows, columns)


def _pair(value: Any, name: str, least: int = 1) -> tuple[int, int]:
    both = value if isinstance(value, tuple | list) else (value, value)
    try:
        first, second = map(operator.index, both)
    except (TypeError, ValueError):
        raise _not_a_pair(value, name, least) from None
    if min(first, second) < least:
        raise _not_a_pair(value, name, least)
    return first, second


def _not_a_pair(value: Any, name: str, least: int) -> ValueError:
    return ValueError(
        f"{name} must be an int of at least {least} or a pair (rows, columns) of these, got "
        f"{brief(value)}"
    )


def _pads(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """The rows above and below, columns left and right, of a padding as users write it."""
    try:
        above, left = padding if isinstance(padding, tuple | list) else (padding, padding)
        return _pair(above, "padding", least=0), _pair(left, "padding", least=0)
    except (TypeError, ValueError):
        raise ValueError(
            "padding must be an int of at least 0, a pair (rows, columns), or a pair of pairs "
            f"((top, bottom), (left, right)), got {brief(padding)}; negative padding is not "
            "supported: crop the images instead"
        ) from None


def same_padding(
    shape: tuple[int, int], size: Pair, stride: Pair = 1, dilation: Pair = 1
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns TensorFlow's `"SAME"` padding, `((top, bottom), (left, right))`.

    As many outputs as the image has places for steps, and where padding is odd one more behind.

    Args:
      shape: (H, W) of the image.
      size, stride, dilation: as in `Window.of`.
    """
    top, left = (
        _same_pads(length, slide)
        for length, slide in zip(shape, Window.of(size, stride, 0, dilation))
    )
    return top, left


def _same_pads(length: int, slide: Slide) -> tuple[int, int]:
    outputs = -(-length // slide.stride)
    total = max((outputs - 1) * slide.stride + slide.reach - length, 0)
    return total // 2, total - total // 2


POINT = Window.of(1)
NEIGHBOURS = Window.of(3, padding=1)


def touched(mask: np.ndarray, window: Window) -> np.ndarray:
    """Returns where a window touches a mask `[N, H, W]`: `layers.pool_mask` in NumPy."""
    for axis, slide in zip((1, 2), window):
        around = [(0, 0)] * 3
        around[axis] = slide.low, slide.high
        padded = np.pad(mask, around) if any(around[axis]) else mask
        first, *others = slide.shifts(padded, axis)
        mask = first.copy()
        for view in others:
            mask |= view
    return mask
