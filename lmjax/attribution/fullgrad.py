"""FullGrad: what the input and every bias of a network contribute to the output."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.differentiation import Outputs, make_problem
from lmjax.attribution.gradcam import enlarged
from lmjax.attribution.record import recorded
from lmjax.evaluation.evaluator import Evaluator, as_predictor
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Measured, Objective
from lmjax.evaluation.outputs import as_output


@over_images
@recorded
def fullgrad(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by FullGrad: the gradients times the input and times the biases of all layers.

    Of a network whose layers are affine between ReLUs these products add up to the logit (the last
    layer's own bias apart). The absolute value of each channel of each product is rescaled to
    [0, 1] and resized bilinearly to the image; the score is the sum of all of them. So signs are
    lost, and fine layers show edges where deep ones show places.

    Cost: one pass forward and back.

    Example:
      >>> digits = lmjax.Predictor(lmjax.models.load("resnet18_digits"))
      >>> lmjax.attribution.fullgrad(digits, np.tile(image, (4, 4, 1))).scores.shape
      (64, 64)

    Args:
      predictor: an `lmjax.Predictor` of a convolutional network of `lmjax.models`, or an
        `lmjax.Evaluator` of one. Its removal plays no part.
      image, target, objective: as in `lmjax.attribution.gradient`.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several; none below 0.

    Raises:
      ValueError: as `lmjax.attribution.gradient`, or a network whose biases cannot be had: one that
        is a function, or a transformer.

    References:
      Srinivas & Fleuret 2019, "Full-gradient representation for neural network visualization"
      (arXiv 1905.00780), equation 2 for the sum, section 4 for the map. Biases that other
      non-linearities imply (SiLU, sigmoid gates) are left out, as in the authors' code, which
      rescales a layer's channels together.
    """
    biases: Any = getattr(getattr(as_predictor(predictor), "classifier", None), "biases", None)
    if not callable(biases):
        raise ValueError(
            "predictor has no network whose biases are known, such as an lmjax.Predictor of a "
            "classifier of lmjax.models has"
        )
    whole = jax.tree_util.Partial(_compose, biases())
    problem = make_problem(whole, image, target=target, objective=objective)
    maps = _fullgrad(problem.outputs, problem.image)
    return problem.attribution(np.asarray(maps), num_variants=1)


def _compose(network: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
    """Predicts the whole image's logits for every mask."""
    logits, _ = network(network.classifier.normalise(image))
    return jnp.broadcast_to(logits[None], (len(masks), len(logits)))


@bounded_jit()
def _fullgrad(outputs: Outputs, image: jax.Array) -> jax.Array:
    """Returns the maps `[T, H, W]`."""
    predictor: Any = outputs.predictor
    measured = isinstance(predictor, Measured)
    (network,) = (predictor.predictor if measured else predictor).args
    inputs = network.classifier.normalise(image)
    _, biases = network(inputs)

    def targets(inputs: jax.Array, shifts: dict[str, jax.Array]) -> jax.Array:
        logits, _ = network(inputs, shifts)
        values = jnp.reshape(predictor.objective(logits), -1) if measured else logits
        return as_output(values, outputs.objective)[outputs.targets]

    zeros = jax.tree.map(jnp.zeros_like, biases)
    values, pull_back = jax.vjp(targets, inputs, zeros)

    def one(row: jax.Array) -> jax.Array:
        products = jax.tree.map(jnp.multiply, pull_back(row), (inputs, biases))
        return sum((_shown(x, image.shape[:2]) for x in jax.tree.leaves(products)), jnp.float32(0))

    return jax.lax.map(one, jnp.eye(len(values), dtype=values.dtype))


def _shown(product: jax.Array, spatial_shape: Sequence[int]) -> jax.Array:
    """Returns a product `[h, w, D]` as a map `[H, W]`; a constant channel, without places, is 0."""
    sizes = jnp.abs(product.astype(jnp.float32))
    low, high = (f(sizes, axis=(0, 1), keepdims=True) for f in (jnp.min, jnp.max))
    shares = (sizes - low) / jnp.where(high > low, high - low, 1)
    return enlarged(shares.sum(axis=-1), spatial_shape)
