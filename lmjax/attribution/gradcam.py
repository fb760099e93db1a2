"""Grad-CAM: a layer's channels, weighted by their mean gradients."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.differentiation import Objective, jacobian, make_problem
from lmjax.evaluation.outputs import as_output


def gradcam(
    features: Callable,
    head: Callable,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    output: str = "logit",
) -> Attribution:
    """Scores pixels by Grad-CAM: a layer's channels, weighted by their mean gradients.

    The network comes in two functions, cut behind the layer, usually the last convolutional one:
    `gradcam(*classifier.cut(), image)` for a classifier of `lmjax.models`. The map is rectified and
    then resized bilinearly to the image.

    Args:
      features: image `[H, W, C]` in [0, 1] -> the layer's activations `[h, w, D]`. Arrays of a
        pytree (such as `jax.tree_util.Partial`) are passed as arguments of the compiled function.
      head: activations `[h, w, D]` -> logits `[K]`.
      image, target, output: as in `lmjax.attribution.gradient`.

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
    problem = make_problem(predictor, image, target=target, output=output)
    maps = _gradcam(problem.objective, problem.image)
    return problem.attribution(np.asarray(maps), num_variants=1)


def _compose(features: Callable, head: Callable, image: jax.Array, masks: jax.Array) -> jax.Array:
    """Predicts the whole image's logits for every mask, by the two functions of `gradcam`."""
    logits = head(_activations(features, image))
    if logits.ndim != 1:
        raise ValueError(f"head must return logits [K], got shape {logits.shape}")
    return jnp.broadcast_to(logits[None], (len(masks), len(logits)))


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
def _gradcam(objective: Objective, image: jax.Array) -> jax.Array:
    """Returns the maps `[T, H, W]`."""
    features, head = objective.predictor.args
    activations = _activations(features, image)

    def outputs(x: jax.Array) -> jax.Array:
        return as_output(head(x), objective.output)[objective.targets]

    weights = jacobian(outputs, activations).astype(jnp.float32).mean(axis=(1, 2))
    maps = jnp.einsum("hwd,td->thw", activations.astype(jnp.float32), weights, precision="highest")
    shape = (len(objective.targets), *image.shape[:2])
    return jax.image.resize(jax.nn.relu(maps), shape, "bilinear")
