"""Windows of an operation over the grid of its operand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.nodes import Node, full_size
from lmjax.masking.transform.operation import Operation
from lmjax.masking.transform.symbols import Slide, still


class Sliding:
    """Windows of an operation over the grid of its operand.

    Attributes:
      slides: for each dimension of the grid; over what is inside; all that is outside is `low`.
      pads: outputs that read nothing but what is outside: they are outside too.
    """

    def __init__(self, operation: Operation, node: Node, windows: Mapping[int, Slide]):
        # Without a window, a dimension stays as it is, with what is outside.
        full = [Slide(1, 1, low, 1, n + low + high) for n, (low, high) in zip(node.grid, node.pads)]
        for axis, window in windows.items():
            dims = node.grid_dims(axis)
            if window == still(node.shape[axis]):
                continue
            if len(dims) != 1 or node.channel_dims(axis):
                operation.fail(f"a window slides over axis {axis}, which is no axis of positions")
            if dims == (0,):
                operation.fail(f"a window slides over axis {axis}, the batch")
            full[dims[0]] = window._replace(low=window.low + node.pads[dims[0]][0])
        found = [_reached(s, n) for s, n in zip(full, node.grid)]
        reached = [r for r in found if r is not None]
        if len(reached) < len(found):
            operation.fail(
                "between windows that read the image there are some that read none of it"
            )
        self.pads = tuple((first, s.outputs - last) for s, (first, last) in zip(full, reached))
        self.slides = [
            s._replace(low=s.low - first * s.stride, outputs=last - first)
            for s, (first, last) in zip(full, reached)
        ]
        if any(s.outputs <= 0 for s in self.slides):
            operation.fail("its windows read nothing of the image")

    @property
    def anything_outside(self) -> bool:
        """Whether some outputs are outside."""
        return any(map(any, self.pads))

    def moves(self) -> list[int]:
        """Returns the dimensions along which the window does something."""
        return [d for d, s in enumerate(self.slides) if d and (s.size, s.stride) != (1, 1)]


def _reached(slide: Slide, length: int) -> tuple[int, int] | None:
    """The outputs that read at least one position: from, and up to; None where there is a gap."""
    starts = np.arange(slide.outputs)[:, None] * slide.stride
    reads = starts + np.array(sorted(slide.offsets()))[None]
    inside = np.asarray(((reads >= 0) & (reads < length)).any(axis=1))
    if not inside.any():
        return 0, 0
    first, last = int(inside.argmax()), len(inside) - int(inside[::-1].argmax())
    return (first, last) if inside[first:last].all() else None


def options_of(slides: Sequence[Slide], grid: Sequence[int]) -> dict[str, Any]:
    """Options of `layers` for windows over rows and columns."""
    rows, columns = slides[1:]
    return {
        "stride": (rows.stride, columns.stride),
        "padding": tuple((s.low, max(0, s.high(n))) for s, n in zip((rows, columns), grid[1:])),
        "dilation": (rows.dilation, columns.dilation),
    }


def uncut(slides: Sequence[Slide], grid: Sequence[int]) -> tuple[list[Slide], list[slice]]:
    """Returns windows without negative padding, and the part of the grid that they slide over."""
    parts, whole = [], []
    for s, n in zip(slides, grid):
        start, cut = max(0, -s.low), -s.high(n)
        stop = n - cut if cut >= s.stride else n
        parts.append(slice(start, stop))
        whole.append(s._replace(low=s.low + start))
    return whole, parts


def part(value: Any, parts: Sequence[slice]) -> Any:
    """Returns part of the grid of a value."""
    x, mask = full_size(value)
    return layers.Masked(x[tuple(parts)], mask[tuple(parts)])


def nothing(operation: Operation, value: float = 0) -> Node:
    """Returns one number, repeated to the shape of an operation's result."""
    aval = operation.aval
    number = np.full([1] * len(aval.shape), value, aval.dtype)
    return Node(aval, (), lambda: number, stored=number.shape, constant=number)


def padded_axes(x: Node) -> list[tuple[int, int]]:
    """Returns for each axis of a traced array how much of it is outside the image."""
    pads = [(0, 0)] * len(x.shape)
    for axis in range(len(x.shape)):
        if x.of_positions(axis) and len(x.grid_dims(axis)) == 1:
            pads[axis] = x.pads[x.grid_dims(axis)[0]]
    return pads
