"""Gradient maps: how the output follows small changes of the image's colours.

All are taken at the whole image, with nothing hidden, so the removal of a predictor plays no part:
they are the maps that studies of removals compare with, and order pixels by. Gradients are with
respect to display colours in [0, 1]; those with respect to normalised ones are the same times the
standard deviations of the preprocessing.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import Answers, answer, as_output
from lmjax.evaluation.evaluator import default_batch_size, split
from lmjax.masking.checks import check_colours, check_image
from lmjax.masks.families import Masks

CHANNELS = ("max_abs", "sum")
# A gradient keeps the activations of all layers, an answer only those of one.
_LARGER_THAN_AN_ANSWER = 4


def gradient(
    predictor: Callable,
    image,
    *,
    target: int | Sequence[int] | None = None,
    channels: str = "max_abs",
    output: str = "logit",
) -> Attribution:
    """Scores of pixels: the gradient of the output.

    Args:
      predictor: (image, masks) -> logits, differentiable, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      target: class or classes to explain; None explains the predicted class.
      channels: a pixel's score of those of its channels: "max_abs", the largest of their absolute
        values, or "sum", with signs.
      output: what to explain: "logit", as is usual for gradients (where a probability is near 1 its
        gradient vanishes), or "probability" (softmax over all classes).

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: options out of range, target not a class of the network, outputs or gradients
        that are not finite, and all that `lmjax.evaluate` raises.

    References:
      Simonyan, Vedaldi & Zisserman 2013, "Deep Inside Convolutional Networks" (arXiv 1312.6034),
      section 3.1. Captum's Saliency is the absolute value of each channel.
    """
    _check_channels(channels)
    start = _start(predictor, image, target, output)
    gradients = _gradient(*start.arguments, **start.static)
    return _attribution(_reduce(gradients, channels), start.answers, num_variants=1)


def gradient_times_input(
    predictor: Callable,
    image,
    *,
    target: int | Sequence[int] | None = None,
    output: str = "logit",
) -> Attribution:
    """Scores of pixels: the gradient times the colour, summed over channels.

    The first-order effect of turning a pixel black.

    Args:
      predictor, image, target, output: as in `gradient`.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: as `gradient`.

    References:
      Shrikumar et al. 2016, "Not Just a Black Box" (arXiv 1605.01713). There, as in Captum's
      InputXGradient, the input is what the network is given; here it is the image in [0, 1].
    """
    start = _start(predictor, image, target, output)
    products = np.asarray(_gradient(*start.arguments, **start.static)) * np.float32(image)
    return _attribution(products.sum(axis=-1), start.answers, num_variants=1)


def integrated_gradients(
    predictor: Callable,
    image,
    *,
    baseline=0.0,
    target: int | Sequence[int] | None = None,
    steps: int = 50,
    output: str = "logit",
    batch_size: int | None = None,
) -> Attribution:
    """Scores of pixels: gradients along the way from a baseline to the image, times that way.

    Summed over channels. All scores add up to the output for the image minus that for the baseline
    (completeness), as exactly as the steps resolve the way.

    Args:
      predictor, image, target, output: as in `gradient`.
      baseline: where the way begins, in [0, 1]: an image `[H, W, C]`, a colour of C floats, or a
        number; the default is black.
      steps: points of a Gauss-Legendre quadrature (Captum's default method), 1 or more.
      batch_size: points computed together, a matter of memory. None takes a quarter of what
        `lmjax.evaluate` does.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: as `gradient`, or a baseline of another shape or range.

    References:
      Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks" (arXiv 1703.01365),
      equation 1; section 5 finds 20 to 300 steps enough, Captum takes 50.
    """
    _check_number("steps", steps, 1)
    start = _start(predictor, image, target, output)
    way = np.float32(image) - _check_baseline(baseline, np.shape(image))
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    (mean,) = _weighted_sum(
        *start.arguments,
        np.float32(0),
        way,
        (1 - nodes.astype(np.float32)) / 2,  # how far from the image the points are
        weights.astype(np.float32) / 2,
        point=_on_the_way,
        moments=1,
        batch_size=_batch_size(batch_size, steps, np.shape(image)),
        **start.static,
    )
    return _attribution(
        (way * np.asarray(mean)).sum(axis=-1), start.answers, num_variants=steps + 1
    )


def smoothgrad(
    predictor: Callable,
    image,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    num_samples: int = 50,
    noise: float = 0.15,
    channels: str = "max_abs",
    output: str = "logit",
    batch_size: int | None = None,
) -> Attribution:
    """Scores of pixels: the gradient, averaged over noisy copies of the image.

    Args:
      predictor, image, target, channels, output: as in `gradient`; channels are put together after
        averaging.
      key: random key; the same key gives the same scores.
      num_samples: noisy copies, 2 or more.
      noise: standard deviation of the Gaussian noise, as a share of the image's range of colours,
        above 0. Noisy colours are not clipped.
      batch_size: as in `integrated_gradients`.

    Returns:
      `Attribution` with scores and standard errors `[H, W]` for one target, `[T, H, W]` for
      several. With "max_abs" the errors are those of the channel that is largest.

    Raises:
      ValueError: as `gradient`.

    References:
      Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise" (arXiv 1706.03825), section
      3: noise of 10% to 20%, 50 samples.
    """
    _check_channels(channels)
    _check_number("num_samples", num_samples, 2)
    if not (np.isfinite(noise) and noise > 0):
        raise ValueError(f"noise must be above 0 and finite, got {noise!r}")
    start = _start(predictor, image, target, output)
    centre = _gradient(*start.arguments, **start.static)
    moments = _weighted_sum(
        *start.arguments,
        centre,  # counted from here, small differences keep their digits
        np.float32(noise * np.ptp(image)),
        jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_samples)),
        jnp.full(num_samples, 1 / num_samples),
        point=_noisy,
        moments=2,
        sum_channels=channels == "sum",
        batch_size=_batch_size(batch_size, num_samples, np.shape(image)),
        **start.static,
    )
    mean, square = map(np.asarray, moments)
    errors = np.sqrt(np.maximum(square - mean**2, 0) / (num_samples - 1))
    centre = np.asarray(centre)
    mean = mean + (centre.sum(axis=-1, keepdims=True) if channels == "sum" else centre)
    largest = np.abs(mean).argmax(axis=-1, keepdims=True)
    return _attribution(
        _reduce(mean, channels),
        start.answers,
        num_variants=num_samples + 1,
        errors=np.take_along_axis(errors, largest, axis=-1)[..., 0],
    )


def gradcam(
    features: Callable,
    head: Callable,
    image,
    *,
    target: int | Sequence[int] | None = None,
    output: str = "logit",
) -> Attribution:
    """Scores of pixels: Grad-CAM, a layer's channels weighted by their mean gradients.

    The network comes in two functions, cut behind the layer, usually the last convolutional one:
    `gradcam(*classifier.cut(), image)` for a classifier of `lmjax.models`. The map is rectified and
    then resized bilinearly to the image.

    Args:
      features: image `[H, W, C]` in [0, 1] -> the layer's activations `[h, w, D]`. Arrays of a
        pytree (such as `jax.tree_util.Partial`) are passed as arguments of the compiled function.
      head: activations `[h, w, D]` -> logits `[K]`.
      image, target, output: as in `gradient`.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several; none below 0.

    Raises:
      ValueError: as `gradient`, or features or logits of another shape.

    References:
      Selvaraju et al. 2017, "Grad-CAM" (arXiv 1610.02391), equations 1 and 2. Captum's LayerGradCam
      rectifies with `relu_attributions=True` only.
    """
    for name, function in (("features", features), ("head", head)):
        if not callable(function):
            raise ValueError(f"{name} must be a function, got {type(function).__name__}")
    start = _start(jax.tree_util.Partial(_in_two, features, head), image, target, output)
    maps = _gradcam(*start.arguments, **start.static)
    return _attribution(np.asarray(maps), start.answers, num_variants=1)


class _Start(NamedTuple):
    """What all begin with.

    Attributes:
      answers: for the whole image.
      arguments: of compiled functions: the predictor's arrays, the image, the targets `[T]`.
      static: their static arguments.
    """

    answers: Answers
    arguments: tuple
    static: dict


def _start(predictor: Callable, image, target, output: str) -> _Start:
    check_image(image)
    whole = Masks(np.ones((1, *np.shape(image)[:2]), bool))
    answers = answer(predictor, image, whole, target=target, output=output, progress=False)
    arrays, static = split(predictor)
    arguments = arrays, np.float32(image), np.atleast_1d(answers.target)
    return _Start(answers, arguments, {"static": static, "output": output})


def _attribution(scores, answers: Answers, *, num_variants: int, errors=None) -> Attribution:
    """From scores and errors `[T, H, W]`."""
    if not np.isfinite(scores).all():
        raise ValueError(
            "predictor has gradients that are NaN or infinite at this image; check its functions "
            "where they have no derivative, such as sqrt at 0"
        )
    shape = (*answers.whole.shape, *scores.shape[1:])
    return Attribution(
        scores=np.float32(scores).reshape(shape),
        standard_error=None if errors is None else np.float32(errors).reshape(shape),
        num_variants=num_variants,
        **answers.about(),
    )


def _reduce(gradients, channels: str) -> np.ndarray:
    """`[..., C]` -> `[...]`."""
    gradients = np.asarray(gradients)
    return np.abs(gradients).max(axis=-1) if channels == "max_abs" else gradients.sum(axis=-1)


def _outputs(predictor: Callable, image: jax.Array, targets: jax.Array, output: str) -> jax.Array:
    """`[T]`, for the whole image."""
    # Not a constant to the compiler, which would work out for seconds what follows from it.
    whole = jax.lax.optimization_barrier(jnp.ones((1, *image.shape[:2]), bool))
    logits = predictor(image, whole)[0]
    return as_output(logits.astype(jnp.float32), output)[targets]


def _rows(function: Callable, x: jax.Array) -> jax.Array:
    """The Jacobian `[T, ...]` of `function` (x -> `[T]`), a row at a time."""
    values, pull_back = jax.vjp(function, x)
    return jax.lax.map(lambda row: pull_back(row)[0], jnp.eye(len(values), dtype=values.dtype))


@functools.partial(jax.jit, static_argnames=("static", "output"))
def _gradient(arrays, image, targets, *, static, output):
    """`[T, H, W, C]`."""
    predictor = static.predictor(arrays)
    return _rows(lambda x: _outputs(predictor, x, targets, output), image)


@functools.partial(
    jax.jit,
    static_argnames=(*("static", "output", "point", "moments", "sum_channels", "batch_size"),),
)
def _weighted_sum(
    arrays,
    image,
    targets,
    centre,
    scale,
    numbers,
    weights,
    *,
    static,
    output,
    point,
    moments,
    batch_size,
    sum_channels=False,
):
    """Sums over images of their weight times a power of (their gradient - `centre`).

    Args:
      centre: `[T, H, W, C]`, or a number.
      scale: what `point` takes besides.
      numbers: `[N]`, of the images.
      weights: `[N]`.
      point: (image, scale, number) -> an image near `image`.
      moments: how many powers, from the first.
      sum_channels: sum gradients over channels first.
      batch_size: images at a time.

    Returns:
      Each `[T, H, W, C]`, or `[T, H, W, 1]` of summed channels.
    """
    predictor = static.predictor(arrays)

    def powers(number):
        x = point(image, scale, number)
        rows = _rows(lambda x: _outputs(predictor, x, targets, output), x) - centre
        rows = rows.sum(axis=-1, keepdims=True) if sum_channels else rows
        return [rows ** (i + 1) for i in range(moments)]

    def add(totals, batch):
        numbers, weights = batch
        summed = [
            jnp.tensordot(weights, x, 1, precision="highest") for x in jax.vmap(powers)(numbers)
        ]
        return [total + x for total, x in zip(totals, summed, strict=True)], None

    # The last batch is filled with images that count nothing.
    chosen = jnp.arange(-(-len(weights) // batch_size) * batch_size).reshape(-1, batch_size)
    real = chosen < len(weights)
    chosen = jnp.minimum(chosen, len(weights) - 1)
    shapes = jax.eval_shape(powers, numbers[0])
    zeros = [jnp.zeros(x.shape, x.dtype) for x in shapes]
    batches = numbers[chosen], jnp.where(real, weights[chosen], 0)
    return jax.lax.scan(add, zeros, batches)[0]


def _on_the_way(image, way, share):
    return image - share * way


def _noisy(image, std, key):
    return image + std * jax.random.normal(key, image.shape)


def _in_two(features: Callable, head: Callable, image, masks):
    """A predictor for whole images, of the two functions of `gradcam`."""
    logits = head(_activations(features, image))
    if logits.ndim != 1:
        raise ValueError(f"head must return logits [K], got shape {logits.shape}")
    return jnp.broadcast_to(logits[None], (len(masks), len(logits)))


def _activations(features: Callable, image) -> jax.Array:
    activations = features(image)
    if activations.ndim != 3:
        raise ValueError(
            f"features must return activations [h, w, D], got shape {activations.shape}; take a "
            "layer before the network pools over positions, and drop the axis of a batch"
        )
    return activations


@functools.partial(jax.jit, static_argnames=("static", "output"))
def _gradcam(arrays, image, targets, *, static, output):
    """`[T, H, W]`."""
    features, head = static.predictor(arrays).args
    activations = _activations(features, image)
    gradients = _rows(lambda x: as_output(head(x), output)[targets], activations)
    weights = gradients.astype(jnp.float32).mean(axis=(1, 2))
    maps = jnp.einsum("hwd,td->thw", activations.astype(jnp.float32), weights, precision="highest")
    shape = (len(targets), *image.shape[:2])
    return jax.image.resize(jax.nn.relu(maps), shape, "bilinear")


def _batch_size(batch_size: int | None, number: int, shape: tuple[int, ...]) -> int:
    if batch_size is None:
        batch_size = max(default_batch_size(shape[:2]) // _LARGER_THAN_AN_ANSWER, 1)
    _check_number("batch_size", batch_size, 1)
    return min(batch_size, number)


def _check_channels(channels: str) -> None:
    if channels not in CHANNELS:
        raise ValueError(f"channels must be one of {', '.join(CHANNELS)}; got {channels!r}")


def _check_number(name: str, number: int, least: int) -> None:
    if isinstance(number, bool) or number != int(number) or number < least:
        raise ValueError(f"{name} must be a whole number, {least} or more; got {number!r}")


def _check_baseline(baseline, shape: tuple[int, ...]) -> np.ndarray:
    baseline = np.asarray(baseline, np.float32)
    if baseline.shape not in ((), shape[-1:], shape):
        raise ValueError(
            f"baseline must be a number, a colour of {shape[-1]} floats or an image {shape}; got "
            f"shape {baseline.shape}"
        )
    check_colours(baseline, "baseline")
    return np.broadcast_to(baseline, shape)
