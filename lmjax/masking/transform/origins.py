"""What is known of how a value came about, for rules that look further back than one operation."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lmjax.masking.transform.symbols import Slide

if TYPE_CHECKING:
    from lmjax.masking.transform.nodes import Node

Axes = tuple[tuple[int, ...], ...]


class Outside(NamedTuple):
    """Positions that a function itself put around an image: neither visible nor hidden.

    Attributes:
      pads: how many there are in front of and behind each dimension of the grid.
      fill: a plain node that broadcasts to the array: the values there.
    """

    pads: tuple[tuple[int, int], ...]
    fill: "Node"


class Weight(NamedTuple):
    """How many visible positions each value of a node stands for.

    Attributes:
      counts: a node of the same shape.
      pooled: the axes of the image that were pooled: when they are pooled again, it is over
        results, which count alike.
    """

    counts: "Node"
    pooled: frozenset[int]


class Share(NamedTuple):
    """How much each position counts in a sum: it was multiplied by numbers.

    Attributes:
      numbers: of the traced shape; None where they are not known any more.
    """

    numbers: np.ndarray | None


class Place(NamedTuple):
    """Where in another value the positions of a node lie.

    Attributes:
      source: the other value.
      cut: the axes of the image along which it was cut.
    """

    source: "Node"
    cut: frozenset[int]


class Slices(NamedTuple):
    """How a node was made from slices of one value.

    Attributes:
      source: the value.
      windows: for each slice, its windows of one position on the axes of the source.
      how: `"max"`, `"min"` or `"add"` where several are joined, else None.
      factors: what each slice was multiplied by.
    """

    source: "Node"
    windows: tuple[tuple[Slide, ...], ...]
    how: str | None
    factors: tuple[float, ...]

    def fits(self, how: str) -> bool:
        """Returns whether more slices can be joined to these in some way."""
        plain = how == "add" or set(self.factors) == {1.0}
        return self.how in (None, how) and plain

    def joined(self, other: "Slices", how: str) -> "Slices":
        """Returns these slices and others."""
        windows = (*self.windows, *other.windows)
        return Slices(self.source, windows, how, (*self.factors, *other.factors))

    def scaled(self, factor: float) -> "Slices":
        """Returns the same slices, multiplied."""
        return self._replace(factors=tuple(f * factor for f in self.factors))
