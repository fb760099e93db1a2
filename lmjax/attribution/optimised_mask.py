"""Optimised masks: among all masks, the one that changes the output most for its size.

They are found by following gradients with respect to the mask, whose values range from hidden (0)
to visible (1). The predictor must therefore give half hidden pixels a meaning, as
`lmjax.Replace("blur")` does: there they are half blurred.

Under a removal that takes binary masks (`lmjax.LayerMasking`) there is no gradient: a position is
known or it is not. Such predictors are refused. A meaningful question there is whether the region
found under `Replace` suffices for the network without any paint. Make the map binary, and evaluate:

    found = extremal_perturbation(Predictor(classifier, Replace("blur")), image)
    mask = found.heatmap >= np.quantile(found.heatmap, 0.9)  # the upper tenth of the pixels
    layer_masking = Predictor(classifier, LayerMasking())
    lmjax.evaluate(layer_masking, image, np.stack([mask, ~mask]))  # it alone, and all but it

or pass `found.heatmap` to `lmjax.metrics.deletion` with that predictor. The mask remains optimal
for another removal: a smaller one may do as well under layer masking.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.differentiation import Problem, make_problem
from lmjax.evaluation.evaluator import Evaluator, as_predictor
from lmjax.evaluation.objectives import Objective

_SIDE = 224  # pixels, the size of image for which the papers give lengths


def in_proportion(pixels: float, image: ArrayLike) -> float:
    """Scales a length given for images of 224 pixels to the longer side of an image."""
    return pixels * max(np.shape(image)[:2]) / _SIDE


def soft_problem(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None,
    objective: Objective,
) -> Problem:
    """Prepares the optimisation of masks.

    Args:
      predictor: a predictor that takes soft masks, or an `lmjax.Evaluator` of one. A plain function
        is tried; `mask_attribution` detects that its gradient is 0.
      image, target, objective: as in `lmjax.attribution.game.Game`.

    Raises:
      ValueError: a predictor that takes binary masks only, and as `Game.payoffs`.
    """
    if not getattr(as_predictor(predictor), "soft_masks", True):
        raise ValueError(
            "predictor takes binary masks only, which have no gradient; use "
            "lmjax.Predictor(classifier, lmjax.Replace('blur')), then make the map binary "
            "(lmjax.attribution.optimised_mask says how)"
        )
    return make_problem(predictor, image, target=target, objective=objective)


def mask_attribution(
    problem: Problem, scores: jax.Array, depends: jax.Array, *, num_variants: int
) -> Attribution:
    """Returns an attribution of scores `[T, H, W]`.

    Args:
      problem: that was solved.
      scores: `[T, H, W]`.
      depends: bool `[T]`, whether the output ever depended on the mask.
      num_variants: number of variants that were evaluated.

    Raises:
      ValueError: NaN or infinity among the scores, or an output that never depended on the mask.
    """
    found = problem.attribution(np.asarray(scores), num_variants=num_variants)
    if not np.all(depends):
        raise ValueError(
            "predictor has no gradient with respect to its masks: it makes them binary (blend with "
            "lmjax.Replace(...)), its output does not depend on the image, or the image is what "
            "takes its place where it is hidden, such as black under black"
        )
    return found


def descend(
    start: jax.Array,
    slope: Callable,
    steps: jax.Array,
    optimiser: optax.GradientTransformation,
) -> tuple[jax.Array, jax.Array]:
    """Minimises over masks in [0, 1] by projected gradient descent.

    Args:
      start: initial masks.
      slope: (masks, step) -> gradient, and whether the network contributes to it.
      steps: `[N, ...]`, the second argument of `slope` at each step.
      optimiser: of optax.

    Returns:
      the masks, and whether the network ever contributed.
    """

    def step(carry, each):
        masks, state, depends = carry
        gradient, contributes = slope(masks, each)
        with jax.numpy_dtype_promotion("standard"):  # optax counts in ints
            updates, state = optimiser.update(gradient, state, masks)
        masks = jnp.clip(jnp.asarray(optax.apply_updates(masks, updates)), 0, 1)
        return (masks, state, depends | contributes), None

    carry = start, optimiser.init(start), jnp.array(False)
    (masks, _, depends), _ = jax.lax.scan(step, carry, steps)
    return masks, depends
