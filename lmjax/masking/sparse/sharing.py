"""Rows that variants share: computed once for all of them.

What a network computes at a position follows from what was visible around it. Where two variants
show the same there, they have the same value. Early layers see little around a position, so among
many variants few values differ there.

Whether values are the same is known without computing them. Each position of each variant has an
*owner*: the first variant with the same value there. The first convolution's owners follow from the
pixels that it reads; behind it, the owners of what a window reads tell what it gives. Only owners
have a row. Every convolution sees further, so behind it there are more rows. Where sharing no
longer pays, the network is cut at a seam (`lmjax.masking.layers.seam`).

Sameness is decided by hashes of 64 bits, some of which number the variants: among P positions and N
variants, two that differ are taken for the same with a probability of about P N^3 / 2^63, below
1e-6 for a group of 128 and a million positions.

Arrays are made a few at a time, which stay in the caches of a CPU.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from lmjax.masking.windows import POINT, Slide, Window

_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHOWN = np.uint64(1 << 63)  # the highest bit of keys
_TOGETHER = 2**16  # numbers


def _random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Fixed odd random numbers, uint64."""
    bits = np.random.default_rng(seed).integers(2**64, size=shape, dtype=np.uint64)
    return bits | np.uint64(1)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Every bit of a number depends on all bits of `x`, uint64 (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _slices(count: int, numbers: int) -> Iterator[slice]:
    """Yields slices of `count` things that have `numbers` numbers each, of a few at a time."""
    step = max(_TOGETHER // max(numbers, 1), 1)
    return (slice(start, start + step) for start in range(0, count, step))


def hashed_pixels(mask: np.ndarray, window: Window) -> np.ndarray:
    """Returns hashes of the mask `[N, H, W]` in each window: a random number for each pixel, added.

    Pixels have numbers of their own, so windows at different places are not compared.
    """
    numbers = _mixed(_random(mask.shape[1:], 0))
    hashes = np.empty((len(mask), *window.outputs(mask.shape[1:])), np.uint64)
    for some in _slices(len(mask), numbers.size):
        values = np.where(mask[some], numbers, np.uint64(0))
        hashes[some] = _sums(_sums(values, window.columns, 2), window.rows, 1)
    return hashes


def _sums(x: np.ndarray, slide: Slide, axis: int) -> np.ndarray:
    """Sums modulo 2^64 along one axis, as differences of running sums; holes count."""
    length = x.shape[axis]
    total = np.insert(np.cumsum(x, axis=axis, dtype=np.uint64), 0, 0, axis=axis)
    start = np.arange(slide.outputs(length)) * slide.stride - slide.low
    low, high = np.clip(start, 0, length), np.clip(start + slide.reach, 0, length)
    return np.take(total, high, axis=axis) - np.take(total, low, axis=axis)


def hashed_windows(owner: np.ndarray, window: Window = POINT) -> np.ndarray:
    """Returns hashes of the owners `[N, H, W]` in each window, as uint64 `[N, H', W']`."""
    pad, factors = ((0, 0), *window.pads), _random(window.shape, 1)
    hashes = np.empty((len(owner), *window.outputs(owner.shape[1:])), np.uint64)
    for some in _slices(len(owner), owner[0].size):
        values = np.pad(owner[some], pad, constant_values=-1).astype(np.uint64)
        hashes[some] = sum(
            view * factor
            for line, row in zip(window.rows.shifts(values, 1), factors)
            for view, factor in zip(window.columns.shifts(line, 2), row)
        )
    return hashes


def first_alike(mask: np.ndarray, alike: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the first variant that agrees in everything at each position.

    Args:
      mask: bool `[N, H, W]`, the positions. Off it, values are not looked at.
      alike: uint64 arrays `[N, H, W]` or `[N, 1, 1]`, in all of which variants must agree.

    Returns:
      int32 `[N, H, W]`, -1 off the mask.
    """
    count = len(mask)
    shown = mask.reshape(count, -1)
    flat = [each.reshape(len(each), -1) for each in alike]
    owner = np.empty(shown.shape, np.int32)
    for some in _slices(shown.shape[1], count):
        here = [each[:, some] if each.shape[1] > 1 else each for each in flat]
        owner[:, some] = _first_alike(shown[:, some], here)
    return owner.reshape(mask.shape)


def _first_alike(mask: np.ndarray, alike: Sequence[np.ndarray]) -> np.ndarray:
    """As `first_alike`, for positions `[N, P]`.

    Keys are hashes whose lowest bits are the number of the variant: sorted, those that agree lie
    side by side, the first variant first. Those off the mask lie before all others.
    """
    variants = np.arange(len(mask), dtype=np.uint64)
    bits = np.uint64(max(len(mask) - 1, 1).bit_length())
    numbers = (np.uint64(1) << bits) - np.uint64(1)
    keys = np.zeros(mask.shape, np.uint64)
    for each in alike:
        keys = _mixed(keys ^ each) + _ODD
    keys = np.where(mask, (keys & ~numbers) | _SHOWN, np.uint64(0)) | variants[:, None]
    keys = np.ascontiguousarray(keys.T)
    keys.sort(axis=1)
    variant, keys = (keys & numbers).astype(np.intp), keys >> bits
    place = np.zeros(keys.shape, np.intp)
    place[:, 1:] = np.where(keys[:, 1:] == keys[:, :-1], 0, np.arange(1, len(mask)))
    first = np.take_along_axis(variant, np.maximum.accumulate(place, axis=1), axis=1)
    owner = np.empty(keys.shape, np.int32)
    np.put_along_axis(owner, variant, first.astype(np.int32), axis=1)
    return np.where(mask, owner.T, np.int32(-1))
