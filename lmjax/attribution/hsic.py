"""HSIC attribution: how strongly the output depends on whether a part of the image is visible.

Novello, Fel & Vigouroux 2022, "Making Sense of Dependence: Efficient Black-box Explanations Using
Dependence Measure" (arXiv 2206.06219).
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import answer
from lmjax.attribution.sampling import Estimate, Samples, Sampling, Until, run
from lmjax.attribution.sobol import segments_or_grid
from lmjax.masking.checks import check_image
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.samplers import numbered

_FIRST_CHECK = 100
# Samples of one Latin hypercube: a segment is visible in half of them. The next follow in another,
# so that a run can go on.
_HYPERCUBE = 50


def hsic(
    predictor: Callable,
    image,
    *,
    key: jax.Array,
    segments=None,
    target: int | Sequence[int] | None = None,
    num_samples: int = 500,
    grid: int | tuple[int, int] = 8,
    kernel_width: float | None = None,
    until: Until | None = None,
    previous: Attribution | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Scores of segments: Hilbert-Schmidt independence criterion of visibility and output.

    Masks are binary, under every removal. A score is 0 for a segment the output does not depend on
    (up to sampling error, which is upwards), and has no sign otherwise: what speaks against the
    target scores as high as what speaks for it.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      key: random key; the same key gives the same scores.
      segments: `[H, W]` ints, labels 0..S-1, none missing. None takes an even grid.
      target: class or classes to explain; None explains the predicted class. Several cost no more
        evaluations than one.
      num_samples: variants evaluated besides the whole image, 2 or more, with those of `previous`.
        In half of any 50 a segment is visible (Latin hypercube sampling; the paper has one
        hypercube of all samples, which could not go on).
      grid: cells of the even grid along each side, or (h, w).
      kernel_width: of the output's kernel exp(-(y - y')^2 / (2 width^2)), above 0. None takes the
        median output, as the authors' code and Xplique do: made for probabilities. For logits a
        typical difference of outputs is a better width.
      until: (scores, standard errors) -> stop, for example `stable_ranking(5)`: asked from 100
        variants on. It holds for segments that count; of those whose score is about 0 the errors
        tell too little to rank them. None takes all.
      previous: attribution of the same call with fewer samples, to go on from; the kernel's width
        is free.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several, and standard errors
      (to first order: near a score of 0 they tell no more than its size).

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
    if num_samples < 2:
        raise ValueError(f"num_samples must be 2 or more, got {num_samples!r}")
    if kernel_width is not None and not (np.isfinite(kernel_width) and kernel_width > 0):
        raise ValueError(f"kernel_width must be above 0 and finite, got {kernel_width!r}")
    segments = segments_or_grid(segments, np.shape(image)[:2], grid)
    num_segments = int(segments.max()) + 1
    check_memory(12 * num_samples * (num_samples + num_segments), num_segments, num_samples)

    def keep(first: int, last: int) -> np.ndarray:
        return _half_visible(num_segments, first, last, key)

    def draw(first: int, last: int) -> Coalitions:
        return Coalitions(segments, keep(first, last))

    def estimate(samples: Samples) -> Estimate:
        outputs = samples.values.T
        widths = _median_widths(outputs) if kernel_width is None else kernel_width
        widths = np.broadcast_to(np.float32(widths), len(outputs))
        return Estimate(*map(np.asarray, _hsic(keep(0, samples.count), outputs, widths)))

    return run(
        Sampling(draw, estimate, ("hsic",), _FIRST_CHECK),
        functools.partial(
            answer,
            predictor,
            image,
            target=target,
            output=output,
            batch_size=batch_size,
            progress=progress,
            engine=engine,
            mesh=mesh,
        ),
        int(num_samples),
        key=key,
        segments=segments,
        until=until,
        previous=previous,
    )


def _half_visible(num_segments: int, first: int, last: int, key: jax.Array) -> np.ndarray:
    """bool `[last - first, S]`: samples of that number, of one hypercube after the other."""
    start, stop = first // _HYPERCUBE * _HYPERCUBE, -(-last // _HYPERCUBE) * _HYPERCUBE

    def draw(key):
        return jax.random.bits(key, (num_segments,))

    bits = numbered(draw, start, stop, key=key).reshape(-1, _HYPERCUBE, num_segments)
    keep = (bits.argsort(axis=1) < _HYPERCUBE // 2).reshape(-1, num_segments)
    return keep[first - start : last - start]


def _median_widths(outputs: np.ndarray) -> np.ndarray:
    """The medians of outputs `[T, N]`; where 0, the standard deviation; where that is 0, 1."""
    widths = np.abs(np.median(outputs, axis=1))
    widths = np.where(widths > 0, widths, outputs.std(axis=1))
    return np.where(widths > 0, widths, 1)


@jax.jit
def _hsic(keep: jax.Array, outputs: jax.Array, widths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores and errors `[T, S]`, of coalitions `[N, S]`, outputs `[T, N]` and widths `[T]`."""
    # The kernel of visibility, 1/2 for equal and -1/2 for unequal, is a product: 2 x x'.
    x, count = keep - keep.mean(axis=0, keepdims=True), len(keep)

    def one(arguments):
        outputs, width = arguments
        difference = (outputs[:, None] - outputs[None, :]) / width
        kernel = jnp.exp(-(difference**2) / 2)
        product = jnp.matmul(kernel, x, precision="highest")
        terms = 2 * x * (product - product.mean(axis=0, keepdims=True)) / (count - 1) ** 2
        # Each sample counts in a row and in a column of the kernels, hence twice.
        return terms.sum(axis=0), 2 * terms.std(axis=0, ddof=1) * count**0.5

    return jax.lax.map(one, (outputs, widths))
