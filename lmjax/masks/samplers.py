"""Random coalitions of segments, and the points that designs are made of.

All but the quasi-random ones are *numbered*: number i depends on the key and on i alone, so any
stretch of the sequence can be drawn by itself, and a run that goes on later draws what one long run
would have drawn. `random_keep` (in `lmjax.masks.coalitions`) is LIME's sampler.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils.sizes import power_of_two
from lmjax.masks.coalitions import check_memory
from lmjax.masks.keys import threefry

SEQUENCES = ("sobol", "halton")
# Numbers drawn together: of one shape always, so that nothing compiles twice.
_BLOCK = 256


def numbered(draw: Callable, first: int, last: int, *, key: jax.Array) -> Any:
    """Numbers `first` to `last - 1` of an endless sequence: number i is `draw(fold_in(key, i))`.

    Args:
      draw: pure function key -> arrays of one shape (any pytree of them).
      first: number to begin with.
      last: number to stop before.
      key: random key.

    Returns:
      What `draw` gives, as NumPy arrays with a leading axis of `last - first`.
    """
    key, blocks = threefry(key), []
    for start in range(first, max(last, first + 1), _BLOCK):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, start + jnp.arange(_BLOCK))
        blocks.append(jax.tree.map(np.asarray, jax.vmap(draw)(keys)))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: last - first], *blocks)


def bernoulli_keep(
    num_segments: int,
    num_samples: int,
    *,
    key: jax.Array,
    keep_probability: float = 0.5,
    first: int = 0,
) -> np.ndarray:
    """Coalitions in which every segment stays visible independently of the others.

    As `random_keep`, but numbered: for runs that go on later.

    Args:
      num_segments: S.
      num_samples: N.
      key: random key.
      keep_probability: how likely a segment stays, above 0 and below 1.
      first: number of the first coalition.

    Returns:
      bool `[N, S]`.

    Raises:
      ValueError: options out of range, or more coalitions than memory allows.
    """
    _check_numbers(num_segments, num_samples, first)
    _check_keep_probability(keep_probability)

    def draw(key):
        return jax.random.bernoulli(key, keep_probability, (num_segments,))

    return numbered(draw, first, first + num_samples, key=key)


def shapley_kernel(num_segments: int) -> np.ndarray:
    """How much each size of coalition counts for Shapley values as a regression.

    Size k, all its coalitions together, has mass proportional to (S - 1) / (k (S - k)); the empty
    coalition and the full one, whose mass is infinite, are left out: their values are constraints.

    Args:
      num_segments: S.

    Returns:
      float64 `[S - 1]`, masses of the sizes 1 to S - 1, summing to 1.

    References:
      Lundberg & Lee 2017 (arXiv 1705.07874), theorem 2, whose weight of one coalition is times the
      number of coalitions of its size here.
    """
    _check_numbers(num_segments)
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
    """Coalitions drawn from the Shapley kernel: a size, then any coalition of that size.

    Args:
      num_segments: S, 2 or more.
      num_samples: N.
      key: random key.
      smallest: smallest number of visible segments, and of hidden ones: sizes go from there to
        S minus there, in the proportions of the kernel.
      first: number of the first coalition.

    Returns:
      bool `[N, S]`.

    Raises:
      ValueError: no size left between the limits, or more coalitions than memory allows.

    References:
      Lundberg & Lee 2017 (arXiv 1705.07874), theorem 2; Covert & Lee 2021 (arXiv 2012.01536), who
      draw from it instead of weighing by it.
    """
    _check_numbers(num_segments, num_samples, first)
    if not 1 <= smallest <= num_segments / 2:
        raise ValueError(
            f"smallest must be from 1 to half of the {num_segments} segments, got {smallest!r}"
        )
    mass = shapley_kernel(num_segments)[smallest - 1 : num_segments - smallest]
    up_to = np.cumsum(mass)[:-1] / mass.sum()

    def draw(key):
        size_key, order_key = jax.random.split(key)
        return jax.random.uniform(size_key), jax.random.bits(order_key, (num_segments,))

    uniform, bits = numbered(draw, first, first + num_samples, key=key)
    size = smallest + np.searchsorted(up_to, uniform, side="right")
    return np.argsort(bits, axis=1) < size[:, None]


def complement_pairs(keep) -> np.ndarray:
    """Every coalition followed by its complement, which shows what the other hides.

    Such antithetic pairs cancel what is even in the segments, and with it most of the noise.

    Args:
      keep: `[N, S]` bool, True = visible.

    Returns:
      bool `[2N, S]`.

    References:
      Covert & Lee 2021 (arXiv 2012.01536), paired sampling.
    """
    keep = np.asarray(keep, bool)
    return np.stack([keep, ~keep], axis=1).reshape(-1, keep.shape[-1])


def all_coalitions(num_segments: int) -> np.ndarray:
    """All 2^S coalitions: row i keeps the segments whose bit is set in i.

    Args:
      num_segments: S.

    Returns:
      bool `[2^S, S]`, the empty coalition first, the full one last.

    Raises:
      ValueError: more coalitions than memory allows.
    """
    _check_numbers(num_segments, 2**num_segments)
    return (np.arange(2**num_segments)[:, None] >> np.arange(num_segments)[None, :]) % 2 == 1


def quasi_random(
    num_samples: int,
    dimensions: int,
    *,
    key: jax.Array,
    sequence: Literal["sobol", "halton"] = "sobol",
    first: int = 0,
) -> np.ndarray:
    """Points that fill the unit cube more evenly than random ones: scrambled Sobol or Halton.

    Numbered: more points later continue the sequence. Sobol points are best in powers of two.

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

    _check_numbers(dimensions, num_samples, first, names=("dimensions", "num_samples", "first"))
    if sequence not in SEQUENCES:
        raise ValueError(f"sequence must be one of {', '.join(SEQUENCES)}; got {sequence!r}")
    if sequence == "sobol" and dimensions > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"dimensions must be at most {qmc.Sobol.MAXDIM} for sequence 'sobol', got "
            f"{dimensions}; take 'halton'"
        )
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
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
    """Coalitions from quasi-random points: a segment stays where its coordinate is low enough.

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
    _check_numbers(num_segments, num_samples, first)
    _check_keep_probability(keep_probability)
    points = quasi_random(num_samples, num_segments, key=key, sequence=sequence, first=first)
    return points < keep_probability


def _check_keep_probability(keep_probability: float) -> None:
    if not 0 < keep_probability < 1:
        raise ValueError(f"keep_probability must be above 0 and below 1, got {keep_probability!r}")


def _check_numbers(
    num_segments: int,
    num_samples: int = 1,
    first: int = 0,
    names: tuple[str, ...] = ("num_segments", "num_samples", "first"),
) -> None:
    for name, value, least in zip(names, (num_segments, num_samples, first), (1, 1, 0)):
        if value < least or value != int(value):
            raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")
    # Random bits and what is made of them, for a power of two of rows.
    check_memory(2 * 9 * num_segments * num_samples, num_segments, num_samples)
