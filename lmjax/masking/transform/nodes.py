"""Values of a traced function: which axes are positions, and how they are stored.

A traced function has its own layout: channels first, positions merged into one axis, heads split
off. What is computed stands in one layout throughout: `Masked` values (or rows) whose positions
come first and whose channels are one axis behind them. A node says which axis of the traced array
stands for which stored dimensions. So transposes, squeezes and most reshapes compute nothing.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.masking.transform.origins import Axes, Outside, Place, Share, Slices, Weight
from lmjax.masking.transform.symbols import Symbol


class LayerMaskError(TypeError):
    """Raised where a function touches masked positions in a way that has no rule."""


class Node:
    """A value of the traced function.

    Attributes:
      shape, dtype: of the traced array.
      inputs: the nodes that it is computed from.
      run: function of the values of the inputs that gives its value.
      mask: its symbolic mask; None for a plain array, which has no hidden positions.
      channels: sizes of the stored channels, in order; their product is the last stored axis.
      axes: for each axis of the traced array the stored dimensions that it stands for, first those
        of the grid, then channels; `()` where it has one entry or repeats one.
      outside: what the function put around the image, or None.
      stored: of a plain array its shape as it is held: 1 along axes that repeat one entry.
      constant: the value of a plain array where it is known while tracing, else None.
      slices: where it was made from slices of one value, which ones.
      weight: where values are sums over some positions, how many visible ones each stands for.
      share: where positions were multiplied by numbers, how much each counts in a sum.
      place: where it holds some positions of another value, which ones.
      number: nodes are numbered in the order in which they are made, inputs first.
    """

    _numbers = itertools.count()

    def __init__(
        self,
        aval: Any,
        inputs: Sequence["Node"] = (),
        run: Callable[..., Any] | None = None,
        *,
        mask: Symbol | None = None,
        axes: Axes = (),
        channels: Sequence[int] = (),
        outside: Outside | None = None,
        stored: Sequence[int] | None = None,
        constant: np.ndarray | None = None,
    ):
        self.shape, self.dtype = tuple(aval.shape), aval.dtype
        self.weak_type = getattr(aval, "weak_type", False)
        self.inputs, self.run = tuple(inputs), run
        self.mask, self.axes, self.channels = mask, tuple(axes), tuple(channels)
        self.outside = outside
        self.stored = self.shape if stored is None else tuple(stored)
        self.constant = constant
        self.slices: Slices | None = None
        self.weight: Weight | None = None
        self.place: Place | None = None
        self.share: Share | None = None
        self.number = next(Node._numbers)

    @property
    def masked(self) -> bool:
        """Whether it has positions that may be hidden."""
        return self.mask is not None

    @property
    def symbol(self) -> Symbol:
        """The symbolic mask of a node that has one."""
        assert self.mask is not None
        return self.mask

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the stored grid: batch, then positions."""
        return self.symbol.shape

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """Positions outside the image, for each dimension of the grid."""
        return ((0, 0),) * len(self.grid) if self.outside is None else self.outside.pads

    def grid_dims(self, axis: int) -> tuple[int, ...]:
        """Returns the dimensions of the grid that an axis stands for."""
        return tuple(d for d in self.axes[axis] if d < len(self.grid))

    def channel_dims(self, axis: int) -> tuple[int, ...]:
        """Returns the channels that an axis stands for, counted from 0."""
        return tuple(d - len(self.grid) for d in self.axes[axis] if d >= len(self.grid))

    def of_positions(self, axis: int) -> bool:
        """Returns whether an axis stands for positions."""
        return any(d > 0 for d in self.grid_dims(axis))

    @property
    def merged(self) -> tuple[int, ...]:
        """The axes that stand for positions and channels together, as in a flattened image."""
        return tuple(
            axis
            for axis in range(len(self.shape))
            if self.of_positions(axis) and self.channel_dims(axis)
        )

    def array(self, value: Masked) -> jax.Array:
        """Returns the traced array, in its own layout, from the stored value."""
        x = value.x.reshape(*self.grid, *self.channels)
        if self.outside is not None:
            raise LayerMaskError("it has positions outside the image")
        return _arranged(x, self.axes, self.shape)

    def mask_array(self, mask: jax.Array) -> jax.Array:
        """Returns the mask of a stored value, in the traced layout; it broadcasts to the array."""
        x = mask.reshape(*self.grid, *(1 for _ in self.channels))
        narrow = [n if self.grid_dims(i) else 1 for i, n in enumerate(self.shape)]
        return _arranged(x, self.axes, narrow, partly=True)

    def store(self, array: jax.Array) -> jax.Array:
        """Returns a traced array as it is stored, `[*grid, C]`; the opposite of `array`."""
        sizes = (*self.grid, *self.channels)
        order = [d for dims in self.axes for d in dims]
        array = array.reshape([sizes[d] for d in order])
        missing = [d for d in range(len(sizes)) if d not in order]
        array = jnp.expand_dims(array, tuple(range(len(order), len(order) + len(missing))))
        array = jnp.transpose(array, inverse([*order, *missing]))
        return array.reshape(*self.grid, math.prod(self.channels))


def _arranged(x: jax.Array, axes: Axes, shape: Sequence[int], *, partly: bool = False) -> jax.Array:
    """Stored dimensions in the order of an array's axes; dimensions that no axis has are 1."""
    order = [d for dims in axes for d in dims]
    unused = tuple(d for d in range(x.ndim) if d not in order)
    order = [d - sum(u < d for u in unused) for d in order]
    x = jnp.transpose(jnp.squeeze(x, unused), order)
    sizes = iter(x.shape)
    narrow = [math.prod(next(sizes) for _ in dims) for dims in axes]
    x = x.reshape(narrow)
    return x if partly else jnp.broadcast_to(x, shape)


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """Returns the permutation that undoes another one."""
    return tuple(int(i) for i in np.argsort(order))


def reshaped(value: Any, grid: Sequence[int]) -> Masked:
    """Returns a stored value at full size, on a grid of another shape."""
    x, mask = full_size(value)
    return Masked(x.reshape(*grid, x.shape[-1]), mask.reshape(*grid))


def full_size(value: Any) -> Any:
    """Returns activations `[*grid, C]` with their mask, from any of the forms that hold them."""
    return layers.full_size(value)


def mask_layout(node: Node) -> Node:
    """A node's layout with one channel: for masks in the traced layout."""
    shape = [
        math.prod(node.grid[d] for d in node.grid_dims(axis)) for axis in range(len(node.shape))
    ]
    axes = tuple(node.grid_dims(axis) for axis in range(len(node.shape)))
    aval = jax.ShapeDtypeStruct(shape, jnp.bool_)
    return Node(aval, mask=node.symbol, axes=axes, channels=(1,))


def describe(node: Node) -> str:
    """Returns a node's shape and what its axes stand for, for errors."""
    if not node.masked:
        return f"{list(node.shape)}"
    names = []
    for axis in range(len(node.shape)):
        parts = ["batch"] if 0 in node.grid_dims(axis) else []
        parts += ["positions"] if node.of_positions(axis) else []
        parts += ["channels"] if node.channel_dims(axis) else []
        names.append("+".join(parts) or "-")
    return f"{list(node.shape)} with a mask (axes: {', '.join(names)})"
