"""LIME: a linear surrogate of the network around one image, over its segments.

Ribeiro, Singh & Guestrin 2016, "Why should I trust you?" (arXiv 1602.04938). Numbers follow the
`lime` package 0.2.0.1 (`lime_image.py`, `lime_base.py`), without its feature selection.
"""

import warnings
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.attribution.answers import answer
from lmjax.attribution.attribution import Attribution
from lmjax.masking.checks import check_image
from lmjax.perturbation.coalitions import Coalitions, check_memory, random_keep
from lmjax.perturbation.segments import check_segments

_SAMPLES_PER_SEGMENT = 10


def lime(
    predictor: Callable,
    image,
    segments,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    num_samples: int = 1000,
    keep_probability: float = 0.5,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Attribution:
    """Scores of segments: the coefficients of a weighted ridge regression on random coalitions.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      key: random key; the same key gives the same scores.
      target: class or classes to explain; None explains the predicted class. Several cost no more
        evaluations than one.
      num_samples: variants evaluated, the whole image among them.
      keep_probability: how likely a segment stays visible in a variant.
      kernel_width: width of the kernel that weighs variants by their cosine distance to the whole
        image.
      alpha: strength of the ridge penalty, above 0.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size: as in `lmjax.evaluate`.
      progress: as in `lmjax.evaluate`.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several.

    Raises:
      ValueError: options out of range, target not a class of the network, more segments than memory
        allows, non-finite outputs, and all that `lmjax.evaluate` raises.

    Warns:
      UserWarning: fewer than 10 samples a segment.
    """
    check_image(image)
    segments = check_segments(segments, np.shape(image)[:2])
    _check_options(kernel_width, alpha)
    num_segments = int(segments.max()) + 1
    # Coalitions as random bits and three float copies; the normal equations and their factor.
    needed = num_samples * num_segments * 16 + 3 * 4 * num_segments**2
    check_memory(needed, num_segments, num_samples)
    _warn_few_samples(num_samples, num_segments)

    keep = random_keep(num_segments, num_samples, key=key, keep_probability=keep_probability)
    answers = answer(
        predictor,
        image,
        Coalitions(segments, keep[1:]),  # the first is the whole image
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
    )
    values = np.concatenate([answers.whole[None], answers.values])
    scores, intercept, r2 = lime_regression(keep, values, kernel_width=kernel_width, alpha=alpha)
    return Attribution(
        scores=np.asarray(scores),
        segments=segments,
        intercept=np.asarray(intercept),
        r2=np.asarray(r2),
        num_variants=num_samples,
        **answers.about(),
    )


@jax.jit
def lime_regression(
    keep: jax.Array, outputs: jax.Array, *, kernel_width: float = 0.25, alpha: float = 1.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weighted ridge regression with intercept of outputs on coalitions.

    With d the cosine distance of a coalition to the full one, 1 - sqrt(share of segments kept) (1
    for the empty coalition), a sample weighs sqrt(exp(-d^2 / kernel_width^2)). The intercept is not
    penalised.

    Args:
      keep: `[N, S]` bool, True = visible.
      outputs: `[N, T]`, or `[N]` for one target.
      kernel_width: the kernel's width.
      alpha: strength of the ridge penalty, above 0.

    Returns:
      scores `[T, S]`, intercept `[T]` and weighted R^2 `[T]` (without T for one target). R^2 of
      constant outputs is 1.
    """
    if outputs.ndim == 1:
        results = lime_regression(keep, outputs[:, None], kernel_width=kernel_width, alpha=alpha)
        return jax.tree.map(lambda result: result[0], results)
    x = keep.astype(jnp.float32)
    distance = 1 - jnp.sqrt(x.mean(axis=1))
    weight = jnp.sqrt(jnp.exp(-(distance**2) / kernel_width**2))
    # Counted from the first output, constant outputs are exactly 0 and small effects keep digits.
    y = outputs - outputs[:1]
    with jax.default_matmul_precision("highest"):
        x_mean, y_mean = (weight @ x) / weight.sum(), (weight @ y) / weight.sum()
        x, y = x - x_mean[None, :], y - y_mean[None, :]
        weighted = weight[:, None] * x
        normal = weighted.T @ x + alpha * jnp.eye(x.shape[1])
        scores = jax.scipy.linalg.solve(normal, weighted.T @ y, assume_a="pos")
        intercept = outputs[0] + y_mean - x_mean @ scores
        residual, total = weight @ (y - x @ scores) ** 2, weight @ y**2
    r2 = jnp.where(total > 0, 1 - residual / jnp.where(total > 0, total, 1), 1)
    return scores.T, intercept, r2


def _check_options(kernel_width: float, alpha: float) -> None:
    for name, value in (("kernel_width", kernel_width), ("alpha", alpha)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be above 0 and finite, got {value!r}")


def _warn_few_samples(num_samples: int, num_segments: int) -> None:
    if num_samples < _SAMPLES_PER_SEGMENT * num_segments:
        warnings.warn(
            f"{num_samples} samples for {num_segments} segments are fewer than "
            f"{_SAMPLES_PER_SEGMENT} a segment: scores may be noise; use num_samples="
            f"{_SAMPLES_PER_SEGMENT * num_segments} or fewer segments",
            UserWarning,
            stacklevel=3,
        )
