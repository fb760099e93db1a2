"""Symbolic masks: how a mask was made is known, its values are not.

While a function is traced, every value with positions has a `Symbol` for its mask. Equal symbols are
one object, and some can be proved to lie within others ("a window of odd size at stride 1 contains
its centre"). So it is known before anything runs which rings of neighbor padding a kept output can
read.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Slide(NamedTuple):
    """A sliding window along one dimension.

    Attributes:
      size, stride, dilation: as in torch.
      low: positions outside the image in front; negative where some are cut off.
      outputs: how many windows there are.
    """

    size: int
    stride: int
    low: int
    dilation: int
    outputs: int

    @property
    def first(self) -> int:
        """Where the first window begins."""
        return -self.low

    @property
    def last(self) -> int:
        """The last position of the first window."""
        return -self.low + self.dilation * (self.size - 1)

    def high(self, length: int) -> int:
        """Returns the positions outside an image of this length behind; negative: cut off."""
        return (self.outputs - 1) * self.stride + self.last + 1 - length

    def offsets(self) -> set[int]:
        """Returns the positions that the first window reads."""
        return set(range(self.first, self.last + 1, self.dilation))


def still(length: int) -> Slide:
    """Returns the window that changes nothing."""
    return Slide(1, 1, 0, 1, length)


class Symbol:
    """A symbolic mask on a grid: the batch first, then positions.

    Attributes:
      shape: of the grid.
      kind: how it was made: `"given"`, `"window"`, `"both"` or `"other"`.
      parents: the symbols it was made from.
      slides: for a window, one for each dimension.
      of: for each dimension the axes of the image that its positions come from.
    """

    def __init__(
        self,
        shape: Sequence[int],
        kind: str = "given",
        parents: tuple["Symbol", ...] = (),
        slides: tuple[Slide, ...] = (),
        of: Sequence[frozenset[int]] | None = None,
    ):
        self.shape, self.kind, self.parents, self.slides = tuple(shape), kind, parents, slides
        own = [frozenset((d,)) for d in range(len(self.shape))]
        self.of: tuple[frozenset[int], ...] = tuple(own if of is None else of)
        self._made: dict = {}

    def once(self, key, make):
        """Returns what was made under this key before, or makes it."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def sources(self, dims: Iterable[int]) -> frozenset[int]:
        """Returns the axes of the image that the positions of some dimensions come from."""
        return frozenset[int]().union(*(self.of[d] for d in dims))

    @property
    def positions(self) -> int:
        """How many positions an image has."""
        return math.prod(self.shape[1:])

    def window(self, slides: Sequence[Slide]) -> "Symbol":
        """Returns where a window touches this mask."""
        slides = tuple(s._replace(dilation=1) if s.size == 1 else s for s in slides)
        if all(s == still(n) for s, n in zip(slides, self.shape)):
            return self
        shape = [s.outputs for s in slides]
        return self.once(
            ("window", slides), lambda: Symbol(shape, "window", (self,), slides, self.of)
        )

    def both(self, other: "Symbol") -> "Symbol":
        """Returns the intersection."""
        if within(self, other):
            return self
        if within(other, self):
            return other
        return self.once(
            ("both", other), lambda: Symbol(self.shape, "both", (self, other), of=self.of)
        )

    def other(
        self, key, shape: Sequence[int], of: Sequence[frozenset[int]] | None = None
    ) -> "Symbol":
        """Returns a mask of which nothing is known but that equal keys give equal masks.

        Args:
          key: how it is made.
          shape: of its grid.
          of: see the class; None keeps that of this mask, whose dimensions correspond.
        """
        shape, of = tuple(shape), tuple(self.of if of is None else of)
        assert len(of) == len(shape)
        return self.once((key, shape), lambda: Symbol(shape, "other", (self,), of=of))


def within(inner: Symbol, outer: Symbol) -> bool:
    """Returns whether `inner` lies within `outer` for all masks, as far as can be proved."""
    if inner is outer:
        return True
    if inner.shape != outer.shape:
        return False
    return inner.once(("within", outer), lambda: _within(inner, outer))


def _within(inner: Symbol, outer: Symbol) -> bool:
    if outer.kind == "window":
        source = outer.parents[0]
        centred = all(s.stride == 1 and 0 in s.offsets() for s in outer.slides)
        if centred and within(inner, source):
            return True
        if inner.kind == "window" and inner.parents[0].shape == source.shape:
            wider = all(
                a.stride == b.stride and a.offsets() <= b.offsets()
                for a, b in zip(inner.slides, outer.slides)
            )
            if wider and within(inner.parents[0], source):
                return True
    if inner.kind == "both" and any(within(each, outer) for each in inner.parents):
        return True
    return outer.kind == "both" and all(within(inner, each) for each in outer.parents)


def rings_needed(mask: Symbol, kept: Symbol, slides: Sequence[Slide]) -> int:
    """Returns how many rings of neighbor padding a convolution's kept outputs can read.

    Distances are to a position that is known to be visible: for windows that touch the mask one
    within the window, for outputs that are kept on less, one that is nearer.

    Args:
      mask: of the convolution's input.
      kept: the outputs that later layers read, on the output's grid.
      slides: the convolution's window.
    """
    reads = [(s.first, s.last) for s in slides]
    found = [max(last - first for first, last in reads)]
    for source, box in _visible_boxes(kept, mask, slides):
        if within(source, mask):
            found.append(max(max(b - low, high - a) for (low, high), (a, b) in zip(reads, box)))
    if all(s.stride == 1 for s in slides):
        found += _dilated(mask, kept, reads)
    return min(found)


def _visible_boxes(kept: Symbol, mask: Symbol, slides: Sequence[Slide]):
    """Masks and boxes: each kept output has a visible position of the mask in its box."""
    strides, outputs = [s.stride for s in slides], tuple(s.outputs for s in slides)
    if kept.kind == "window" and kept.shape == outputs:
        if [s.stride for s in kept.slides] == strides:
            yield kept.parents[0], [(s.first, s.last) for s in kept.slides]
    if set(strides) == {1} and kept.shape == mask.shape == outputs:
        yield kept, [(0, 0)] * len(strides)
    if kept.kind == "both":
        for each in kept.parents:
            yield from _visible_boxes(each, mask, slides)


def _dilated(mask: Symbol, kept: Symbol, reads: list[tuple[int, int]]) -> list[int]:
    """Rings where the mask is a wider one of the outputs that are kept."""
    found, wide = [], [(0, 0)] * len(reads)
    while mask.kind == "window" and all(s.stride == s.dilation == 1 for s in mask.slides):
        wide = [(a + s.first, b + s.last) for (a, b), s in zip(wide, mask.slides)]
        mask = mask.parents[0]
        if within(kept, mask):
            beyond = (max(0, high + a, -b - low) for (low, high), (a, b) in zip(reads, wide))
            found.append(max(beyond))
    return found
