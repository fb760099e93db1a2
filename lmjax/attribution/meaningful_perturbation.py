"""Meaningful perturbation: the smallest smooth mask that hides the evidence for a class.

Fong & Vedaldi 2017, "Interpretable Explanations of Black Boxes by Meaningful Perturbation" (arXiv
1704.03296). `lmjax.attribution.optimised_mask` says which predictors it takes.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.checks import check_number, check_pair, check_whole, set_number
from lmjax._utils.keys import check_key
from lmjax._utils.renamed import renamed
from lmjax._utils.summary import brief
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.differentiation import Outputs
from lmjax.attribution.optimised_mask import (
    descend,
    in_proportion,
    mask_attribution,
    soft_problem,
)
from lmjax.attribution.record import recorded
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.masking.checks import check_image
from lmjax.removals.baselines import gaussian_blur

# The optimisation starts from the smallest disc that takes this share of the output away.
_SUPPRESSED = 0.99
_DISCS = 20
_SMOOTH = 5  # pixels, for images of 224 pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskPenalty:
    """The penalty on masks of `meaningful_perturbation`, equation 4 of the paper.

    Attributes:
      l1: weight of the hidden cells, 0 or more.
      tv: weight of the differences of neighbouring cells, 0 or more.
      beta: power of the differences, 1 or more.

    Raises:
      ValueError: numbers out of range.
    """

    l1: float = 1e-4
    tv: float = 1e-2
    beta: float = 3.0

    def __post_init__(self):
        set_number(self, "l1", least=0)
        set_number(self, "tv", least=0)
        set_number(self, "beta", least=1)


@renamed(output="objective")
@over_images
@recorded
def meaningful_perturbation(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    iterations: int = 300,
    grid: int | tuple[int, int] = 28,
    smooth: float | None = None,
    penalty: MaskPenalty = MaskPenalty(),
    learning_rate: float = 0.1,
    jitter: int = 4,
    objective: Objective = "probability",
) -> Attribution:
    """Scores pixels by how far a small, smooth mask hides them to lower the output.

    This is the deletion game: Adam minimises output + l1 sum(1 - m) + tv sum(|differences of
    neighbours in m|^beta) over coarse masks m in [0, 1], which are enlarged bilinearly and smoothed
    to hide parts of the image. It starts from the smallest of 20 discs about the centre that takes
    99% of the output away. The scores are 1 - m: 1 where the image is hidden, 0 where it shows.

    Cost: `iterations` passes forward and back, and about 20 evaluations.

    Example:
      >>> found = lmjax.attribution.meaningful_perturbation(
      ...     predictor, image, key=key, grid=4, iterations=5
      ... )
      >>> found.scores.shape
      (16, 16)

    Args:
      predictor: a predictor or an `lmjax.Evaluator` of one, differentiable in soft masks: made by
        `lmjax.Predictor` with a `lmjax.Replace`. The paper's is
        `Replace("blur")`.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      key: random key; the same key gives the same scores.
      target: class or classes to explain, each by its own mask; None explains the predicted class.
      iterations: steps of Adam, 1 or more.
      grid: cells of the coarse mask along each side, or (h, w).
      smooth: standard deviation in pixels of the Gaussian over the enlarged mask, 0 for none. None
        takes 5 for an image of 224 pixels (the longer side), and scales in proportion.
      penalty: l1, tv and beta.
      learning_rate: of Adam, above 0.
      jitter: number of rows, and of columns, among which the image is shifted at random under the
        mask at each step, about its place (border pixels are repeated). 1 does not shift.
      objective: what to lower: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`). The
        default penalty suits probabilities.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: options out of range, target not a class of the network, a predictor that takes
        binary masks only or whose output does not depend on masks, and all that `lmjax.evaluate`
        raises.

    References:
      Fong & Vedaldi 2017, "Interpretable Explanations of Black Boxes by Meaningful Perturbation"
      (arXiv 1704.03296), equation 4; the defaults, and sums over the coarse mask, are those of the
      authors' code. That code sums (dx^2 + dy^2)^(beta / 2) where equation 4, and this function,
      sum the two powers; it enlarges the mask by its nearest cells, and starts from a blurred disc,
      the best of 35 radii. (A widely used reimplementation in PyTorch takes means, with l1 0.01 and
      tv 0.2: on 28 x 28 cells about 1e-5 and 3e-4 here.)
    """
    check_key(key)
    iterations = check_whole("iterations", iterations, least=1)
    learning_rate = check_number("learning_rate", learning_rate, above=0)
    if not isinstance(penalty, MaskPenalty):
        raise ValueError(f"penalty must be a lmjax.attribution.MaskPenalty, got {brief(penalty)}")
    check_image(image)
    side = max(np.shape(image)[:2])
    jitter = check_whole("jitter", jitter, least=1, most=side, note="pixels of the image")
    note = "the image's height and width"
    grid = check_pair("grid", grid, least=2, most=np.shape(image)[:2], note=note)
    smooth = in_proportion(_SMOOTH, image) if smooth is None else smooth
    smooth = check_number("smooth", smooth, least=0)
    problem = soft_problem(predictor, image, target=target, objective=objective)
    settings = _Settings(iterations, grid, smooth, penalty, learning_rate, jitter)
    maps = _optimise(problem.outputs, problem.image, key, settings=settings)
    evaluated = len(problem.outputs.targets) * (iterations + _DISCS) + 1
    return mask_attribution(problem, *maps, num_variants=evaluated)


class _Settings(NamedTuple):
    """The options of `meaningful_perturbation` that are constants of its compiled function."""

    iterations: int
    grid: tuple[int, int]
    smooth: float
    penalty: MaskPenalty
    learning_rate: float
    jitter: int


@bounded_jit(static_argnames="settings")
def _optimise(
    outputs: Outputs, image: jax.Array, key: jax.Array, *, settings: _Settings
) -> tuple[jax.Array, jax.Array]:
    """Returns scores `[T, H, W]`, and whether the output depended on the mask `[T]`."""
    predictor, weights = outputs.predictor, settings.penalty
    enlarge = functools.partial(_enlarge, shape=image.shape[:2], smooth=settings.smooth)
    before = settings.jitter // 2
    margin = (before, settings.jitter - 1 - before)
    padded = jnp.pad(image, (margin, margin, (0, 0)), mode="edge")

    def penalty(mask: jax.Array) -> jax.Array:
        return weights.l1 * (1 - mask).sum() + weights.tv * _variation(mask, weights.beta)

    def optimise_one(target: jax.Array) -> tuple[jax.Array, jax.Array]:
        def score(mask: jax.Array, image: jax.Array) -> jax.Array:
            return outputs.of(predictor(image, enlarge(mask)[None])[0])[target]

        def slope(mask: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            offset = jax.random.randint(key, (2,), 0, settings.jitter, jnp.int32)
            shifted = jax.lax.dynamic_slice(padded, (*offset, jnp.int32(0)), image.shape)
            gradient = jax.grad(score)(mask, shifted)
            return gradient + jax.grad(penalty)(mask), (gradient != 0).any()

        start = _disc(lambda mask: score(mask, image), settings.grid)
        keys = jax.random.split(key, settings.iterations)
        mask, depends = descend(start, slope, keys, optax.adam(settings.learning_rate))
        return jnp.clip(1 - enlarge(mask), 0, 1), depends  # rounding

    return jax.lax.map(optimise_one, outputs.targets)


def _enlarge(mask: jax.Array, *, shape: tuple[int, ...], smooth: float) -> jax.Array:
    """Enlarges a coarse mask `[h, w]` to the size of the image, and smooths it."""
    mask = jax.image.resize(mask, shape, "bilinear")
    if smooth > 0:
        mask = gaussian_blur(mask[..., None], sigma=smooth)[..., 0]
    return mask


def _variation(mask: jax.Array, beta: float) -> jax.Array:
    """Returns the total variation of a mask, with differences to the power beta."""
    down, across = ((jnp.abs(jnp.diff(mask, axis=axis)) ** beta).sum() for axis in (0, 1))
    return down + across


def _disc(score: Callable, grid: tuple[int, int]) -> jax.Array:
    """Returns the mask `[h, w]` that hides the smallest sufficient disc, or else everything."""
    rows, columns = (np.abs((np.arange(n) + 0.5) / n - 0.5) for n in grid)
    distance = np.hypot(rows[:, None], columns[None])
    radii = np.linspace(0, distance.max(), _DISCS + 1)[1:]
    masks = jnp.asarray(distance[None] > radii[:, None, None], jnp.float32)
    scores = jax.lax.map(score, masks)
    whole, hidden = score(jnp.ones(grid)), scores[-1]
    enough = (scores <= whole - _SUPPRESSED * (whole - hidden)).at[-1].set(True)
    return masks[jnp.argmax(enough)]
