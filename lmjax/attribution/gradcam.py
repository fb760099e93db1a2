"""Class activation maps by gradients: a layer's channels, weighted by the gradients there.

Grad-CAM and its relatives differ in how activations and gradients make a map of the layer. The map
is then resized to the image.
"""

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

Combine = Callable[[jax.Array, jax.Array], jax.Array]
"""(activations `[h, w, D]`, gradients `[T, h, w, D]`) -> maps `[T, h, w]`."""


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
    return _explain(_mean_gradients, features, head, image, target=target, objective=objective)


@over_images
@recorded
def hirescam(
    features: Callable,
    head: Callable,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by HiResCAM: a layer's activations times their gradients, summed over channels.

    Unlike Grad-CAM it lets a position count by the gradient there. Where the head is linear, the
    layer's map adds up to the output, but for the head's bias.

    Cost: one pass forward and back.

    Example:
      >>> features = lambda image: image.reshape(4, 4, 4, 4, 3).mean((1, 3))  # [4, 4, 3]
      >>> head = lambda features: features.mean((0, 1))  # three classes
      >>> lmjax.attribution.hirescam(features, head, image).scores.shape
      (16, 16)

    Args:
      features, head, image, target, objective: as in `gradcam`.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several, with signs.

    Raises:
      ValueError: as `gradcam`.

    References:
      Draelos & Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of
      convolutional neural networks" (arXiv 2011.08891), section 3. pytorch-grad-cam rectifies.
    """
    return _explain(_products, features, head, image, target=target, objective=objective)


@over_images
@recorded
def gradcam_plus_plus(
    features: Callable,
    head: Callable,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by Grad-CAM++: channels, weighted by the positive gradients at few positions.

    A channel's weight is the sum over positions of relu(g) / (2 + g sum(A)), with gradients g and
    the channel's activations A: positions count the more, the less of the channel there is, so that
    several objects of a class show alike. Both maps are rectified as in `gradcam`.

    Cost: one pass forward and back.

    Example:
      >>> features = lambda image: image.reshape(4, 4, 4, 4, 3).mean((1, 3))  # [4, 4, 3]
      >>> head = lambda features: features.mean((0, 1))  # three classes
      >>> lmjax.attribution.gradcam_plus_plus(features, head, image).scores.shape
      (16, 16)

    Args:
      features, head, image, target, objective: as in `gradcam`. The formula is for activations that
        are not below 0, behind a ReLU; positions where 2 + g sum(A) is not above 0 have no weight.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several; none below 0.

    Raises:
      ValueError: as `gradcam`.

    References:
      Chattopadhyay et al. 2018, "Grad-CAM++" (arXiv 1710.11063), equations 9 to 11 and 19, of the
      exponential of the output. Its derivative scales a map as a whole and is left out here, as in
      pytorch-grad-cam.
    """
    return _explain(_weighted_gradients, features, head, image, target=target, objective=objective)


@over_images
@recorded
def layercam(
    features: Callable,
    head: Callable,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by LayerCAM: a layer's activations times their positive gradients.

    Each position has its own weight, so that layers with many positions give fine maps:
    `layercam(*classifier.cut("layer2.1"), image)`.

    Cost: one pass forward and back.

    Example:
      >>> features = lambda image: image.reshape(4, 4, 4, 4, 3).mean((1, 3))  # [4, 4, 3]
      >>> head = lambda features: features.mean((0, 1))  # three classes
      >>> lmjax.attribution.layercam(features, head, image).scores.shape
      (16, 16)

    Args:
      features, head, image, target, objective: as in `gradcam`.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several; none below 0.

    Raises:
      ValueError: as `gradcam`.

    References:
      Jiang et al. 2021, "LayerCAM: exploring hierarchical class activation maps for localization"
      (IEEE Transactions on Image Processing 30), section III. The scaling of early layers' maps by
      tanh, which joins several layers, is left out.
    """
    return _explain(_positive_products, features, head, image, target=target, objective=objective)


def activations_of(features: Callable, image: jax.Array) -> jax.Array:
    """Returns the layer's activations `[h, w, D]`; raises ValueError for another shape."""
    activations = features(image)
    if activations.ndim != 3:
        raise ValueError(
            f"features must return activations [h, w, D], got shape {activations.shape}; take a "
            "layer before the network pools over positions, and drop the axis of a batch"
        )
    return activations


def enlarged(maps: jax.Array, spatial_shape: Sequence[int]) -> jax.Array:
    """Resizes maps `[..., h, w]` bilinearly to `[..., H, W]`."""
    return jax.image.resize(maps, (*maps.shape[:-2], *spatial_shape), "bilinear")


def rectified_sum(activations: jax.Array, weights: jax.Array) -> jax.Array:
    """Sums channels `[h, w, D]` with weights `[T, D]`, and rectifies the maps `[T, h, w]`."""
    return jax.nn.relu(jnp.einsum("hwd,td->thw", activations, weights, precision="highest"))


def _explain(
    combine: Combine,
    features: Callable,
    head: Callable,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None,
    objective: Objective,
) -> Attribution:
    """Explains a prediction by the map that `combine` makes of a layer."""
    for name, function in (("features", features), ("head", head)):
        if not callable(function):
            raise ValueError(f"{name} must be a function, got {type(function).__name__}")
    predictor = jax.tree_util.Partial(_compose, features, head)
    problem = make_problem(predictor, image, target=target, objective=objective)
    maps = _cam.alone(problem.outputs, problem.image, combine=combine)
    return problem.attribution(np.asarray(maps), num_variants=1)


def _compose(features: Callable, head: Callable, image: jax.Array, masks: jax.Array) -> jax.Array:
    """Predicts the whole image's logits for every mask, by the two functions of `gradcam`."""
    logits = head(activations_of(features, image))
    if logits.ndim != 1:
        raise ValueError(f"head must return logits [K], got shape {logits.shape}")
    return jnp.broadcast_to(logits[None], (len(masks), len(logits)))


def _functions(predictor: Any) -> tuple[Callable, Callable]:
    """Returns the two functions that a predictor was composed of; the head gives its values."""
    if not isinstance(predictor, Measured):
        return predictor.args
    features, head = predictor.predictor.args
    return features, lambda x: jnp.reshape(predictor.objective(head(x)), -1)


@bounded_jit(static_argnames="combine")
def _cam(outputs: Outputs, image: jax.Array, *, combine: Combine) -> jax.Array:
    """Returns the maps `[T, H, W]`."""
    features, head = _functions(outputs.predictor)
    activations = activations_of(features, image)

    def targets(x: jax.Array) -> jax.Array:
        return as_output(head(x), outputs.objective)[outputs.targets]

    gradients = jacobian(targets, activations).astype(jnp.float32)
    maps = combine(activations.astype(jnp.float32), gradients)
    return enlarged(maps, image.shape[:2])


def _mean_gradients(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    """Combines as Grad-CAM."""
    return rectified_sum(activations, gradients.mean(axis=(1, 2)))


def _products(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    """Combines as HiResCAM."""
    return (activations[None] * gradients).sum(axis=-1)


def _weighted_gradients(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    """Combines as Grad-CAM++."""
    below = 2 + gradients * activations.sum(axis=(0, 1))[None, None, None]
    shares = jnp.where(below > 0, 1 / jnp.where(below > 0, below, 1), 0)
    return rectified_sum(activations, (shares * jax.nn.relu(gradients)).sum(axis=(1, 2)))


def _positive_products(activations: jax.Array, gradients: jax.Array) -> jax.Array:
    """Combines as LayerCAM."""
    return jax.nn.relu(_products(activations, jax.nn.relu(gradients)))
