"""Rows that variants of one image share: computed once for all of them.

What a network computes at a position follows from what was visible around it. Where two variants
show the same there, they have the same value. Early layers see little around a position, so among
many variants few values differ there.

`SharedPositions` are `Positions` of which several variants may have the same row: that of its
*owner*, the first variant with that value. Whether values are the same is known without computing
them: the owners of what a window reads tell what it gives. Every convolution sees further, so
behind it there are more rows. Where sharing no longer pays, the network is cut at a seam
(`dense.seam`): `Prefix` computes up to there on shared rows, `Suffix` goes on from there in smaller
batches, on full-size activations or on visible positions.

All variants must be of one image.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lmjax.masking.masked import Masked
from lmjax.masking.sparse.rows import (
    _NEIGHBOURS,
    _NOWHERE,
    Counting,
    Positions,
    Rows,
    Window,
    _take,
    _touched,
)

_NOBODY = np.int32(-1)  # the owner of a hidden position
_HASHES = 2  # of 32 bits each


class SharedPositions(Positions):
    """Positions whose rows belong to several variants.

    Attributes:
      owner: `[N, H, W]` int, the first variant with the same value there, or `_NOBODY`.
      finer_than: positions with the same mask whose owners these agree with, or None.
      The others are those of `Positions`; `flat` holds the owners' positions.
    """

    def __init__(self, mask, index, flat, ledger, number, owner, finer_than=None):
        super().__init__(mask, index, flat, ledger, number)
        self.owner, self.finer_than = owner, finer_than

    @classmethod
    def of_alike(cls, mask, alike: list[jax.Array], ledger, finer_than=None) -> "SharedPositions":
        """The visible positions of `mask`, shared where all of `alike` `[N, H, W]` agree."""
        owner = _first_alike(mask, alike)
        owns = owner == np.arange(len(mask), dtype=np.int32)[:, None, None]
        plain = Positions.of(owns, ledger)
        index = jnp.take_along_axis(plain.index, jnp.maximum(owner, 0), axis=0)
        index = jnp.where(mask, index, _NOWHERE)
        return cls(mask, index, plain.flat, ledger, plain.number, owner, finer_than)

    def after(self, window: Window) -> "SharedPositions":
        if window == Window(1):
            return self
        make = functools.partial(self._read_on, window)
        return self._once(("after", window), lambda: make(_touched(self.mask, window)))

    def outputs(self, before, window, keep) -> "SharedPositions":
        """Where outputs are kept, variants share fewer rows than of what is kept."""
        if keep is None and self is before:
            return self.after(window)
        mask = _touched(before.mask, window) if keep is None else keep.mask
        make = functools.partial(self._read_on, window, mask, finer_than=keep)
        return self._once(("outputs", before, keep, window), make)

    def _read_on(self, window, mask, finer_than=None) -> "SharedPositions":
        alike = _window_hashes(self.owner, window)
        if finer_than is not None:
            alike.append(finer_than.owner)
        return SharedPositions.of_alike(mask, alike, self.ledger, finer_than=finer_than)

    def _ring(self) -> "SharedPositions":
        return self._read_on(_NEIGHBOURS, _touched(self.mask, _NEIGHBOURS) & ~self.mask)

    def _with_ring(self) -> "SharedPositions":
        ring, both = self.ring(), super()._with_ring()
        owner = jnp.where(ring.mask, ring.owner, self.owner)
        return SharedPositions(both.mask, both.index, both.flat, self.ledger, self.number, owner)

    def variants(self) -> jax.Array:
        raise TypeError("shared rows belong to several variants: no image's own rows can be told")

    def both(self, other: "SharedPositions") -> "SharedPositions":
        if other is self or other is self.finer_than:  # which has the same mask
            return self
        if self is other.finer_than:
            return other
        mask, alike = self.mask & other.mask, [self.owner, other.owner]
        make = functools.partial(SharedPositions.of_alike, mask, alike, self.ledger)
        return self._once(("both", other), make)


def _first_alike(mask: jax.Array, alike: list[jax.Array]) -> jax.Array:
    """`[N, H, W]`: the first variant, visible there, that agrees in everything; or `_NOBODY`."""

    def earlier(i, owner):
        n = len(mask) - 1 - i
        same = mask[n][None]
        for each in alike:
            same &= each == each[n][None]
        return jnp.where(same, n, owner)

    owner = lax.fori_loop(0, len(mask), earlier, jnp.full(mask.shape, _NOBODY))
    return jnp.where(mask, owner, _NOBODY)


def _window_hashes(owner: jax.Array, window: Window) -> list[jax.Array]:
    """Hashes of the owners in each window.

    Random linear functions modulo 2^32. Two windows of different owners agree in both with a
    probability of at most N^2 / 2^64, for N variants.
    """
    size, stride, _, dilation, _ = window
    pad = ((0, 0), *window.pads(owner.shape[1:]))
    owner = jnp.pad(owner, pad, constant_values=_NOBODY).astype(jnp.uint32)
    factors = np.random.default_rng(0).integers(2**32, size=(_HASHES, size, size), dtype=np.uint32)
    rows, columns = ((n - dilation * (size - 1) - 1) // stride + 1 for n in owner.shape[1:])

    def hashed(factor):
        return sum(
            factor[i, j]
            * owner[:, i * dilation :: stride, j * dilation :: stride][:, :rows, :columns]
            for i in range(size)
            for j in range(size)
        )

    return [hashed(factor) for factor in factors]


def _mask_hashes(mask: jax.Array, window: Window) -> list[jax.Array]:
    """Hashes of the mask in each window: sums of a random number for each visible pixel."""
    size, stride, *_ = window
    pad = ((0, 0), *window.pads(mask.shape[1:]))
    numbers = jax.random.bits(jax.random.key(0), (_HASHES, *mask.shape[1:]), jnp.uint32)
    sums = []
    for each in numbers:
        x = jnp.pad(jnp.where(mask, each[None], jnp.uint32(0)), pad)
        sums.append(_sums(_sums(x, size, stride, axis=1), size, stride, axis=2))
    return sums


def _sums(x: jax.Array, size: int, stride: int, *, axis: int) -> jax.Array:
    """Sums of `size` neighbours along an axis, from sums of 1, 2, 4, ... of them."""
    outputs = (x.shape[axis] - size) // stride + 1
    total, start, width = jnp.zeros((), x.dtype), 0, 1
    while True:
        if size & width:
            end = start + (outputs - 1) * stride + 1
            total = total + lax.slice_in_dim(x, start, end, stride=stride, axis=axis)
            start += width
        width *= 2
        if width > size:
            return total
        n = x.shape[axis] - width // 2
        low, high = (lax.slice_in_dim(x, a, a + n, axis=axis) for a in (0, width // 2))
        x = low + high


class SharedCounting(Counting):
    """Counts shared rows, up to a seam.

    Attributes:
      counts: for each set of positions, `[N]` int: how many rows each variant is the first to need.
    """

    def __init__(self, until: int):
        super().__init__()
        self.until = until

    def first(self, mask, touched, reach):
        return SharedPositions.of_alike(touched, _mask_hashes(mask, reach), self)

    def seam(self, rows: Rows):
        super().seam(rows)
        return _unshared(rows) if self.seams == self.until else rows


class Prefix(SharedCounting):
    """Computes up to a seam on shared rows.

    Attributes:
      counts: as in `SharedCounting`; where their sum exceeds the capacity, the result is wrong.
      cut: the rows at the seam.
    """

    cut: Rows

    def __init__(self, until: int, capacities: tuple[int, ...]):
        super().__init__(until)
        self.capacities = capacities

    def open(self, needed):
        number, _ = super().open(needed)
        return number, self.capacities[number]

    def seam(self, rows: Rows):
        self.cut = rows
        return super().seam(rows)


class Suffix(Counting):
    """Goes on behind a seam, from what `resume(rows at the seam)` gives; it reads only their mask.

    All before it is dead code.
    """

    def __init__(self, seam: int, resume: Callable[[Rows], Masked | Rows]):
        super().__init__()
        self._at, self._resume = seam, resume

    def seam(self, rows: Rows):
        super().seam(rows)
        return self._resume(rows) if self.seams == self._at else rows


def _unshared(rows: Rows) -> Rows:
    """Stands for what lies behind the cut and is never used: any plain rows of the same network."""
    positions = Positions.of(rows.mask.mask, Counting())
    return Rows(rows.x[:1], positions)


def full_size(x: jax.Array, index: jax.Array, at: Rows) -> Masked:
    """Shared rows `x` `[R, C]` on full-size activations.

    Args:
      x: shared rows, of more variants.
      index: `[N, H, W]`, the row of each position of some variants.
      at: what these variants have at the seam.
    """
    return Masked(_take(x, index), at.mask.mask)


def visible_rows(x: jax.Array, index: jax.Array, at: Rows, ledger: Counting) -> Rows:
    """The same on visible positions, unshared; `ledger` gives them room."""
    positions = Positions.of(at.mask.mask, ledger)
    return Rows(_take(x, _take(index.reshape(-1), positions.flat, _NOWHERE)), positions)


def count_behind(seam: int) -> tuple[Suffix, Counting]:
    """A ledger to run a network with, and another, which counts the rows behind the seam."""
    behind = Counting()

    def resume(at: Rows) -> Rows:
        return Rows(at.x[:1], Positions.of(at.mask.mask, behind))

    return Suffix(seam, resume), behind
