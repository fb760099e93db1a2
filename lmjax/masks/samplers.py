"""Samplers of coalitions, and of the points of quasi-random designs.

All samples are *numbered*: sample i depends on the key and on i alone, so any stretch of the
sequence can be drawn by itself, and a continued run draws the same samples as one long run.
`random_keep` (in `lmjax.masks.coalitions`) is LIME's sampler.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.checks import check_choice, check_number, check_whole
from lmjax._utils.keys import check_key
from lmjax._utils.sizes import power_of_two, segments_size
from lmjax.masks.coalitions import check_memory
from lmjax.masks.keys import threefry

SEQUENCES = ("sobol", "halton")
# Samples drawn together: always one shape, so that nothing compiles twice.
_BLOCK = 256
_MOST_SAMPLES = 2**32 - _BLOCK  # numbers of samples have 32 bits


def numbered(draw: Callable, first: int, last: int, *, key: jax.Array) -> Any:
    """Draws samples `first` to `last - 1` of an endless sequence: i is `draw(fold_in(key, i))`.

    Args:
      draw: pure function key -> arrays of one shape (any pytree of them), of dtypes that it states,
        so that they do not change with `jax_enable_x64`.
      first: number of the first sample.
      last: number to stop before.
      key: random key.

    Returns:
      The samples, as NumPy arrays with a leading axis of `last - first`.

    Raises:
      ValueError: numbers that are not whole, negative ones, or `last` below `first`.
    """
    first = check_whole("first", first, least=0, most=_MOST_SAMPLES)
    last = check_whole("last", last, least=first, most=_MOST_SAMPLES)

    def block(key: jax.Array, numbers: np.ndarray) -> Any:
        return _each(draw, key, numbers)

    return _numbered(block, first, last, key=key)


def _each(draw: Callable, key: jax.Array, numbers: jax.Array | np.ndarray) -> Any:
    """Draws the samples of some numbers."""
    return jax.vmap(draw)(jax.vmap(jax.random.fold_in, (None, 0))(key, numbers))


def _numbered(block: Callable, first: int, last: int, *, key: jax.Array) -> Any:
    """Draws samples by a function of a key and of the numbers of a block of them."""
    key, blocks = threefry(key), []
    with jax.threefry_partitionable(True):
        for start in range(first, max(last, first + 1), _BLOCK):
            numbers = np.arange(start, start + _BLOCK, dtype=np.uint32)
            blocks.append(jax.tree.map(np.asarray, block(key, numbers)))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: last - first], *blocks)


def numbered_bits(num_segments: int, first: int, last: int, *, key: jax.Array) -> np.ndarray:
    """Draws 32 random bits for each segment of the samples `first` to `last - 1`.

    Returns:
      uint32 `[last - first, S]`; entry (i, j) depends on the key, on i and on j alone.
    """
    block = functools.partial(_bits, size=segments_size(num_segments))
    return _numbered(block, first, last, key=key)[:, :num_segments]


@bounded_jit(static_argnames="size")
def _bits(key: jax.Array, numbers: jax.Array, *, size: int) -> jax.Array:
    """Draws 32 bits for each of `size` segments, of each numbered sample."""
    return _each(lambda key: jax.random.bits(key, (size,), np.uint32), key, numbers)


def half_visible_keep(
    num_segments: int, first: int, last: int, *, key: jax.Array, block: int
) -> np.ndarray:
    """Draws coalitions `first` to `last - 1`, each block of which shows every segment in half.

    Each block is a Latin hypercube: segments are independent of each other.

    Args:
      num_segments: S.
      first, last: as in `numbered`.
      key: random key.
      block: coalitions of a block.

    Returns:
      bool `[last - first, S]`.
    """
    start, stop = first // block * block, -(-last // block) * block
    bits = numbered_bits(num_segments, start, stop, key=key).reshape(-1, block, num_segments)
    keep = (bits.argsort(axis=1) < block // 2).reshape(-1, num_segments)
    return keep[first - start : last - start]


def bernoulli_keep(
    num_segments: int,
    num_samples: int,
    *,
    key: jax.Array,
    keep_probability: float = 0.5,
    first: int = 0,
) -> np.ndarray:
    """Draws coalitions in which every segment stays visible independently of the others.

    The same distribution as `random_keep` without its first coalition, from other random bits.

    Args:
      num_segments: S.
      num_samples: N.
      key: random key.
      keep_probability: probability that a segment stays, above 0 and below 1.
      first: number of the first coalition.

    Returns:
      bool `[N, S]`.

    Raises:
      ValueError: options out of range, or more coalitions than memory allows.
    """
    num_segments, num_samples, first = _check_sizes(num_segments, num_samples, first)
    check_number("keep_probability", keep_probability, above=0, below=1)

    def draw(key: jax.Array) -> jax.Array:
        shape = (segments_size(num_segments),)
        return jax.random.bernoulli(key, np.float32(keep_probability), shape)

    return numbered(draw, first, first + num_samples, key=key)[:, :num_segments]


def shapley_kernel(num_segments: int) -> np.ndarray:
    """Returns the mass of each coalition size under the Shapley kernel.

    All coalitions of size k together have mass proportional to (S - 1) / (k (S - k)). The empty
    coalition and the full one, whose mass is infinite, are left out: their values are constraints.

    Args:
      num_segments: S.

    Returns:
      float64 `[S - 1]`, masses of the sizes 1 to S - 1, summing to 1.

    Raises:
      ValueError: a number of segments that is not whole, or below 1.

    References:
      Lundberg & Lee 2017 (arXiv 1705.07874), theorem 2: the weight of one coalition, times the
      number of coalitions of its size.
    """
    _check_sizes(num_segments)
    size = np.arange(1, num_segments)
    mass = (num_segments - 1) / (size * (num_segments - size))
    return mass / mass.sum()


def shapley_keep(
    num_segments: int,
    num_samples: int,
    *,
    key: jax.Array,
    smallest: int = 1,
    first: int = 0,
) -> np.ndarray:
    """Draws coalitions from the Shapley kernel: a size, then any coalition of that size.

    Args:
      num_segments: S, 2 or more.
      num_samples: N.
      key: random key.
      smallest: smallest number of visible segments, and of hidden ones: sizes range from it to S
        minus it, in the proportions of the kernel.
      first: number of the first coalition.

    Returns:
      bool `[N, S]`.

    Raises:
      ValueError: no size between the limits, or more coalitions than memory allows.

    References:
      Lundberg & Lee 2017 (arXiv 1705.07874), theorem 2; Covert & Lee 2021 (arXiv 2012.01536), who
      sample from the kernel instead of weighting by it.
    """
    num_segments, num_samples, first = _check_sizes(num_segments, num_samples, first)
    if num_segments < 2:
        raise ValueError("num_segments must be 2 or more: coalitions are some of them; got 1")
    half = f"half of the {num_segments} segments"
    smallest = check_whole("smallest", smallest, least=1, most=num_segments // 2, note=half)
    mass = shapley_kernel(num_segments)[smallest - 1 : num_segments - smallest]
    up_to = np.cumsum(mass)[:-1] / mass.sum()

    block = functools.partial(_uniform_and_bits, size=segments_size(num_segments))
    uniform, bits = _numbered(block, first, first + num_samples, key=key)
    bits = bits[:, :num_segments]
    size = smallest + np.searchsorted(up_to, uniform, side="right")
    return np.argsort(bits, axis=1) < size[:, None]


@bounded_jit(static_argnames="size")
def _uniform_and_bits(
    key: jax.Array, numbers: jax.Array, *, size: int
) -> tuple[jax.Array, jax.Array]:
    """Draws a number in [0, 1), and 32 bits for each of `size` segments, of numbered samples."""

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_uniform, of_bits = jax.random.split(key)
        uniform = jax.random.uniform(of_uniform, dtype=np.float32)
        return uniform, jax.random.bits(of_bits, (size,), np.uint32)

    return _each(draw, key, numbers)


def complement_pairs(keep: ArrayLike) -> np.ndarray:
    """Interleaves coalitions with their complements, which show what the others hide.

    Such antithetic pairs cancel the part of the output that is even in the segments, and with it
    most of the noise.

    Args:
      keep: `[N, S]` bool, True = visible.

    Returns:
      bool `[2N, S]`.

    Raises:
      ValueError: anything but bools of that shape.

    References:
      Covert & Lee 2021 (arXiv 2012.01536), paired sampling.
    """
    keep = np.asarray(keep)
    if keep.ndim != 2 or keep.dtype != bool:
        raise ValueError(f"keep must be bool [N, S], got {keep.dtype} {keep.shape}")
    return np.stack([keep, ~keep], axis=1).reshape(-1, keep.shape[-1])


def all_coalitions(num_segments: int) -> np.ndarray:
    """Enumerates all 2^S coalitions: row i keeps the segments whose bit is set in i.

    Args:
      num_segments: S.

    Returns:
      bool `[2^S, S]`, the empty coalition first, the full one last.

    Raises:
      ValueError: more coalitions than memory allows.
    """
    note = "which are 2^num_segments coalitions"
    num_segments = check_whole("num_segments", num_segments, least=1, most=40, note=note)
    check_memory(2 * 9 * num_segments * 2**num_segments, num_segments, 2**num_segments)
    return (np.arange(2**num_segments)[:, None] >> np.arange(num_segments)[None, :]) % 2 == 1


def quasi_random(
    num_samples: int,
    dimensions: int,
    *,
    key: jax.Array,
    sequence: Literal["sobol", "halton"] = "sobol",
    first: int = 0,
) -> np.ndarray:
    """Draws points that fill the unit cube more evenly than random ones: scrambled Sobol or Halton.

    Sobol points are balanced best in powers of two.

    Args:
      num_samples: N.
      dimensions: D.
      key: random key of the scrambling, which makes averages over the points unbiased.
      sequence: "sobol" (up to 21,201 dimensions) or "halton".
      first: number of the first point.

    Returns:
      float64 `[N, D]` in [0, 1).

    Raises:
      ValueError: options out of range, or more points than memory allows.

    References:
      Owen 1998, "Scrambling Sobol' and Niederreiter-Xing points"; Owen 2017, "A randomized Halton
      algorithm in R" (arXiv 1706.02808); both as in `scipy.stats.qmc`.
    """
    from scipy.stats import qmc

    sizes = _check_sizes(dimensions, num_samples, first, name="dimensions")
    dimensions, num_samples, first = sizes
    check_choice("sequence", sequence, SEQUENCES)
    if sequence == "sobol":
        note = "as far as Sobol sequences are tabulated; 'halton' has no limit"
        check_whole("dimensions", dimensions, most=qmc.Sobol.MAXDIM, note=note)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(check_key(key))).ravel())
    check_memory(2 * 9 * dimensions * (first + num_samples), dimensions, first + num_samples)
    engine = {"sobol": qmc.Sobol, "halton": qmc.Halton}[sequence](dimensions, rng=generator)
    return engine.random(power_of_two(first + num_samples))[first : first + num_samples]


def quasi_random_keep(
    num_segments: int,
    num_samples: int,
    *,
    key: jax.Array,
    keep_probability: float = 0.5,
    sequence: Literal["sobol", "halton"] = "sobol",
    first: int = 0,
) -> np.ndarray:
    """Draws coalitions from quasi-random points: a segment stays where its coordinate is low.

    Coalitions are coarse: N Sobol points, a power of two, have N / 2 different sets of samples in
    which a coordinate is below 1/2. Of more segments than that, some always stay together or in
    turn; then take more samples, or another sampler.

    Args:
      num_segments: S.
      num_samples: N.
      key: random key of the scrambling.
      keep_probability: share of coalitions in which a segment stays, above 0 and below 1.
      sequence: "sobol" or "halton".
      first: number of the first coalition.

    Returns:
      bool `[N, S]`.

    Raises:
      ValueError: options out of range, or more coalitions than memory allows.
    """
    num_segments, num_samples, first = _check_sizes(num_segments, num_samples, first)
    check_number("keep_probability", keep_probability, above=0, below=1)
    points = quasi_random(num_samples, num_segments, key=key, sequence=sequence, first=first)
    return points < keep_probability


def _check_sizes(
    num_segments: int, num_samples: int = 1, first: int = 0, *, name: str = "num_segments"
) -> tuple[int, int, int]:
    """Returns three checked sizes; raises ValueError also for more samples than memory allows."""
    num_segments = check_whole(name, num_segments, least=1)
    num_samples = check_whole("num_samples", num_samples, least=1)
    first = check_whole("first", first, least=0, most=2**31)
    # Random bits and what is made of them, for a power of two of rows.
    check_memory(2 * 9 * num_segments * num_samples, num_segments, num_samples)
    return num_segments, num_samples, first
