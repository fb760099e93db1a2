"""HSIC attribution: how strongly the output depends on whether a part of the image is visible.

Novello, Fel & Vigouroux 2022, "Making Sense of Dependence: Efficient Black-box Explanations Using
Dependence Measure" (arXiv 2206.06219).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.checks import check_number
from lmjax._utils.renamed import renamed
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.budget import Cost
from lmjax.attribution.game import Game
from lmjax.attribution.record import recorded
from lmjax.attribution.sampling import Estimate, Samples, Sampling, run
from lmjax.attribution.stopping import Until
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masking.checks import check_image
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.samplers import half_visible_keep
from lmjax.masks.segments import even_grid

_FIRST_CHECK = 100
_COST = Cost()
# Samples of one Latin hypercube, half of which show a segment. Further samples come from further
# hypercubes, so that a run can be continued.
_HYPERCUBE = 50


@renamed(output="objective")
@over_images
@recorded
def hsic(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    key: jax.Array,
    segments: ArrayLike | None = None,
    target: int | Sequence[int] | None = None,
    num_samples: int | None = None,
    evaluations: int | None = None,
    grid: int | tuple[int, int] = 8,
    kernel_width: float | None = None,
    until: Until | None = None,
    previous: Attribution | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Scores segments by the Hilbert-Schmidt independence criterion of visibility and output.

    Masks are binary, under every removal. A score is 0 for a segment on which the output does not
    depend (up to sampling error, which is upwards), and has no sign otherwise: evidence against the
    target scores as high as evidence for it.

    Cost: `num_samples` + 1 evaluations.

    Example:
      >>> found = lmjax.attribution.hsic(
      ...     predictor, image, key=key, segments=segments, num_samples=50
      ... )
      >>> found.scores.shape, found.num_variants
      ((4,), 51)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      key: random key; the same key gives the same scores.
      segments: `[H, W]` ints, labels 0..S-1, none missing. None takes an even grid.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      num_samples: variants evaluated besides the whole image, 2 or more, including those of
        `previous`. Half of every 50 show a segment (Latin hypercube sampling; the paper has one
        hypercube of all samples, which could not be continued). None takes 500.
      evaluations: upper limit on evaluations, the whole image included; give it instead of
        `num_samples` to compare methods at equal cost.
      grid: cells of the even grid along each side, or (h, w).
      kernel_width: of the output's kernel exp(-(y - y')^2 / (2 width^2)), above 0. None takes the
        median output, as the authors' code and Xplique do, which suits probabilities. For logits a
        typical difference of outputs is a better width.
      until: (scores, standard errors) -> whether to stop, for example `stable_ranking(5)`; asked
        from 100 variants on. Reliable for influential segments; the errors of scores near 0 are too
        small to rank them. None takes all.
      previous: attribution of the same call with fewer samples, to continue; the kernel's width may
        differ.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several, and standard errors
      (to first order: near a score of 0 they are no larger than the score).

    Raises:
      ValueError: options out of range, more samples than memory allows, `previous` that does not
        fit, target not a class of the network, non-finite outputs, and all that `lmjax.evaluate`
        raises.

    References:
      Novello et al. 2022, section 3; grid and number of samples are Xplique's defaults. The
      estimator is that of Gretton et al. 2005, section 3.1, divided by (n - 1)^2; Xplique divides
      by n, which scales all scores alike.
    """
    check_image(image)
    num_samples = _COST.number("num_samples", num_samples, evaluations, default=500, least=2)
    if kernel_width is not None:
        kernel_width = check_number("kernel_width", kernel_width, above=0)
    segments = even_grid(np.shape(image)[:2], grid) if segments is None else segments
    game = Game(predictor, image, segments, target=target, objective=objective)
    num_segments = game.num_segments
    check_memory(12 * num_samples * (num_samples + num_segments), num_segments, num_samples)

    def keep(first: int, last: int) -> np.ndarray:
        return half_visible_keep(num_segments, first, last, key=key, block=_HYPERCUBE)

    def draw(first: int, last: int) -> Coalitions:
        return Coalitions(game.labels, keep(first, last))

    def estimate(samples: Samples) -> Estimate:
        outputs = samples.values.T
        widths = _median_widths(outputs) if kernel_width is None else kernel_width
        widths = np.broadcast_to(np.float32(widths), len(outputs))
        return Estimate(*map(np.asarray, _hsic(keep(0, samples.count), outputs, widths)))

    return run(
        Sampling(draw, estimate, key, ("hsic",), _FIRST_CHECK),
        game,
        num_samples,
        expected=num_samples + 1,
        until=until,
        previous=previous,
    )


def _median_widths(outputs: np.ndarray) -> np.ndarray:
    """Returns medians of outputs `[T, N]`; where 0, standard deviations; where these are 0, 1."""
    widths = np.abs(np.median(outputs, axis=1))
    widths = np.where(widths > 0, widths, outputs.std(axis=1))
    return np.where(widths > 0, widths, 1)


@bounded_jit()
def _hsic(keep: jax.Array, outputs: jax.Array, widths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns scores and errors `[T, S]` of coalitions `[N, S]`, outputs `[T, N]`, widths `[T]`."""
    # The kernel of visibility, 1/2 for equal and -1/2 for unequal, is a product: 2 x x'.
    x, count = keep.astype(outputs.dtype), len(keep)
    x = x - x.mean(axis=0, keepdims=True)

    def one(arguments):
        outputs, width = arguments
        difference = (outputs[:, None] - outputs[None, :]) / width
        kernel = jnp.exp(-(difference**2) / 2)
        product = jnp.matmul(kernel, x, precision="highest")
        terms = 2 * x * (product - product.mean(axis=0, keepdims=True)) / (count - 1) ** 2
        # Each sample appears in a row and in a column of the kernels: hence the factor 2.
        return terms.sum(axis=0), 2 * terms.std(axis=0, ddof=1) * count**0.5

    return jax.lax.map(one, (outputs, widths))
