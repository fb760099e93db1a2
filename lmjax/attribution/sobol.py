"""Sobol attribution: how much of the output's variance goes with each part of the image.

Fel, Cadene, Chalvidal, Cord, Vigouroux & Serre 2021, "Look at the Variance! Efficient Black-box
Explanations with Sobol-based Sensitivity Analysis" (arXiv 2111.04138).
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import answer
from lmjax.attribution.sampling import Estimate, Samples, Sampling, Until, run
from lmjax.masking.checks import check_image
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.families import MaskFamily, SoftCoalitions
from lmjax.masks.segments import check_segments

_FIRST_CHECK = 32
_MOST_DIMENSIONS = 21_201  # of SciPy's table of direction numbers


def sobol(
    predictor: Callable,
    image,
    *,
    key: jax.Array,
    segments=None,
    target: int | Sequence[int] | None = None,
    num_designs: int = 32,
    grid: int | tuple[int, int] = 8,
    soft: bool | None = None,
    until: Until | None = None,
    previous: Attribution | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Scores of segments: total-order Sobol indices, by Jansen's estimator.

    A score is the share of the output's variance that is left when all other segments are known:
    the segment's own effect and its part in all interactions. It has no sign: what speaks against
    the target scores as high as what speaks for it.

    As published, segments are visible to degrees uniform in [0, 1], for removals that blend. Where
    a mask says which positions are known (`lmjax.LayerMasking`), degrees have no meaning: they are
    rounded, so that every segment is visible with probability 1/2, and the scores are the indices
    of that other experiment. Half of its variants coincide and are evaluated once.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      key: random key; the same key gives the same scores. It scrambles the Sobol sequence.
      segments: `[H, W]` ints, labels 0..S-1, none missing. None takes an even grid.
      target: class or classes to explain; None explains the predicted class. Several cost no more
        evaluations than one.
      num_designs: points n of the quasi-random sequence, a power of two for its full balance;
        n (S + 1) variants are evaluated, with those of `previous`.
      grid: cells of the even grid along each side, or (h, w).
      soft: whether masks are. None asks the predictor (`soft_masks`: those that paint take
        them); a function that does not say gets binary masks, which any function can take.
      until: (scores, standard errors) -> stop, for example `stable_ranking(5)`: asked at 32, 64,
        128, ... designs, where the sequence is balanced. As the standard errors are those of
        random designs, it stops late rather than early. None takes all.
      previous: attribution of the same call with fewer designs, to go on from: the sequence goes
        on too.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several, 0 where the output is
      constant. The standard errors hold for random designs; quasi-random ones err less.

    Raises:
      ValueError: options out of range, more segments than memory allows, `previous` that does not
        fit, target not a class of the network, non-finite outputs, and all that `lmjax.evaluate`
        raises.

    References:
      Fel et al. 2021, section 3.3; Jansen 1999. Grid, designs and estimator are Xplique's defaults,
      which also evaluates n variants that this estimator does not use, takes the sequence as it is,
      and shows the map under a bicubic enlargement.
    """
    check_image(image)
    if num_designs < 2:
        raise ValueError(f"num_designs must be 2 or more, got {num_designs!r}")
    soft = getattr(predictor, "soft_masks", False) if soft is None else soft
    segments = segments_or_grid(segments, np.shape(image)[:2], grid)
    num_segments = int(segments.max()) + 1
    # Of all variants the degrees, and what is made of them.
    num_variants = num_designs * (num_segments + 1)
    check_memory(12 * num_variants * num_segments, num_segments, num_variants)

    def draw(first: int, last: int) -> MaskFamily:
        if soft:
            return SoftCoalitions(segments, designs(num_segments, last, key, first=first))
        keep = designs(num_segments, last, key) > 0.5
        places, _ = _distinct(keep)
        return Coalitions(segments, keep[places[places >= first * (num_segments + 1)]])

    def estimate(samples: Samples) -> Estimate:
        values = samples.values
        if not soft:
            values = values[_distinct(designs(num_segments, samples.count, key) > 0.5)[1]]
        points, *mixed = values.reshape(samples.count, num_segments + 1, -1).swapaxes(0, 1)
        return Estimate(*jansen(points, np.stack(mixed)))

    return run(
        Sampling(draw, estimate, ("sobol", ("soft", soft)), _FIRST_CHECK, growth=2),
        functools.partial(
            answer,
            predictor,
            image,
            target=target,
            output=output,
            batch_size=batch_size,
            progress=progress,
            engine=engine,
            mesh=mesh,
        ),
        int(num_designs),
        key=key,
        segments=segments,
        until=until,
        previous=previous,
    )


def segments_or_grid(segments, shape: tuple[int, int], grid: int | tuple[int, int]) -> np.ndarray:
    """Checked segments, or for None an even grid of `grid` (one number, or two) cells."""
    if segments is not None:
        return check_segments(segments, shape)
    rows, columns = (grid, grid) if np.ndim(grid) == 0 else grid
    if not (1 <= rows <= shape[0] and 1 <= columns <= shape[1]):
        raise ValueError(
            f"grid must have from 1 x 1 to {shape[0]} x {shape[1]} cells, one for each pixel; got "
            f"{rows} x {columns}"
        )
    row = np.arange(shape[0]) * rows // shape[0]
    column = np.arange(shape[1]) * columns // shape[1]
    return (row[:, None] * columns + column[None]).astype(np.int32)


def jansen(first: np.ndarray, mixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Total-order Sobol indices, and their standard errors if designs were random.

    Args:
      first: `[n]` or `[n, T]`, outputs at n points.
      mixed: `[S, n]` or `[S, n, T]`, outputs at the same points with one coordinate drawn anew.

    Returns:
      both `[S]` or `[T, S]`.
    """
    count = len(first)
    variance = 2 * first.var(axis=0, ddof=1)
    squares = (mixed - first) ** 2
    scale = np.divide(1, variance, out=np.zeros_like(variance), where=variance > 0)
    scores = squares.mean(axis=1) * scale
    errors = squares.std(axis=1, ddof=1) * scale / count**0.5
    return scores.T, errors.T


def designs(num_segments: int, last: int, key: jax.Array, *, first: int = 0) -> np.ndarray:
    """`[(last - first) (S + 1), S]` degrees: each point, and it with one coordinate after the other
    drawn anew."""
    both = _sequence(last, 2 * num_segments, key)[first:]
    points, others = both[:, :num_segments], both[:, num_segments:]
    mixed = np.repeat(points[:, None], num_segments + 1, axis=1)
    each = np.arange(num_segments)
    mixed[:, 1 + each, each] = others
    return mixed.reshape(-1, num_segments)


def _sequence(num_points: int, num_dimensions: int, key: jax.Array) -> np.ndarray:
    """`[n, d]` in [0, 1): the first points of a scrambled Sobol sequence."""
    from scipy.stats import qmc

    if num_dimensions > _MOST_DIMENSIONS:
        raise ValueError(
            f"segments must be at most {_MOST_DIMENSIONS // 2:,}, as far as Sobol sequences are "
            f"tabulated; got {num_dimensions // 2:,}"
        )
    generator = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    sequence = qmc.Sobol(num_dimensions, seed=generator)
    # Only powers of two are drawn without a warning.
    points = sequence.random_base2(max(num_points - 1, 1).bit_length())
    return points[:num_points].astype(np.float32)


def _distinct(keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where distinct rows occur first, in order, and for each row which of them it is."""
    _, places, which = np.unique(
        np.packbits(keep, axis=1), axis=0, return_index=True, return_inverse=True
    )
    order = np.argsort(places)
    return places[order], np.argsort(order)[which.reshape(-1)]
