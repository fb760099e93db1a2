"""Optimised masks: of all masks, the one that changes the output most for its size.

They are found by following gradients with respect to the mask, from hidden over half hidden to
visible. So the predictor must give half hidden pixels a meaning, as `lmjax.Replace("blur")` does:
there they are half blurred.

Under a removal that takes binary masks (`lmjax.LayerMasking`) there is nothing to follow: a
position is known or it is not, and the output has no derivative in between. Such predictors are
refused. What does have a meaning there is the question whether the region that was found under
`Replace` is what the network needs without anything painted. Make the map binary, and ask:

    found = extremal_perturbation(Predictor(classifier, Replace("blur")), image)
    mask = found.heatmap >= np.quantile(found.heatmap, 0.9)  # the upper tenth of the pixels
    layer_masking = Predictor(classifier, LayerMasking())
    lmjax.evaluate(layer_masking, image, np.stack([mask, ~mask]))  # it alone, and all but it

or hand `found.heatmap` to `lmjax.metrics.deletion` under that predictor. The mask remains one that
was best for another question: nothing says that no smaller one does as well under layer masking.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import Answers, answer, as_output
from lmjax.evaluation.evaluator import split
from lmjax.masking.checks import check_image
from lmjax.masks.families import Masks
from lmjax.removals.baselines import gaussian_blur

# Meaningful perturbation begins with a disc that takes this share of the output away.
_SUPPRESSED = 0.99
_DISCS = 20
# Extremal perturbation, as in TorchRay: weight of the area's term, and its growth at each step.
_AREA_WEIGHT = 300
_AREA_GROWTH = 1.0035
_MOMENTUM = 0.9
_EQUAL = 1e-3  # values of a mask that differ by less count as equal
# Lengths in pixels, for images of `_SIDE` pixels: smoothing of a meaningful perturbation; from node
# to node, and radius of their discs, of an extremal one.
_SIDE, _SMOOTH, _STEP, _SIGMA = 224, 5, 7, 21
_COLDNESS = 20  # of the smooth maximum: 1 / temperature


def meaningful_perturbation(
    predictor: Callable,
    image,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    iterations: int = 300,
    grid: int | tuple[int, int] = 28,
    smooth: float | None = None,
    l1: float = 1e-4,
    tv: float = 1e-2,
    beta: float = 3.0,
    learning_rate: float = 0.1,
    jitter: int = 4,
    output: str = "probability",
) -> Attribution:
    """Scores of pixels: how far a small, smooth mask hides them so that the output falls.

    The deletion game: Adam minimises output + `l1` sum(1 - m) + `tv` sum(|differences of
    neighbours in m|^beta) over coarse masks m in [0, 1], which are enlarged bilinearly and smoothed
    to hide parts of the image. It starts from the smallest disc about the centre that takes 99% of
    the output away, among 20. The scores are 1 - m: 1 where the image is hidden, 0 where it shows.

    Args:
      predictor: (image, masks) -> logits, differentiable in soft masks: made by `lmjax.Predictor`
        with a `lmjax.Replace`. The paper's is `Replace("blur")`.
      image: `[H, W, C]` floats in [0, 1].
      key: random key; the same key gives the same scores.
      target: class or classes to explain, each with a mask of its own; None explains the predicted
        class.
      iterations: steps of Adam, 1 or more.
      grid: cells of the coarse mask along each side, or (h, w).
      smooth: standard deviation in pixels of the Gaussian over the enlarged mask, 0 for none. None
        takes 5 for an image of 224 pixels (the longer side), and for others in proportion.
      l1: weight of the hidden cells.
      tv: weight of the differences.
      beta: their power, 1 or more.
      learning_rate: of Adam, above 0.
      jitter: at each step the image is shifted under the mask, to one of so many rows and as many
        columns about its place (border pixels are repeated). 1 does not shift.
      output: what to lower: "probability" (softmax over all classes) or "logit". The weights are
        made for probabilities.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: options out of range, target not a class of the network, a predictor that takes no
        soft masks or whose output does not depend on them, and all that `lmjax.evaluate` raises.

    References:
      Fong & Vedaldi 2017, "Interpretable Explanations of Black Boxes by Meaningful Perturbation"
      (arXiv 1704.03296), equation 4; the defaults, and sums over the coarse mask, are those of the
      authors' code. (A reimplementation in PyTorch in wide use takes means, with l1 0.01 and tv
      0.2: on 28 x 28 cells about 1e-5 and 3e-4 here.)
    """
    _check_at_least(1, iterations=iterations, jitter=jitter)
    check_image(image)
    smooth = _in_proportion(_SMOOTH, image) if smooth is None else smooth
    _check_range(0, smooth=smooth, l1=l1, tv=tv)
    _check_range(1, beta=beta)
    _check_above_0(learning_rate=learning_rate)
    answers, arguments, static = _start(predictor, image, target, output)
    grid = _check_grid(grid, np.shape(image)[:2])
    settings = _Meaningful(
        iterations, grid, smooth, l1, tv, beta, learning_rate, jitter, output=output
    )
    maps = _meaningful(*arguments, key, static=static, settings=settings)
    evaluated = len(arguments[-1]) * (iterations + _DISCS) + 1
    return _attribution(*maps, answers, num_variants=evaluated)


def extremal_perturbation(
    predictor: Callable,
    image,
    *,
    target: int | Sequence[int] | None = None,
    areas: Sequence[float] = (0.025, 0.05, 0.1, 0.2),
    iterations: int = 800,
    step: int | None = None,
    sigma: float | None = None,
    learning_rate: float = 0.01,
    mirror: bool = False,
    output: str = "logit",
) -> Attribution:
    """Scores of pixels: how many of the best masks of several areas show them.

    The preservation game: for each area, a mask that shows this share of the image and makes the
    output as high as possible. Masks are smooth by construction: every `step` pixels a node holds a
    number in [0, 1], and a pixel has the smooth maximum, over the nodes around, of the node's
    number times exp(-2 max(distance / sigma - 1/2, 0)^2). The area is kept by a penalty that grows:
    the mean square between the mask's values in order and as many zeros and then ones as the area
    says. The scores are the sum of the masks; with one area they are its mask.

    Deterministic. Memory is that of a gradient for as many variants as there are areas, and of
    about (2 sigma / step + 3)^2 numbers for each of their pixels.

    Args:
      predictor: (image, masks) -> logits, differentiable in soft masks: made by `lmjax.Predictor`
        with a `lmjax.Replace`. Nearest to the paper is `Replace("blur", sigma=20)`; there a half
        hidden pixel is less blurred, here it is a blend.
      image: `[H, W, C]` floats in [0, 1].
      target: class or classes to explain, each with masks of its own; None explains the predicted
        class.
      areas: shares of the image, above 0 and below 1.
      iterations: steps of gradient descent with momentum 0.9, 1 or more.
      step: pixels from node to node. None takes 7 for an image of 224 pixels (the longer side), and
        for others in proportion.
      sigma: radius of a node's smooth disc, in pixels, above 0. None takes 21 for 224 pixels.
      learning_rate: above 0.
      mirror: show the network the picture's mirror image at every other step, which finds masks
        that work for both, as TorchRay does. Not for digits and writing.
      output: what to raise: "logit" or "probability" (softmax over all classes).

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: as `meaningful_perturbation`.

    References:
      Fong, Patrick & Vedaldi 2019, "Understanding Deep Networks via Extremal Perturbations and
      Smooth Masks" (arXiv 1910.08485), section 3; the numbers, and the sum over areas, are
      TorchRay's. There areas are of the image with a margin of sigma, no nodes lie beyond the
      border, equal values are in the order of a sort, which here would favour corners, and lengths
      are for 224 pixels, whatever the size.
    """
    check_image(image)
    step = max(round(_in_proportion(_STEP, image)), 1) if step is None else step
    sigma = _in_proportion(_SIGMA, image) if sigma is None else sigma
    _check_at_least(1, iterations=iterations, step=step)
    _check_above_0(sigma=sigma, learning_rate=learning_rate)
    areas = tuple(map(float, areas))
    if not areas or not all(0 < area < 1 for area in areas):
        raise ValueError(f"areas must be one or more shares between 0 and 1, got {areas}")
    answers, arguments, static = _start(predictor, image, target, output)
    settings = _Extremal(areas, iterations, step, sigma, learning_rate, mirror, output)
    maps = _extremal(*arguments, static=static, settings=settings)
    evaluated = len(arguments[-1]) * len(areas) * iterations + 1
    return _attribution(*maps, answers, num_variants=evaluated)


def _in_proportion(pixels: float, image) -> float:
    """A length that is so many pixels in an image of `_SIDE` pixels."""
    return pixels * max(np.shape(image)[:2]) / _SIDE


def _start(predictor: Callable, image, target, output: str) -> tuple[Answers, tuple, NamedTuple]:
    """Answers for the whole image; arguments and static part for a compiled function."""
    if not getattr(predictor, "soft_masks", True):
        raise ValueError(
            "predictor takes binary masks only, and a mask cannot be optimised where nothing lies "
            "between hidden and visible; use lmjax.Predictor(classifier, lmjax.Replace('blur')), "
            "then make the map binary (lmjax.attribution.optimised_mask says how)"
        )
    whole = Masks(np.ones((1, *np.shape(image)[:2]), bool))
    answers = answer(predictor, image, whole, target=target, output=output, progress=False)
    arrays, static = split(predictor)
    return answers, (arrays, np.float32(image), np.atleast_1d(answers.target)), static


def _attribution(scores, depends, answers: Answers, *, num_variants: int) -> Attribution:
    """From scores `[T, H, W]`, and whether the output `[T]` ever depended on the mask."""
    scores = np.asarray(scores)
    if not np.isfinite(scores).all():
        raise ValueError(
            "predictor has gradients that are NaN or infinite; try another baseline, or check the "
            "network's functions where they have no derivative"
        )
    if not np.all(depends):
        raise ValueError(
            "predictor has no gradient with respect to its masks: it makes them binary, or its "
            "output does not depend on the image; blend with lmjax.Replace(...)"
        )
    shape = (*answers.whole.shape, *scores.shape[1:])
    return Attribution(scores=scores.reshape(shape), num_variants=num_variants, **answers.about())


class _Meaningful(NamedTuple):
    iterations: int
    grid: tuple[int, int]
    smooth: float
    l1: float
    tv: float
    beta: float
    learning_rate: float
    jitter: int
    output: str


@functools.partial(jax.jit, static_argnames=("static", "settings"))
def _meaningful(arrays, image, targets, key, *, static, settings):
    """Scores `[T, H, W]`, and whether the output depended on the mask `[T]`."""
    predictor, shape = static.predictor(arrays), image.shape[:2]
    enlarge = functools.partial(_enlarge, shape=shape, smooth=settings.smooth)
    before = settings.jitter // 2
    margin = (before, settings.jitter - 1 - before)
    padded = jnp.pad(image, (margin, margin, (0, 0)), mode="edge")

    def one(target):
        def score(mask, image):
            logits = predictor(image, enlarge(mask)[None])[0]
            return as_output(logits.astype(jnp.float32), settings.output)[target]

        def penalty(mask):
            return settings.l1 * (1 - mask).sum() + settings.tv * _variation(mask, settings.beta)

        def slope(mask, key):
            offset = jax.random.randint(key, (2,), 0, settings.jitter)
            shifted = jax.lax.dynamic_slice(padded, (*offset, 0), image.shape)
            asked = jax.grad(score)(mask, shifted)
            return asked + jax.grad(penalty)(mask), (asked != 0).any()

        start = _disc(lambda mask: score(mask, image), settings.grid)
        keys = jax.random.split(key, settings.iterations)
        mask, depends = _descend(start, slope, keys, optax.adam(settings.learning_rate))
        return jnp.clip(1 - enlarge(mask), 0, 1), depends  # rounding

    return jax.lax.map(one, targets)


def _enlarge(mask: jax.Array, *, shape: tuple[int, int], smooth: float) -> jax.Array:
    """A coarse mask `[h, w]` in the size of the image."""
    mask = jax.image.resize(mask, shape, "bilinear")
    if smooth > 0:
        mask = gaussian_blur(mask[..., None], sigma=smooth)[..., 0]
    return mask


def _variation(mask: jax.Array, beta: float) -> jax.Array:
    return sum((jnp.abs(jnp.diff(mask, axis=axis)) ** beta).sum() for axis in (0, 1))


def _disc(score: Callable, grid: tuple[int, int]) -> jax.Array:
    """The mask `[h, w]` that hides the smallest disc that suffices; everything where none does."""
    rows, columns = (np.abs((np.arange(n) + 0.5) / n - 0.5) for n in grid)
    distance = np.hypot(rows[:, None], columns[None])
    radii = np.linspace(0, distance.max(), _DISCS + 1)[1:]
    masks = jnp.asarray(distance[None] > radii[:, None, None], jnp.float32)
    scores = jax.lax.map(score, masks)
    whole, hidden = score(jnp.ones(grid)), scores[-1]
    enough = (scores <= whole - _SUPPRESSED * (whole - hidden)).at[-1].set(True)
    return masks[jnp.argmax(enough)]


class _Extremal(NamedTuple):
    areas: tuple[float, ...]
    iterations: int
    step: int
    sigma: float
    learning_rate: float
    mirror: bool
    output: str


@functools.partial(jax.jit, static_argnames=("static", "settings"))
def _extremal(arrays, image, targets, *, static, settings):
    """Scores `[T, H, W]`, and whether the output depended on the masks `[T]`."""
    predictor, shape = static.predictor(arrays), image.shape[:2]
    masks_of = functools.partial(
        _smooth_masks, shape=shape, step=settings.step, sigma=settings.sigma
    )
    areas = jnp.asarray(settings.areas)
    nodes = jnp.ones((len(areas), *(-(-n // settings.step) for n in shape)))
    # Momentum dampened by as much, so that steps are means of slopes and not sums.
    optimiser = optax.sgd(settings.learning_rate * (1 - _MOMENTUM), _MOMENTUM)

    def one(target):
        def loss(masks, t):
            mirrored = settings.mirror & (t % 2 == 0)
            picture = jnp.where(mirrored, image[:, ::-1], image)
            masks = jnp.where(mirrored, masks[:, :, ::-1], masks)
            logits = predictor(picture, masks).astype(jnp.float32)
            return -as_output(logits, settings.output)[:, target].sum()

        def penalty(masks, t):
            values = masks.reshape(len(masks), -1)
            wanted = jax.vmap(_upper_share)(jax.lax.stop_gradient(values), areas)
            weight = _AREA_WEIGHT * _AREA_GROWTH**t
            return weight * ((values - wanted) ** 2).mean(axis=1).sum()

        def slope(nodes, t):
            masks, pull_back = jax.vjp(masks_of, nodes)
            asked = jax.grad(loss)(masks, t)
            return pull_back(asked + jax.grad(penalty)(masks, t))[0], (asked != 0).any()

        numbers = jnp.arange(settings.iterations)
        found, depends = _descend(nodes, slope, numbers, optimiser)
        return masks_of(found).sum(axis=0), depends

    return jax.lax.map(one, targets)


def _upper_share(values: jax.Array, area: jax.Array) -> jax.Array:
    """`[n]`: 1 for the values in the upper share `area`, 0 for the others.

    Equal values share what falls to them: at the start all are, and no order of a sort may decide.
    """
    in_order = jnp.sort(values)
    below = jnp.searchsorted(in_order, values - _EQUAL, side="left")
    not_above = jnp.searchsorted(in_order, values + _EQUAL, side="right")
    hidden = jnp.round((1 - area) * len(values))
    return jnp.clip((not_above - hidden) / (not_above - below), 0, 1)


def _smooth_masks(nodes: jax.Array, *, shape: tuple[int, int], step: int, sigma: float):
    """Masks `[A, H, W]` of numbers at nodes `[A, h, w]`, which are in the middle of their cells."""
    number, height, width = nodes.shape
    reach = 1 + math.ceil(sigma / step)  # in cells
    offset = np.arange(step)[:, None] - (step - 1) / 2 - step * np.arange(-reach, reach + 1)[None]
    distance = np.hypot(offset[:, None, :, None], offset[None, :, None, :]) / sigma
    weights = np.exp(-2 * np.maximum(distance - 0.5, 0) ** 2).reshape(1, 1, step, 1, step, -1)
    size = 2 * reach + 1
    # The outermost nodes go on beyond the border: or corners, with few nodes around, would differ.
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


def _descend(start, slope: Callable, steps, optimiser):
    """Gradient descent in [0, 1]: the result, and whether it ever depended on the network.

    Args:
      start: masks to begin with.
      slope: (masks, step) -> gradient, and whether the network has a part in it.
      steps: `[N, ...]`, what `slope` takes at each step.
      optimiser: of optax.
    """

    def step(carry, each):
        masks, state, depends = carry
        gradient, depends_here = slope(masks, each)
        updates, state = optimiser.update(gradient, state, masks)
        masks = jnp.clip(optax.apply_updates(masks, updates), 0, 1)
        return (masks, state, depends | depends_here), None

    carry = start, optimiser.init(start), jnp.array(False)
    (masks, _, depends), _ = jax.lax.scan(step, carry, steps)
    return masks, depends


def _check_grid(grid, shape: tuple[int, int]) -> tuple[int, int]:
    grid = (grid, grid) if np.ndim(grid) == 0 else tuple(grid)
    if len(grid) != 2 or any(n != int(n) or not 2 <= n <= m for n, m in zip(grid, shape)):
        raise ValueError(
            f"grid must have from 2 x 2 to {shape[0]} x {shape[1]} cells, one for each pixel; got "
            f"{' x '.join(map(str, grid))}"
        )
    return tuple(map(int, grid))


def _check_at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or number != int(number) or number < least:
            raise ValueError(f"{name} must be a whole number, {least} or more; got {number!r}")


def _check_range(least: float, **numbers: float) -> None:
    for name, number in numbers.items():
        if not (np.isfinite(number) and number >= least):
            raise ValueError(f"{name} must be {least} or more and finite, got {number!r}")


def _check_above_0(**numbers: float) -> None:
    for name, number in numbers.items():
        if not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name} must be above 0 and finite, got {number!r}")
