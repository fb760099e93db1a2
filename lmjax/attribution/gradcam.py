"""Grad-CAM: a layer's channels, weighted by their mean gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.renamed import renamed
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.differentiation import Outputs, jacobian, make_problem
from lmjax.attribution.record import recorded
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Measured, Objective
from lmjax.evaluation.outputs import as_output


@renamed(output="objective")
@over_images
@recorded
def gradcam(
    features: Callable,
    head: Callable,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by Grad-CAM: a layer's channels, weighted by their mean gradients.

    The network comes in two functions, cut behind the layer, usually the last convolutional one:
    `gradcam(*classifier.cut(), image)` for a classifier of `lmjax.models`. The map is rectified and
    then resized bilinearly to the image.

    Cost: one pass forward and back.

    Example:
      >>> features = lambda image: image.reshape(4, 4, 4, 4, 3).mean((1, 3))  # [4, 4, 3]
      >>> head = lambda features: features.mean((0, 1))  # three classes
      >>> lmjax.attribution.gradcam(features, head, image).scores.shape
      (16, 16)

    Args:
      features: image `[H, W, C]` in [0, 1] -> the layer's activations `[h, w, D]`. Arrays of a
        pytree (such as `jax.tree_util.Partial`) are passed as arguments of the compiled function.
      head: activations `[h, w, D]` -> logits `[K]`.
      image, target, objective: as in `lmjax.attribution.gradient`.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several; none below 0.

    Raises:
      ValueError: as `lmjax.attribution.gradient`, or features or logits of another shape.

    References:
      Selvaraju et al. 2017, "Grad-CAM" (arXiv 1610.02391), equations 1 and 2. Captum's LayerGradCam
      rectifies with `relu_attributions=True` only.
    """
    for name, function in (("features", features), ("head", head)):
        if not callable(function):
            raise ValueError(f"{name} must be a function, got {type(function).__name__}")
    predictor = jax.tree_util.Partial(_compose, features, head)
    problem = make_problem(predictor, image, target=target, objective=objective)
    maps = _gradcam(problem.outputs, problem.image)
    return problem.attribution(np.asarray(maps), num_variants=1)


def _compose(features: Callable, head: Callable, image: jax.Array, masks: jax.Array) -> jax.Array:
    """Predicts the whole image's logits for every mask, by the two functions of `gradcam`."""
    logits = head(_activations(features, image))
    if logits.ndim != 1:
        raise ValueError(f"head must return logits [K], got shape {logits.shape}")
    return jnp.broadcast_to(logits[None], (len(masks), len(logits)))


def _functions(predictor: Any) -> tuple[Callable, Callable]:
    """Returns the two functions that a predictor was composed of; the head gives its values."""
    if not isinstance(predictor, Measured):
        return predictor.args
    features, head = predictor.predictor.args
    return features, lambda x: jnp.reshape(predictor.objective(head(x)), -1)


def _activations(features: Callable, image: jax.Array) -> jax.Array:
    """Returns the layer's activations `[h, w, D]`; raises ValueError for another shape."""
    activations = features(image)
    if activations.ndim != 3:
        raise ValueError(
            f"features must return activations [h, w, D], got shape {activations.shape}; take a "
            "layer before the network pools over positions, and drop the axis of a batch"
        )
    return activations


@bounded_jit()
def _gradcam(outputs: Outputs, image: jax.Array) -> jax.Array:
    """Returns the maps `[T, H, W]`."""
    features, head = _functions(outputs.predictor)
    activations = _activations(features, image)

    def targets(x: jax.Array) -> jax.Array:
        return as_output(head(x), outputs.objective)[outputs.targets]

    weights = jacobian(targets, activations).astype(jnp.float32).mean(axis=(1, 2))
    maps = jnp.einsum("hwd,td->thw", activations.astype(jnp.float32), weights, precision="highest")
    shape = (len(outputs.targets), *image.shape[:2])
    return jax.image.resize(jax.nn.relu(maps), shape, "bilinear")
