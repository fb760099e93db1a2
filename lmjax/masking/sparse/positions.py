"""Sets of positions and what a network reads of them, known before any mask is.

A masked network computes on *rows*: one for each visible position of each variant. Which positions
are visible behind a layer follows from the masks and from the layer's window alone. So a network is
traced on *symbolic* positions: `Positions` know how they were made (a window over others, a ring
around them, an intersection), and a `Layout` records which sets there are and which index arrays
the layers read. The arrays themselves are made from masks, outside the compiled program, by
`lmjax.masking.sparse.allocation`. Only the number of rows of each set is static: its *capacity*.

    layout = Layout(num_variants=N)                    # first: which sets and arrays are there?
    network(Pixels(images, masks, layout))             # under jax.eval_shape

    rows = Allocation(masks, layout, capacities)       # then, for masks: which row has what?
    network(Pixels(images, masks, Layout(capacities, rows.arrays(), num_variants=N)))  # under jit
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.windows import NEIGHBOURS, POINT, Window

# Costs are in multiplications of a convolution on full-size activations, and were fitted to the
# times of eight networks on CPU (`benchmarks/RESULTS.md`): a multiplication on rows; a row that is
# gathered for a place of a window or for a ring, however wide; and on full-size activations a
# number that a convolution reads or writes, which masks, norms and rings go over too.
_ON_ROWS, _GATHERED_ROW, _FULL_SIZE_NUMBER = 1.2, 3400, 38
# Depthwise convolutions are bound by memory: on rows, each of their own multiplications; on
# full-size activations, a channel of a position, for any window.
_DEPTHWISE_ON_ROWS, _DEPTHWISE_AT_FULL_SIZE = 100, 400
# Grouped convolutions: a multiplication, where groups that are computed together on full-size
# activations count with the zeros between them. So they do on rows, where none are multiplied.
_GROUPED_ON_ROWS, _GROUPED_AT_FULL_SIZE = 7.0, 1.7


_OTHER_NETWORK = (
    "the network's operations depend on how many variants it is given together; take engine='dense'"
)


class Request(NamedTuple):
    """An index array that a layer reads.

    Attributes:
      kind: method of `Allocation` that makes it.
      arguments: of the method: positions, windows, numbers.
    """

    kind: str
    arguments: tuple

    @property
    def origin(self) -> int:
        """A hash of what the request is, equal in all traces of a network."""
        return hash((self.kind, tuple(map(_origin, self.arguments))))


def _origin(value: Any) -> Any:
    return value.origin if isinstance(value, Positions) else value


class Work(NamedTuple):
    """What a convolution of a network, or a ring of its neighbor padding, has to do.

    Attributes:
      seam: how many seams are before it.
      number: of the set of its outputs.
      gathered: rows that are gathered for a row of the set; 0 where it has them.
      kernel: (kh, kw, C / groups, K) of a convolution; empty for a ring.
      channels: C, of the inputs of a convolution; 0 for a ring.
    """

    seam: int
    number: int
    gathered: int
    kernel: tuple[int, ...]
    channels: int

    def on_rows(self) -> float:
        """Returns what a row of the set costs, in multiplications of dense convolutions."""
        if not self.kernel:
            return self.gathered * _GATHERED_ROW
        if self._depthwise:  # its gathers are among its multiplications
            return math.prod(self.kernel) * _DEPTHWISE_ON_ROWS
        if self._grouped:  # here too
            return self._multiplications() * _GROUPED_ON_ROWS
        return self._multiplications() * _ON_ROWS + self.gathered * _GATHERED_ROW

    def at_full_size(self) -> float:
        """Returns what a position costs on full-size activations, likewise."""
        if not self.kernel:
            return 0.0
        if self._depthwise:
            return self.channels * _DEPTHWISE_AT_FULL_SIZE
        each = _GROUPED_AT_FULL_SIZE if self._grouped else 1
        numbers = self.channels + self.kernel[-1]
        return self._multiplications() * each + numbers * _FULL_SIZE_NUMBER

    @property
    def _depthwise(self) -> bool:
        return self._grouped and self.kernel[2] == 1 and self.channels == self.kernel[3]

    @property
    def _grouped(self) -> bool:
        return self.kernel[2] < self.channels

    def _multiplications(self) -> int:
        """Multiplications for a row of the set, with those of zeros between groups."""
        inputs, outputs = self.kernel[2:]
        groups = self.channels // inputs
        together = min(layers._groups_together(inputs, outputs // groups), groups)
        return math.prod(self.kernel) * together


class Passed(NamedTuple):
    """What a layout holds at a seam.

    Attributes:
      sets: how many sets of positions.
      requests: how many index arrays.
      positions: of the rows that stand there.
    """

    sets: int
    requests: int
    positions: "Positions"


class Cut(Exception):
    """Raised where a layout stops, at a seam; holds the rows there."""

    def __init__(self, rows: Any):
        super().__init__("the network is cut here")
        self.rows = rows


class Layout:
    """Gives sets of positions their numbers, and layers the index arrays that they read.

    Without `arrays` it records: arrays are zeros, and every set has one row.

    Attributes:
      capacities: rows of each set; None gives one row to each.
      num_variants: N.
      sharing: whether variants share rows (`lmjax.masking.sparse.sharing`).
      stop: number of the seam at which `Cut` is raised, counted from 1; None runs to the end.
      sets: the sets so far.
      requests: the index arrays so far, in the order in which layers ask for them.
      noted: the work of convolutions and rings so far.
      passed: the seams so far.
      mixed: whether positions of whole images have been mixed (squeeze-and-excitation). Behind that
        there are no more seams: rows of all variants differ, and sharing ends.
    """

    def __init__(
        self,
        capacities: Sequence[int] | None = None,
        arrays: Sequence[jax.Array] | None = None,
        *,
        num_variants: int,
        recorded: Sequence[int] | None = None,
        sharing: bool = False,
        stop: int | None = None,
        start: int = 0,
        resume: Callable[[Any], Any] | None = None,
    ):
        """Starts a layout.

        Args:
          capacities, arrays, num_variants, sharing, stop: see the class.
          recorded: with arrays, the `origins` of the layout that they were made for.
          start: number of the seam from which on sets have rows; before it, nothing is computed.
          resume: what goes on there, from the rows that stand at the seam (only their positions
            mean something).
        """
        self.capacities, self._arrays, self._recorded = capacities, arrays, recorded
        self.num_variants, self.sharing, self.stop = num_variants, sharing, stop
        self._start, self._resume = start, resume
        self.active = start == 0
        self.sets: list[Positions] = []
        self.requests: list[Request] = []
        self.noted: list[Work] = []
        self.passed: list[Passed] = []
        self.mixed = False
        self._made: dict[Request, jax.Array] = {}
        self._pixels: dict = {}

    @property
    def seams(self) -> int:
        """How many seams have been passed."""
        return len(self.passed)

    def until(self, seam: int) -> "Layout":
        """Returns what recording would have given had it stopped at a seam that was passed.

        Args:
          seam: its number, counted from 1. Sets must have rows from the start.
        """
        assert self._start == 0 < seam <= self.seams
        layout = Layout(num_variants=self.num_variants, sharing=self.sharing, stop=seam)
        layout.passed = self.passed[:seam]
        last = layout.passed[-1]
        layout.sets, layout.requests = self.sets[: last.sets], self.requests[: last.requests]
        layout.noted = [work for work in self.noted if work.seam < seam]
        return layout

    def add(self, kind: str, parents: tuple, window: Window | None, shape: tuple[int, int]):
        """Returns a new set of positions, with rows of its own; raises RuntimeError as `array`."""
        if not self.active:
            return Positions(self, kind, parents, window, shape, number=-1, capacity=1)
        number = len(self.sets)
        if self.capacities is not None and number >= len(self.capacities):
            raise RuntimeError(_OTHER_NETWORK)
        capacity = 1 if self.capacities is None else self.capacities[number]
        made = Positions(self, kind, parents, window, shape, number=number, capacity=capacity)
        self.sets.append(made)
        return made

    def pixels(self, shape: tuple[int, int]) -> "Positions":
        """Returns the visible pixels, which have no rows."""
        # Sets that are made before the network goes on at a seam have no rows behind it.
        key = shape, self.active
        if key not in self._pixels:
            self._pixels[key] = Positions(self, "input", (), None, shape, number=-1, capacity=0)
        return self._pixels[key]

    def array(self, kind: str, *arguments, shape: tuple[int, ...], dtype=jnp.int32) -> jax.Array:
        """Returns an index array, of a shape, that `Allocation` makes by its method `kind`.

        Raises:
          RuntimeError: the network asks for something else than when it was recorded.
        """
        request = Request(kind, arguments)
        if not self.active:
            return jnp.zeros(shape, dtype)
        if request not in self._made:
            made = jnp.zeros(shape, dtype) if self._arrays is None else self._given(request)
            self.requests.append(request)
            self._made[request] = made
        return self._made[request]

    def _given(self, request: Request) -> jax.Array:
        """The array that was made for the next request."""
        assert self._arrays is not None
        number = len(self.requests)
        if self._recorded is not None and self._recorded[number : number + 1] != (request.origin,):
            raise RuntimeError(_OTHER_NETWORK)
        return jnp.asarray(self._arrays[number])

    @property
    def origins(self) -> tuple[int, ...]:
        """What was requested, to compare with another trace of the network."""
        return tuple(request.origin for request in self.requests)

    def forget_arrays(self) -> None:
        """Drops the index arrays; where a network is traced, they may not outlive the trace."""
        self._made.clear()

    def note_convolution(
        self,
        positions: "Positions",
        kernel_shape: tuple[int, ...],
        *,
        channels: int,
        gathered: int = 0,
    ) -> None:
        """Notes a convolution.

        Args:
          positions: of its outputs.
          kernel_shape: (kh, kw, C / groups, K).
          channels: C, of its inputs.
          gathered: rows that are gathered for a row of its outputs.
        """
        self._note(positions, gathered, kernel_shape, channels)

    def note_ring(self, ring: "Positions", gathered: int) -> None:
        """Notes a ring of neighbor padding, each row of which gathers some rows."""
        self._note(ring, gathered, (), 0)

    def _note(
        self, positions: "Positions", gathered: int, kernel: tuple[int, ...], channels: int
    ) -> None:
        if self.active:
            self.noted.append(Work(self.seams, positions.number, gathered, kernel, channels))

    @property
    def convolutions(self) -> int:
        """How many convolutions have been noted."""
        return sum(bool(each.kernel) for each in self.noted)

    def mix(self) -> None:
        """Notes that positions of whole images are mixed from here on."""
        self.mixed = True

    def seam(self, rows: Any) -> Any:
        """Returns what goes on behind a seam of the network.

        Raises:
          Cut: at the seam at which this layout stops.
        """
        if self.mixed:
            return rows
        self.passed.append(Passed(len(self.sets), len(self.requests), rows.mask))
        if self.seams == self.stop:
            raise Cut(rows)
        if self.seams == self._start and self._resume is not None:
            self.active = True
            return self._resume(rows)
        return rows

    def costs(self) -> np.ndarray:
        """Returns what a row of each set costs between two seams, `[seams + 1, P]`.

        In multiplications of dense convolutions.
        """
        costs = np.zeros((self.seams + 1, len(self.sets)))
        for each in self.noted:
            costs[each.seam, each.number] += each.on_rows()
        return costs

    def costs_at_full_size(self) -> np.ndarray:
        """Returns what a variant costs between seams on full-size activations, `[seams + 1]`."""
        costs, full = np.zeros(self.seams + 1), self.full()
        for each in self.noted:
            costs[each.seam] += full[each.number] * each.at_full_size()
        return costs

    def full(self) -> np.ndarray:
        """Returns how many rows a wholly visible variant has in each set, `[P]`."""
        return np.array([positions.shape[0] * positions.shape[1] for positions in self.sets], int)


class Positions:
    """Some positions of all variants, known by how they were made.

    Positions made in the same way are one object, so that layers share index arrays.

    Attributes:
      layout: of the network.
      kind: how they were made: "input", "window", "first", "ring", "ringed", "both", "kept",
        "alone"; see `lmjax.masking.sparse.allocation`.
      parents: the positions they were made from.
      window: the sliding window, where there was one.
      shape: (H, W) of the images they are in.
      number: of the set that their rows belong to.
      capacity: how many rows there are.
      origin: a hash of how they were made, equal in all traces of a network.
    """

    def __init__(self, layout, kind, parents, window, shape, *, number, capacity):
        self.layout, self.kind, self.parents, self.window = layout, kind, parents, window
        self.shape, self.number, self.capacity = shape, number, capacity
        self.origin = hash((kind, window, shape, number, tuple(map(_origin, parents))))
        self._made: dict = {}

    def _once(self, key, make):
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def first(self, window: Window, reach: Window) -> "Positions":
        """Returns where the first convolution's window touches pixels.

        Args:
          window: of the convolution.
          reach: window of all pixels that an output depends on, rings included.
        """
        shape, make = window.outputs(self.shape), self.layout.add
        return self._once(
            ("first", window, reach), lambda: make("first", (self, reach), window, shape)
        )

    def after(self, window: Window) -> "Positions":
        """Returns where a window touches these positions."""
        if window == POINT:
            return self
        shape = window.outputs(self.shape)
        make = self.layout.add
        return self._once(("after", window), lambda: make("window", (self,), window, shape))

    def outputs(self, before: "Positions", window: Window, keep: "Positions | None") -> "Positions":
        """Returns the positions of a convolution's outputs, which reads these.

        Args:
          before: the positions without the rings that these may have.
          window: of the convolution.
          keep: as in `lmjax.masking.layers.conv`.
        """
        if not self.layout.sharing:
            return before.after(window) if keep is None else keep
        if keep is None and self is before:
            return self.after(window)
        # Variants that agree in a kept output may differ in what the convolution reads.
        shape = window.outputs(self.shape)
        return self._once(
            ("outputs", before, keep, window),
            lambda: self.layout.add("kept", (self, before, keep), window, shape),
        )

    def ring(self) -> "Positions":
        """Returns the positions beside these."""
        return self._once("ring", lambda: self.layout.add("ring", (self,), NEIGHBOURS, self.shape))

    def with_ring(self) -> "Positions":
        """Returns these positions and, in rows behind theirs, the ring."""
        return self._once("with ring", self._with_ring)

    def _with_ring(self) -> "Positions":
        ring = self.ring()
        return Positions(
            self.layout,
            "ringed",
            (self, ring),
            None,
            self.shape,
            number=self.number,
            capacity=self.capacity + ring.capacity,
        )

    def both(self, other: "Positions") -> "Positions":
        """Returns the intersection."""
        if other is self or other is self.finer_than:
            return self
        if self is other.finer_than:
            return other
        make = self.layout.add
        return self._once(("both", other), lambda: make("both", (self, other), None, self.shape))

    def alone(self) -> "Positions":
        """Returns the same positions with rows that no variants share."""
        return self.layout.add("alone", (self,), None, self.shape)

    @property
    def finer_than(self) -> "Positions | None":
        """Positions with the same mask whose variants share at least the rows that these share."""
        return self.parents[2] if self.kind == "kept" else None

    def read_by(self, target: "Positions", window: Window) -> jax.Array:
        """Returns the rows that the windows of the target's rows read, `[kh * kw, R]`.

        Where there is none, it is the row behind the last.
        """
        shape = window.size, target.capacity
        return self.layout.array("read", self, target, window, shape=shape)

    def index(self) -> jax.Array:
        """Returns the row of each position, `[N, H, W]`; the row behind the last for none."""
        return self.layout.array("index", self, shape=(self.layout.num_variants, *self.shape))

    def flat(self) -> jax.Array:
        """Returns each row's position, `[R]`, counted through `[N, H, W]`; N H W for none."""
        return self.layout.array("flat", self, shape=(self.capacity,))

    def check_images_apart(self) -> None:
        """Notes that rows meet something of their own image.

        Raises:
          TypeError: rows belong to several.
        """
        self.layout.mix()
        if self.layout.sharing and self.layout.active:
            raise TypeError("rows that variants share belong to no single image")

    def variants(self) -> jax.Array:
        """Returns which variant each row belongs to, `[R]`; N for rows that are not in use."""
        self.check_images_apart()
        return self.layout.array("variants", self, shape=(self.capacity,))

    def in_use(self) -> jax.Array:
        """Returns which rows stand for a position, `[R]` bool."""
        return self.layout.array("in_use", self, shape=(self.capacity,), dtype=jnp.bool_)

    def sizes(self) -> jax.Array:
        """Returns how many positions each variant has, float32 `[N]`."""
        return self.layout.array(
            "sizes", self, shape=(self.layout.num_variants,), dtype=jnp.float32
        )

    def mask(self) -> jax.Array:
        """Returns which positions these are, bool `[N, H, W]`."""
        shape = self.layout.num_variants, *self.shape
        return self.layout.array("mask", self, shape=shape, dtype=jnp.bool_)

    def beyond(self, source: "Positions", window: Window) -> jax.Array:
        """Returns which rows' windows over `source` reach beyond the image, `[R]` bool."""
        shape = (self.capacity,)
        return self.layout.array("beyond", self, source, window, shape=shape, dtype=jnp.bool_)

    def corners(self, source: "Positions", window: Window) -> jax.Array:
        """Returns where each row's window starts, `[R]`, counted through padded images."""
        return self.layout.array("corners", self, source, window, shape=(self.capacity,))
