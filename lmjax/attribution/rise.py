"""RISE: the mean of random masks, each weighted by the network's answer under it.

Petsiuk, Das & Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models"
(arXiv 1806.07421).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from lmjax.attribution.answers import answer
from lmjax.attribution.attribution import Attribution
from lmjax.masking.checks import check_image
from lmjax.perturbation.mask_families import Grids, MaskFamily, random_grids, weighted_sum


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
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
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
      num_samples: variants evaluated besides the whole image, 2 or more.
      grid: cells along each side, or (h, w).
      keep_probability: how likely a cell is visible.
      soft: whether masks are. None asks the predictor (`takes_soft_masks`: those that paint take
        them); a function that does not say gets binary masks, which any function can take.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine: as in `lmjax.evaluate`.

    Returns:
      `Attribution` with scores and standard errors `[H, W]` for one target, `[T, H, W]` for
      several. A pixel that no variant shows has the mean output and an infinite standard error.

    Raises:
      ValueError: options out of range, target not a class of the network, non-finite outputs, and
        all that `lmjax.evaluate` raises.

    References:
      Petsiuk et al. 2018, section 3.2 for the masks, 4 for the defaults (N for VGG16; 8000 for
      ResNet-50). The authors' code enlarges grids by a resize that mirrors at the border; here the
      outer half of a border cell has the cell's value.
    """
    check_image(image)
    if num_samples < 2:
        raise ValueError(f"num_samples must be 2 or more, got {num_samples!r}")
    soft = getattr(predictor, "takes_soft_masks", False) if soft is None else soft
    shape = np.shape(image)[:2]
    masks = random_grids(
        shape, num_samples, key=key, grid=grid, keep_probability=keep_probability, soft=soft
    )
    answers = answer(
        predictor,
        image,
        masks,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
    )
    values = answers.values.reshape(num_samples, -1)
    if soft:
        results = _expectation(masks, values, keep_probability)
    else:
        results = _mean_where_visible(masks, values)
    scores, errors = (each.reshape(*answers.whole.shape, *shape) for each in results)
    return Attribution(
        scores=scores, standard_error=errors, num_variants=num_samples + 1, **answers.about()
    )


def _expectation(masks: Grids, values: np.ndarray, keep_probability: float):
    """Mean of value times mask over the keep probability, `[T, H, W]`, and its standard error."""
    values = values / keep_probability
    mean = weighted_sum(masks, values) / len(masks)
    square = weighted_sum(_Squared(masks), values**2) / len(masks)
    return mean, np.sqrt(np.maximum(square - mean**2, 0) / (len(masks) - 1))


def _mean_where_visible(masks: Grids, values: np.ndarray):
    """Mean value over the variants that show a pixel, `[T, H, W]`, and its standard error."""
    centre = values.mean(axis=0)  # counted from here, small differences keep their digits
    values = values - centre
    count, *sums = weighted_sum(masks, np.c_[np.ones(len(masks)), values, values**2])
    mean, square = np.split(np.stack(sums) / np.maximum(count, 1), 2)
    variance = np.maximum(square - mean**2, 0) / np.maximum(count - 1, 1)
    errors = np.where(count > 1, np.sqrt(variance), np.inf)
    return centre[:, None, None] + mean, errors


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
