"""Gradient maps: derivatives of the output with respect to the image's colours.

All are taken at the whole image, with nothing hidden, so the removal of a predictor plays no part:
they are the maps that studies of removals compare with, and order pixels by. Gradients are with
respect to display colours in [0, 1]; those with respect to normalised colours are the same times
the standard deviations of the preprocessing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.checks import check_choice, check_number, check_numbers, check_whole
from lmjax._utils.keys import check_key
from lmjax._utils.renamed import renamed
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.differentiation import Outputs, jacobian, make_problem
from lmjax.attribution.record import recorded
from lmjax.evaluation.evaluator import Evaluator, as_evaluator
from lmjax.evaluation.jobs import default_batch_size
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.masking.checks import check_colours

CHANNELS = ("max_abs", "sum")
# A gradient keeps the activations of all layers, an evaluation only those of one.
_GRADIENT_MEMORY = 4


@renamed(output="objective")
@over_images
@recorded
def gradient(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    channels: str = "max_abs",
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by the gradient of the output.

    Cost: one pass forward and back.

    Example:
      >>> found = lmjax.attribution.gradient(predictor, image)
      >>> found.scores.shape, found.num_variants
      ((16, 16), 1)

    Args:
      predictor: a differentiable predictor or an `lmjax.Evaluator` of one, whose batch size
        counts where several gradients are computed; they run on one device.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      target: class or classes to explain; None explains the predicted class.
      channels: how the channels of a pixel make its score: "max_abs", the largest of their absolute
        values, or "sum", with signs.
      objective: what to explain: "logit" of the target, as is usual for gradients (where a
        probability is near 1 its gradient vanishes), "probability" (softmax; sigmoid of a single
        logit), "margin", or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: options out of range, target not a class of the network, outputs or gradients
        that are not finite, and all that `lmjax.evaluate` raises.

    References:
      Simonyan, Vedaldi & Zisserman 2013, "Deep Inside Convolutional Networks" (arXiv 1312.6034),
      section 3.1. Captum's Saliency is the absolute value of each channel.
    """
    check_choice("channels", channels, CHANNELS)
    problem = make_problem(predictor, image, target=target, objective=objective)
    gradients = _gradient(problem.outputs, problem.image)
    return problem.attribution(_reduce(gradients, channels), num_variants=1)


@renamed(output="objective")
@over_images
@recorded
def gradient_times_input(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by the gradient times the colour, summed over channels.

    This is the first-order effect of turning a pixel black.

    Cost: one pass forward and back.

    Example:
      >>> found = lmjax.attribution.gradient_times_input(predictor, image)
      >>> found.scores.shape, found.num_variants
      ((16, 16), 1)

    Args:
      predictor, image, target, objective: as in `gradient`.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: as `gradient`.

    References:
      Shrikumar et al. 2016, "Not Just a Black Box" (arXiv 1605.01713). There, as in Captum's
      InputXGradient, the input is the network's; here it is the image in [0, 1].
    """
    problem = make_problem(predictor, image, target=target, objective=objective)
    products = np.asarray(_gradient(problem.outputs, problem.image)) * problem.image
    return problem.attribution(products.sum(axis=-1), num_variants=1)


@renamed(output="objective")
@over_images
@recorded
def integrated_gradients(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    baseline: ArrayLike = 0.0,
    target: int | Sequence[int] | None = None,
    steps: int = 50,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by gradients integrated along the path from a baseline to the image.

    Scores are summed over channels. They add up to the output for the image minus that for the
    baseline (completeness), as exactly as the steps resolve the path.

    Cost: `steps` passes forward and back, and one evaluation.

    Example:
      >>> found = lmjax.attribution.integrated_gradients(predictor, image)
      >>> found.scores.shape, found.num_variants
      ((16, 16), 51)

    Args:
      predictor, image, target, objective: as in `gradient`. Points of the path are computed in
        batches of the evaluator's size; None takes a quarter of the default, as gradients need more
        memory.
      baseline: start of the path, in [0, 1]: an image `[H, W, C]`, a colour of C floats, or a
        number; the default is black.
      steps: points of a Gauss-Legendre quadrature (Captum's default method), 1 or more.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: as `gradient`, or a baseline of another shape or range.

    References:
      Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks" (arXiv 1703.01365),
      equation 1; section 5 finds 20 to 300 steps enough, Captum takes 50.
    """
    steps = check_whole("steps", steps, least=1)
    problem = make_problem(predictor, image, target=target, objective=objective)
    path = problem.image - _check_baseline(baseline, np.shape(image))
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    (mean,) = moments(
        problem.outputs,
        problem.image,
        jax.tree_util.Partial(_point_of_path, path),
        (1 - nodes.astype(np.float32)) / 2,  # distances of the points from the image
        weights.astype(np.float32) / 2,
        np.float32(0),
        num_moments=1,
        batch_size=gradient_batch_size(predictor, steps, np.shape(image)),
    )
    scores = (path * np.asarray(mean)).sum(axis=-1)
    return problem.attribution(scores, num_variants=steps + 1)


@renamed(output="objective")
@over_images
@recorded
def smoothgrad(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    num_samples: int = 50,
    noise: float = 0.15,
    channels: str = "max_abs",
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by the gradient averaged over noisy copies of the image.

    Cost: `num_samples` passes forward and back, and one evaluation.

    Example:
      >>> found = lmjax.attribution.smoothgrad(predictor, image, key=key)
      >>> found.scores.shape, found.num_variants
      ((16, 16), 51)

    Args:
      predictor, image, target, channels, objective: as in `gradient`; channels are reduced after
        averaging. Copies are computed in batches as in `integrated_gradients`.
      key: random key; the same key gives the same scores.
      num_samples: noisy copies, 2 or more.
      noise: standard deviation of the Gaussian noise, as a share of the image's range of colours,
        above 0. Noisy colours are not clipped.

    Returns:
      `Attribution` with scores and standard errors `[H, W]` for one target, `[T, H, W]` for
      several. With "max_abs" the errors are those of the channel that is largest.

    Raises:
      ValueError: as `gradient`.

    References:
      Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise" (arXiv 1706.03825), section
      3: noise of 10% to 20%, 50 samples.
    """
    check_choice("channels", channels, CHANNELS)
    check_key(key)
    num_samples = check_whole("num_samples", num_samples, least=2)
    noise = check_number("noise", noise, above=0)
    problem = make_problem(predictor, image, target=target, objective=objective)
    centre = _gradient(problem.outputs, problem.image)
    sums = moments(
        problem.outputs,
        problem.image,
        jax.tree_util.Partial(_noisy_copy, np.float32(noise * np.ptp(image))),
        jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_samples)),
        jnp.full(num_samples, 1 / num_samples),
        centre,  # relative to it, small differences keep their digits
        num_moments=2,
        sum_channels=channels == "sum",
        batch_size=gradient_batch_size(predictor, num_samples, np.shape(image)),
    )
    mean, square = map(np.asarray, sums)
    errors = np.sqrt(np.maximum(square - mean**2, 0) / (num_samples - 1))
    centre = np.asarray(centre)
    mean = mean + (centre.sum(axis=-1, keepdims=True) if channels == "sum" else centre)
    largest = np.abs(mean).argmax(axis=-1, keepdims=True)
    return problem.attribution(
        _reduce(mean, channels),
        num_variants=num_samples + 1,
        errors=np.take_along_axis(errors, largest, axis=-1)[..., 0],
    )


def _reduce(gradients: ArrayLike, channels: str) -> np.ndarray:
    """Reduces gradients `[..., C]` to scores `[...]`."""
    gradients = np.asarray(gradients)
    return np.abs(gradients).max(axis=-1) if channels == "max_abs" else gradients.sum(axis=-1)


@bounded_jit()
def _gradient(outputs: Outputs, image: jax.Array) -> jax.Array:
    """Returns the targets' gradients `[T, H, W, C]`."""
    return jacobian(outputs.whole, image)


@bounded_jit(static_argnames=("num_moments", "sum_channels", "batch_size"))
def moments(
    outputs: Outputs,
    image: jax.Array,
    point: Callable[[jax.Array, Any], tuple[jax.Array, Any]],
    parameters: jax.Array,
    weights: jax.Array,
    centre: jax.Array,
    *,
    num_moments: int,
    batch_size: int,
    sum_channels: bool = False,
) -> list[jax.Array]:
    """Sums powers of gradients at points of image space, each times its weight.

    Args:
      outputs: to differentiate.
      image: `[H, W, C]`.
      point: (image, parameter) -> point, and what the gradients there are multiplied by: a number
        or `[1, H, W, C]`.
      parameters: `[N]`, of the points.
      weights: `[N]`.
      centre: `[T, H, W, C]` or a number, subtracted from the gradients.
      num_moments: number of powers, from the first.
      batch_size: points at a time.
      sum_channels: sum gradients over channels first.

    Returns:
      Each sum `[T, H, W, C]`, or `[T, H, W, 1]` of summed channels.
    """

    def powers(parameter: Any) -> list[jax.Array]:
        at, factor = point(image, parameter)
        rows = jacobian(outputs.whole, at) * factor - centre
        rows = rows.sum(axis=-1, keepdims=True) if sum_channels else rows
        return [rows ** (i + 1) for i in range(num_moments)]

    def add(totals: list[jax.Array], batch: tuple[jax.Array, jax.Array]):
        parameters, weights = batch
        summed = [
            jnp.tensordot(weights, x, 1, precision="highest") for x in jax.vmap(powers)(parameters)
        ]
        return [total + x for total, x in zip(totals, summed, strict=True)], None

    # The last batch is padded with points of weight 0.
    chosen = jnp.arange(-(-len(weights) // batch_size) * batch_size).reshape(-1, batch_size)
    real = chosen < len(weights)
    chosen = jnp.minimum(chosen, len(weights) - 1)
    shapes = jax.eval_shape(powers, parameters[0])
    zeros = [jnp.zeros(x.shape, x.dtype) for x in shapes]
    batches = parameters[chosen], jnp.where(real, weights[chosen], 0)
    return jax.lax.scan(add, zeros, batches)[0]


def _point_of_path(
    path: jax.Array, image: jax.Array, distance: jax.Array
) -> tuple[jax.Array, float]:
    """Returns the point of a straight path that ends at the image."""
    return image - distance * path, 1.0


def _noisy_copy(std: jax.Array, image: jax.Array, key: jax.Array) -> tuple[jax.Array, float]:
    """Returns the image with Gaussian noise."""
    return image + std * jax.random.normal(key, image.shape, np.float32), 1.0


def gradient_batch_size(
    predictor: Callable | Evaluator, number: int, shape: tuple[int, int, int]
) -> int:
    """Returns how many gradients of `number` are computed at a time."""
    batch_size = as_evaluator(predictor).batch_size
    if batch_size is None:
        batch_size = max(default_batch_size(shape[:2]) // _GRADIENT_MEMORY, 1)
    return min(batch_size, number)


def _check_baseline(baseline: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a baseline as an image of that shape, or raises ValueError."""
    baseline = check_numbers("baseline", baseline).astype(np.float32)
    if baseline.shape not in ((), shape[-1:], shape):
        raise ValueError(
            f"baseline must be a number, a colour of {shape[-1]} floats or an image {shape}; got "
            f"shape {baseline.shape}"
        )
    check_colours(baseline, "baseline")
    return np.broadcast_to(baseline, shape)
