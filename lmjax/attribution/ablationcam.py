"""Ablation-CAM: a layer's channels, weighted by how far the output falls without each of them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import Game
from lmjax.attribution.gradcam import activations_of, enlarged, rectified_sum
from lmjax.attribution.halves import Halves, choose_halves
from lmjax.attribution.pictures import pictures_of_nothing
from lmjax.attribution.record import recorded
from lmjax.evaluation.evaluator import Evaluator, as_evaluator
from lmjax.evaluation.jobs import Static, split
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import answered
from lmjax.masking.checks import check_colours, check_image
from lmjax.masks.families import Masks


@over_images
@recorded
def ablationcam(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    halves: Halves | None = None,
    target: int | Sequence[int] | None = None,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by Ablation-CAM: a layer's channels, weighted by the fall without each of them.

    The output falls by some amount where one channel is ablated; these amounts weigh the channels,
    and their sum is rectified and then resized bilinearly to the image. No gradients are needed.

    The removal says what an ablated channel holds: what it holds where nothing of the image is
    visible. That is 0 under removals inside the network (`lmjax.LayerMasking`) and for a plain
    function, as published; the channel of the grey or blurred image under `lmjax.Replace`; and
    under removals that average over several images each of these in turn, and outputs are averaged.

    Cost: a pass through the head for each channel, and one of the whole image.

    Example:
      >>> features = lambda image: image.reshape(4, 4, 4, 4, 3).mean((1, 3))  # [4, 4, 3]
      >>> head = lambda features: features.mean((0, 1))  # three classes
      >>> halves = features, head
      >>> lmjax.attribution.ablationcam(predictor, image, halves=halves).scores.shape
      (16, 16)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds batch size, devices and progress;
        the engine plays no part.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      halves: (features, head) as in `lmjax.attribution.gradcam`; None takes
        `predictor.classifier.cut()`. Only the head is run for each channel.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      objective: what to explain: "logit", "probability" or "margin" of the target, or a function
        of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several; none below 0.

    Raises:
      ValueError: as `lmjax.attribution.gradcam`, or a predictor without a classifier that can be
        cut.

    References:
      Desai & Ramaswamy 2020, "Ablation-CAM: visual explanations for deep convolutional network via
      gradient-free localization" (WACV), section 3. There the fall is divided by the output, which
      scales a map as a whole, and turns it round where the output is below 0; here it is not.
    """
    check_image(image)
    check_colours(image)
    features, head = choose_halves(halves, predictor)
    image = np.array(image, np.float32)
    arrays, static = split(features)
    activations = _features(arrays, image[None], static=static)[0]
    pictures = pictures_of_nothing(predictor, image)
    ablated = jnp.zeros((1, *activations.shape), jnp.float32)
    if pictures is not None:
        ablated = _features(arrays, pictures, static=static)
    given, channels = as_evaluator(predictor), activations.shape[-1]
    evaluator = Evaluator(
        jax.tree_util.Partial(_outputs, head, activations, ablated),
        batch_size=given.batch_size,
        mesh=given.mesh,
        progress=given.progress,
    )
    # The players are the channels: a mask has one row, of a column for each.
    game = Game(
        evaluator, np.zeros((1, channels, 1), np.float32), target=target, objective=objective
    )
    payoffs = answered(game.ask(Masks(~np.eye(channels, dtype=bool)[:, None])))
    falls = payoffs.drops.reshape(-1, channels).astype(np.float32)
    scores = np.asarray(_map(activations, falls, spatial_shape=image.shape[:2]))
    prediction = payoffs.prediction
    return Attribution(
        scores=scores if prediction.several else scores[0],
        num_variants=channels + 1,
        **prediction._asdict(),
    )


def _outputs(
    head: Callable, activations: jax.Array, ablated: jax.Array, _: jax.Array, masks: jax.Array
) -> Any:
    """Returns the outputs of variants, each with some channels only.

    Args:
      head: activations `[h, w, D]` -> output.
      activations: `[h, w, D]`.
      ablated: `[R, h, w, D]`, what takes their place; outputs are averaged over R.
      masks: `[N, 1, D]`, 1 = as it is.
    """

    def one(mask: jax.Array) -> Any:
        keep = jnp.broadcast_to(mask.astype(bool)[None, None], ablated.shape)
        mixed = jnp.where(keep, activations[None], ablated)
        return jax.tree.map(lambda x: x.mean(axis=0), jax.vmap(head)(mixed))

    return jax.vmap(one)(masks)


@bounded_jit(static_argnames="static")
def _features(arrays: list[jax.Array], images: jax.Array, *, static: Static) -> jax.Array:
    """Returns the layer's activations `[M, h, w, D]`, of one image at a time."""
    features = static.predictor(arrays)
    return jax.lax.map(lambda x: activations_of(features, x).astype(jnp.float32), images)


@bounded_jit(static_argnames="spatial_shape")
def _map(activations: jax.Array, falls: jax.Array, *, spatial_shape: tuple[int, int]) -> jax.Array:
    """Returns the maps `[T, H, W]`."""
    return enlarged(rectified_sum(activations, falls), spatial_shape)
