"""Extremal perturbation: for each of several areas, the smooth mask that keeps the output highest.

Fong, Patrick & Vedaldi 2019, "Understanding Deep Networks via Extremal Perturbations and Smooth
Masks" (arXiv 1910.08485). `lmjax.attribution.optimised_mask` says which predictors it takes.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.checks import check_flag, check_number, check_numbers, check_whole
from lmjax._utils.renamed import renamed
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

# TorchRay's weight of the area's term, its growth at each step, its number of steps, and momentum.
_AREA_WEIGHT = 300
_AREA_GROWTH = 1.0035
_GROWING = 800
_MOMENTUM = 0.9
_EQUAL = 1e-3  # values of a mask that differ by less count as equal
# Pixels from node to node and radius of their discs, for images of 224 pixels.
_STEP, _SIGMA = 7, 21
_COLDNESS = 20  # of the smooth maximum: 1 / temperature


@renamed(output="objective")
@over_images
@recorded
def extremal_perturbation(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    areas: Sequence[float] = (0.025, 0.05, 0.1, 0.2),
    iterations: int = 800,
    step: int | None = None,
    sigma: float | None = None,
    learning_rate: float = 0.01,
    mirror: bool = False,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by how many of the best masks of several areas show them.

    This is the preservation game: for each area, a mask shows this share of the image and makes the
    output as high as possible. Masks are smooth by construction: every `step` pixels a node holds a
    number in [0, 1], and a pixel has the smooth maximum, over the nodes around it, of the node's
    number times exp(-2 max(distance / sigma - 1/2, 0)^2). A penalty keeps the area: the mean
    square between the mask's sorted values and a step from 0 to 1 that has this area. It grows for
    800 iterations, and then stays: it would drown the output. The scores are the sum of the masks;
    with one area they are its mask.

    Deterministic. Memory is that of a gradient for one variant per area, and of about
    (2 sigma / step + 3)^2 numbers for each of their pixels.

    Cost: `iterations` passes forward and back for each area, and an evaluation.

    Example:
      >>> found = lmjax.attribution.extremal_perturbation(
      ...     predictor, image, areas=(0.2,), iterations=5
      ... )
      >>> found.scores.shape, found.num_variants
      ((16, 16), 6)

    Args:
      predictor: a predictor or an `lmjax.Evaluator` of one, differentiable in soft masks: made by
        `lmjax.Predictor` with a `lmjax.Replace`. Nearest to the paper is
        `Replace("blur", sigma=20)`; there a half hidden pixel is less blurred, here it is a blend.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      target: class or classes to explain, each by its own masks; None explains the predicted class.
      areas: shares of the image, above 0 and below 1.
      iterations: steps of gradient descent with momentum 0.9, 1 or more.
      step: pixels from node to node. None takes 7 for an image of 224 pixels (the longer side), and
        scales in proportion.
      sigma: radius of a node's smooth disc, in pixels, half of `step` or more, so that every pixel
        is near a node. None takes 21 for 224 pixels.
      learning_rate: above 0.
      mirror: show the network the image flipped left to right at every other step, which finds
        masks that work for both, as TorchRay does. Unsuitable for digits and text.
      objective: what to raise: "logit", "probability" (softmax; sigmoid of a single logit) or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: as `meaningful_perturbation`.

    References:
      Fong, Patrick & Vedaldi 2019, "Understanding Deep Networks via Extremal Perturbations and
      Smooth Masks" (arXiv 1910.08485), section 3; the numbers, and the sum over areas, are
      TorchRay's. There areas are of the image with a margin of sigma, no nodes lie beyond the
      border, equal values are in the order of a sort, which here would favour corners, and lengths
      are for 224 pixels at every image size.
    """
    check_image(image)
    step = max(round(in_proportion(_STEP, image)), 1) if step is None else step
    iterations = check_whole("iterations", iterations, least=1)
    side = max(np.shape(image)[:2])
    step = check_whole("step", step, least=1, most=side, note="pixels of the image")
    sigma = max(in_proportion(_SIGMA, image), step / 2) if sigma is None else sigma
    note = "from half of step to the pixels of the image"
    sigma = check_number("sigma", sigma, least=step / 2, most=side, note=note)
    mirror = check_flag("mirror", mirror)
    learning_rate = check_number("learning_rate", learning_rate, above=0)
    areas = tuple(np.atleast_1d(check_numbers("areas", areas)).ravel().tolist())
    if not areas or not all(0 < area < 1 for area in areas):
        raise ValueError(f"areas must be one or more shares between 0 and 1, got {areas}")
    problem = soft_problem(predictor, image, target=target, objective=objective)
    settings = _Settings(areas, iterations, step, sigma, learning_rate, mirror)
    maps = _optimise(problem.outputs, problem.image, settings=settings)
    evaluated = len(problem.outputs.targets) * len(areas) * iterations + 1
    return mask_attribution(problem, *maps, num_variants=evaluated)


class _Settings(NamedTuple):
    """The options of `extremal_perturbation` that are constants of its compiled function."""

    areas: tuple[float, ...]
    iterations: int
    step: int
    sigma: float
    learning_rate: float
    mirror: bool


@bounded_jit(static_argnames="settings")
def _optimise(
    outputs: Outputs, image: jax.Array, *, settings: _Settings
) -> tuple[jax.Array, jax.Array]:
    """Returns scores `[T, H, W]`, and whether the output depended on the masks `[T]`."""
    predictor, shape = outputs.predictor, image.shape[:2]
    masks_of = functools.partial(
        _smooth_masks, shape=shape, step=settings.step, sigma=settings.sigma
    )
    areas = jnp.asarray(settings.areas)
    nodes = jnp.ones((len(areas), *(-(-n // settings.step) for n in shape)))
    # The learning rate offsets the momentum, so that steps are means of gradients and not sums.
    optimiser = optax.sgd(settings.learning_rate * (1 - _MOMENTUM), _MOMENTUM)

    def penalty(masks: jax.Array, t: jax.Array) -> jax.Array:
        values = masks.reshape(len(masks), -1)
        wanted = jax.vmap(_upper_share)(jax.lax.stop_gradient(values), areas)
        weight = _AREA_WEIGHT * _AREA_GROWTH ** jnp.minimum(t, _GROWING).astype(values.dtype)
        return weight * ((values - wanted) ** 2).mean(axis=1).sum()

    def optimise_one(target: jax.Array) -> tuple[jax.Array, jax.Array]:
        def loss(masks: jax.Array, t: jax.Array) -> jax.Array:
            mirrored = settings.mirror & (t % 2 == 0)
            shown = jnp.where(mirrored, image[:, ::-1], image)
            masks = jnp.where(mirrored, masks[:, :, ::-1], masks)
            return -outputs.of(predictor(shown, masks))[:, target].sum()

        def slope(nodes: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            masks, pull_back = jax.vjp(masks_of, nodes)
            gradient = jax.grad(loss)(masks, t)
            return pull_back(gradient + jax.grad(penalty)(masks, t))[0], (gradient != 0).any()

        steps = jnp.arange(settings.iterations)
        found, depends = descend(nodes, slope, steps, optimiser)
        return masks_of(found).sum(axis=0), depends

    return jax.lax.map(optimise_one, outputs.targets)


def _upper_share(values: jax.Array, area: jax.Array) -> jax.Array:
    """Returns `[n]`: 1 for the values in the upper share `area`, 0 for the others.

    Equal values get the mean of theirs: at the start all are equal, and the order of a sort must
    not decide.
    """
    in_order = jnp.sort(values)
    below = jnp.searchsorted(in_order, values - _EQUAL, side="left")
    not_above = jnp.searchsorted(in_order, values + _EQUAL, side="right")
    hidden = jnp.round((1 - area) * len(values))
    below, not_above = (each.astype(values.dtype) for each in (below, not_above))
    return jnp.clip((not_above - hidden) / (not_above - below), 0, 1)


def _smooth_masks(
    nodes: jax.Array, *, shape: tuple[int, ...], step: int, sigma: float
) -> jax.Array:
    """Makes masks `[A, H, W]` of numbers at nodes `[A, h, w]`, the centres of their cells."""
    number, height, width = nodes.shape
    reach = 1 + math.ceil(sigma / step)  # in cells
    offset = np.arange(step)[:, None] - (step - 1) / 2 - step * np.arange(-reach, reach + 1)[None]
    distance = np.hypot(offset[:, None, :, None], offset[None, :, None, :]) / sigma
    weights = np.exp(-2 * np.maximum(distance - 0.5, 0) ** 2).reshape(1, 1, step, 1, step, -1)
    size = 2 * reach + 1
    # The outermost nodes are repeated beyond the border: corners would have few nodes around them.
    padded = jnp.pad(nodes, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    around = jax.lax.conv_general_dilated_patches(
        padded[..., None],
        *((size, size), (1, 1), "VALID"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    values = around[:, :, None, :, None, :] * jnp.asarray(weights, nodes.dtype)
    masks = (values * jax.nn.softmax(_COLDNESS * values)).sum(axis=-1)
    masks = masks.reshape(number, height * step, width * step)
    return masks[:, : shape[0], : shape[1]]
