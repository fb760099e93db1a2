"""Rows that variants share: computed once for all of them.

What a network computes at a position follows from what was visible around it. Where two variants
show the same there, they have the same value. Early layers see little around a position, so among
many variants few values differ there.

Whether values are the same is known without computing them. Each position of each variant has an
*owner*: the first variant with the same value there. The first convolution's owners follow from the
pixels that it reads; behind it, the owners of what a window reads tell what it gives. Only owners
have a row. Every convolution sees further, so behind it there are more rows. Where sharing no
longer pays, the network is cut at a seam (`lmjax.masking.layers.seam`).

Sameness is decided by hashes of 64 bits: among P pairs of a position and a variant, two that differ
are taken for the same with a probability of at most P^2 / 2^65, below 1e-7 for a million.
"""

from collections.abc import Sequence

import numpy as np

from lmjax.masking.windows import POINT, Slide, Window

_ODD = np.uint64(0x9E3779B97F4A7C15)


def _random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Fixed odd random numbers, uint64."""
    bits = np.random.default_rng(seed).integers(2**64, size=shape, dtype=np.uint64)
    return bits | np.uint64(1)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Every bit of a number depends on all bits of `x`, uint64 (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashed_pixels(mask: np.ndarray, window: Window) -> np.ndarray:
    """Returns hashes of the mask `[N, H, W]` in each window: a random number for each pixel, added.

    Pixels have numbers of their own, so windows at different places are not compared.
    """
    values = np.where(mask, _mixed(_random(mask.shape[1:], 0))[None], np.uint64(0))
    for axis, slide in zip((1, 2), window):
        around = [(0, 0)] * 3
        around[axis] = slide.low, slide.high
        values = _sums(np.pad(values, around), slide, axis)
    return values


def _sums(x: np.ndarray, slide: Slide, axis: int) -> np.ndarray:
    """Sums modulo 2^64 along one axis, as differences of running sums; holes count."""
    total = np.cumsum(x, axis=axis, dtype=np.uint64)
    total = np.concatenate([np.zeros_like(np.take(total, [0], axis=axis)), total], axis=axis)
    outputs = (x.shape[axis] - slide.reach) // slide.stride + 1
    low = np.arange(outputs) * slide.stride
    return np.take(total, low + slide.reach, axis=axis) - np.take(total, low, axis=axis)


def hashed_windows(owner: np.ndarray, window: Window = POINT) -> np.ndarray:
    """Returns hashes of the owners `[N, H, W]` in each window, as uint64 `[N, H', W']`."""
    pad = ((0, 0), *window.pads)
    values = np.pad(owner, pad, constant_values=-1).astype(np.uint64)
    factors = _random(window.shape, 1)
    return sum(
        view * factor
        for line, row in zip(window.rows.shifts(values, 1), factors)
        for view, factor in zip(window.columns.shifts(line, 2), row)
    )  # type: ignore[return-value]  # there is at least one


def first_alike(mask: np.ndarray, alike: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the first variant that agrees in everything at each position.

    Args:
      mask: bool `[N, H, W]`, the positions.
      alike: uint64 arrays that broadcast to `[N, H, W]`, in all of which variants must agree.

    Returns:
      int32 `[N, H, W]`, -1 off the mask.
    """
    size = mask[0].size
    places = np.flatnonzero(mask)
    keys = _mixed((places % size).astype(np.uint64) * _ODD)
    for each in alike:
        keys = _mixed(keys ^ np.broadcast_to(each, mask.shape).reshape(-1)[places]) + _ODD
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else []
    owner = np.full(mask.size, -1, np.int32)
    if len(starts):
        firsts = np.minimum.reduceat(places[order], starts) // size
        lengths = np.diff(np.append(starts, len(keys)))
        owner[places[order]] = np.repeat(firsts, lengths)
    return owner.reshape(mask.shape)
