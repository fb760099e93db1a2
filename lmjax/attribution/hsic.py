"""HSIC attribution: how strongly the output depends on whether a part of the image is visible.

Novello, Fel & Vigouroux 2022, "Making Sense of Dependence: Efficient Black-box Explanations Using
Dependence Measure" (arXiv 2206.06219).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.attribution.answers import answer
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.sobol import segments_or_grid
from lmjax.masking.checks import check_image
from lmjax.perturbation.coalitions import Coalitions, check_memory


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
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
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
      num_samples: variants evaluated besides the whole image, 2 or more. In half of them a segment
        is visible (Latin hypercube sampling, as in the paper).
      grid: cells of the even grid along each side, or (h, w).
      kernel_width: of the output's kernel exp(-(y - y')^2 / (2 width^2)), above 0. None takes the
        median output, as the authors' code and Xplique do: made for probabilities. For logits a
        typical difference of outputs is a better width.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine: as in `lmjax.evaluate`.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several, and standard errors
      (to first order: near a score of 0 they tell no more than its size).

    Raises:
      ValueError: options out of range, target not a class of the network, more samples than memory
        allows, non-finite outputs, and all that `lmjax.evaluate` raises.

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
    keep = _half_visible(num_segments, num_samples, key)
    answers = answer(
        predictor,
        image,
        Coalitions(segments, keep),
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
    )
    outputs = answers.values.reshape(num_samples, -1).T
    widths = _median_widths(outputs) if kernel_width is None else kernel_width
    results = _hsic(keep, outputs, np.broadcast_to(np.float32(widths), len(outputs)))
    shape = (*answers.whole.shape, num_segments)
    scores, errors = (np.asarray(each).reshape(shape) for each in results)
    return Attribution(
        scores=scores,
        segments=segments,
        standard_error=errors,
        num_variants=num_samples + 1,
        **answers.about(),
    )


def _half_visible(num_segments: int, num_samples: int, key: jax.Array) -> np.ndarray:
    """bool `[N, S]`: each segment visible in half of the samples, independently of the others."""
    half = jnp.arange(num_samples) < num_samples // 2
    columns = jnp.broadcast_to(half[:, None], (num_samples, num_segments))
    return np.asarray(jax.random.permutation(key, columns, independent=True))


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
