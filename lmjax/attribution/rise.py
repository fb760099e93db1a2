"""RISE: the mean of random masks, each weighted by the network's answer under it.

Petsiuk, Das & Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models"
(arXiv 1806.07421).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import answer
from lmjax.attribution.sampling import Estimate, Samples, Sampling, Until, run
from lmjax.masking.checks import check_image
from lmjax.masks.families import Grids, MaskFamily, random_grids, weighted_sum

_FIRST_CHECK = 100


def rise(
    predictor: Callable,
    image,
    *,
    key,
    target: int | Sequence[int] | None = None,
    num_samples: int = 4000,
    grid: int | tuple[int, int] = 7,
    keep_probability: float = 0.5,
    soft: bool | None = None,
    until: Until | None = None,
    previous: Attribution | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Scores of pixels: the expected output, given that the pixel is visible.

    With soft masks m, as published: sum(f(m) m) / (N keep_probability), equation 6. Bilinear masks
    have no meaning where a mask says which positions are known: there (`lmjax.LayerMasking`) the
    same grids are binary, every pixel as the cell it lies in, and the score is the mean output over
    the variants that show the pixel, sum(f(m) m) / sum(m).

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      key: random key; the same key gives the same scores.
      target: class or classes to explain; None explains the predicted class. Several cost no more
        evaluations than one.
      num_samples: variants evaluated besides the whole image, 2 or more, with those of `previous`.
      grid: cells along each side, or (h, w).
      keep_probability: how likely a cell is visible.
      soft: whether masks are. None asks the predictor (`soft_masks`: those that paint take
        them); a function that does not say gets binary masks, which any function can take.
      until: (scores, standard errors) -> stop, for example `stable_ranking(5)`, which ranks cells
        of a grid: asked from 100 variants on. None takes all.
      previous: attribution of the same call with fewer samples, to go on from. It holds the sums
        over their masks (`samples`, for binary masks 2 T + 1 maps of doubles, for soft ones 2 T).
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `Attribution` with scores and standard errors `[H, W]` for one target, `[T, H, W]` for
      several. A pixel that no variant shows has the mean output and an infinite standard error.

    Raises:
      ValueError: options out of range, `previous` that does not fit, target not a class of the
        network, non-finite outputs, and all that `lmjax.evaluate` raises.

    References:
      Petsiuk et al. 2018, section 3.2 for the masks, 4 for the defaults (N for VGG16; 8000 for
      ResNet-50). The authors' code enlarges grids by a resize that mirrors at the border; here the
      outer half of a border cell has the cell's value.
    """
    check_image(image)
    if num_samples < 2:
        raise ValueError(f"num_samples must be 2 or more, got {num_samples!r}")
    soft = getattr(predictor, "soft_masks", False) if soft is None else soft
    shape = np.shape(image)[:2]
    grid = (grid, grid) if np.ndim(grid) == 0 else tuple(grid)

    def draw(first: int, last: int) -> Grids:
        options = {"grid": grid, "keep_probability": keep_probability, "soft": soft}
        return random_grids(shape, last - first, key=key, first=first, **options)

    def estimate(samples: Samples) -> Estimate:
        return _expectation(samples, keep_probability) if soft else _mean_where_visible(samples)

    settings = ("grid", grid), ("keep_probability", keep_probability), ("soft", soft)
    return run(
        Sampling(
            draw,
            estimate,
            ("rise", *settings),
            _FIRST_CHECK,
            add=_add_soft if soft else _add_binary,
        ),
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
        int(num_samples),
        key=key,
        until=until,
        previous=previous,
    )


class Sums(NamedTuple):
    """Of masks m and their values f, so far.

    Attributes:
      centre: `[T]`, what values are counted from.
      totals: float64 `[2 T, H, W]`, sums of m (f - centre) and of their squares; for binary masks
        `[1 + 2 T, H, W]`, the sum of m before them.
    """

    centre: np.ndarray
    totals: np.ndarray


def _add_soft(sums: Sums | None, masks: Grids, values: np.ndarray) -> Sums:
    new = [weighted_sum(masks, values), weighted_sum(_Squared(masks), values**2)]
    totals = 0 if sums is None else sums.totals
    return Sums(np.zeros(values.shape[1]), totals + np.concatenate(new, dtype=np.float64))


def _expectation(samples: Samples, keep_probability: float) -> Estimate:
    """Mean of value times mask over the keep probability, `[T, H, W]`, and its standard error."""
    mean, square = np.split(samples.sums.totals / samples.count, 2)
    errors = np.sqrt(np.maximum(square - mean**2, 0) / (samples.count - 1))
    return Estimate(mean / keep_probability, errors / keep_probability)


def _add_binary(sums: Sums | None, masks: Grids, values: np.ndarray) -> Sums:
    # Counted from two of the values, small differences keep their digits.
    centre = values[:2].mean(axis=0) if sums is None else sums.centre
    new = weighted_sum(masks, np.c_[np.ones(len(masks)), values - centre, (values - centre) ** 2])
    return Sums(centre, (0 if sums is None else sums.totals) + new.astype(np.float64))


def _mean_where_visible(samples: Samples) -> Estimate:
    """Mean value over the variants that show a pixel, `[T, H, W]`, and its standard error."""
    centre, (count, *sums) = samples.sums
    mean, square = np.split(np.stack(sums) / np.maximum(count, 1), 2)
    variance = np.maximum(square - mean**2, 0) / np.maximum(count - 1, 1)
    unseen = (samples.values.mean(axis=0) - centre)[:, None, None]
    mean = centre[:, None, None] + np.where(count > 0, mean, unseen)
    return Estimate(mean, np.where(count > 1, np.sqrt(variance), np.inf))


class _Squared(MaskFamily):
    """The squares of another family's masks."""

    soft = True

    def __init__(self, family: MaskFamily):
        self.spatial_shape, self.shared, self.rows = (
            family.spatial_shape,
            family.shared,
            family.rows,
        )
        self.make = _SquaredMaker(family.make)


@dataclasses.dataclass(frozen=True)
class _SquaredMaker:
    make: Callable

    def __call__(self, shared, rows):
        return self.make(shared, rows) ** 2
