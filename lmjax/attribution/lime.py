"""LIME: a linear surrogate of the network around one image, over its segments.

Ribeiro, Singh & Guestrin 2016, "Why should I trust you?" (arXiv 1602.04938). Numbers follow the
`lime` package 0.2.0.1 (`lime_image.py`, `lime_base.py`).
"""

import functools
import warnings
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax._utils.sizes import power_of_two
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import answer
from lmjax.attribution.sampling import Estimate, Samples, Sampling, Until, run
from lmjax.masking.checks import check_image
from lmjax.masks.coalitions import Coalitions, check_memory, random_keep
from lmjax.masks.segments import check_segments

DISTANCES = ("cosine", "euclidean")
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
    distance: str = "cosine",
    kernel_width: float | None = None,
    alpha: float = 1.0,
    selection: str = "none",
    num_features: int | None = None,
    until: Until | None = None,
    previous: Attribution | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Scores of segments: the coefficients of a weighted ridge regression on random coalitions.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      key: random key; the same key gives the same scores.
      target: class or classes to explain; None explains the predicted class. Several cost no more
        evaluations than one.
      num_samples: variants evaluated, the whole image and those of `previous` among them; 2 or
        more.
      keep_probability: how likely a segment stays visible in a variant.
      distance: of a variant from the whole image, "cosine" or "euclidean"; see `lime_regression`.
      kernel_width: width of the kernel that weighs variants by their distance. None takes 0.25 for
        the cosine distance and 0.75 sqrt(S) for the Euclidean one, the package's for images and
        for tables.
      alpha: strength of the ridge penalty, above 0.
      selection: which segments the regression keeps, the others score 0. "none" keeps all, as the
        package does for images. "highest_weights": those with the largest coefficients of a ridge
        regression on all, with penalty 0.01. "forward_selection": one by one, the one that raises
        the weighted R^2 most. "lasso_path": those that a lasso keeps when its penalty is lowered
        from infinity, as long as they are no more than `num_features`.
      num_features: how many segments to keep; for selections other than "none".
      until: (scores, standard errors) -> stop, for example `stable_ranking(5)`: asked from 10
        samples a segment on. None takes all.
      previous: attribution of the same call with fewer samples, to go on from. The regression is
        done anew, and may be another one: distance, kernel, penalty and selection are free.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several. Standard errors are of
      the sampling of variants (heteroscedasticity-consistent, HC1), for the segments kept; they do
      not count what the penalty and the selection do.

    Raises:
      ValueError: options out of range, target not a class of the network, more segments than memory
        allows, `previous` that does not fit, non-finite outputs, and all that `lmjax.evaluate`
        raises.

    Warns:
      UserWarning: fewer than 10 samples a segment.
    """
    check_image(image)
    segments = check_segments(segments, np.shape(image)[:2])
    num_segments = int(segments.max()) + 1
    if kernel_width is None:
        kernel_width = 0.25 if distance == "cosine" else 0.75 * num_segments**0.5
    _check_options(num_samples, distance, kernel_width, alpha)
    _check_selection(selection, num_features)
    # Coalitions in four float copies; the normal equations and their factor.
    needed = num_samples * num_segments * 16 + 3 * 4 * num_segments**2
    check_memory(needed, num_segments, num_samples)
    _warn_few_samples(num_samples, num_segments)

    def keep(first: int, last: int) -> np.ndarray:
        options = {"key": key, "keep_probability": keep_probability, "first": first}
        return np.asarray(random_keep(num_segments, last - first, **options))

    def draw(first: int, last: int) -> Coalitions:
        return Coalitions(segments, keep(max(first, 1), last))  # number 0 is the whole image

    def estimate(samples: Samples) -> Estimate:
        values = np.concatenate([samples.whole[None], samples.values])
        options = {"kernel_width": kernel_width, "alpha": alpha, "distance": distance}
        return surrogate(keep(0, samples.count), values, selection, num_features, **options)

    return run(
        Sampling(
            draw,
            estimate,
            ("lime", ("keep_probability", keep_probability)),
            _SAMPLES_PER_SEGMENT * num_segments,
        ),
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


def surrogate(
    keep: np.ndarray,
    outputs: np.ndarray,
    selection: str,
    num_features: int | None,
    *,
    kernel_width: float,
    alpha: float,
    distance: str,
) -> Estimate:
    """The regression of `lime` on coalitions `[N, S]` and outputs `[N, T]`, with its options."""
    count, missing = len(keep), power_of_two(len(keep)) - len(keep)
    # Up to a power of two, so that a run that stops early compiles seldom.
    keep, outputs = (np.pad(x, ((0, missing), (0, 0)), mode="edge") for x in (keep, outputs))
    weights = np.array(_weights(keep, kernel_width, distance))
    weights[count:] = 0
    used = _select(keep[:count], outputs[:count], weights[:count], selection, num_features)
    scores, intercept, r2, errors = map(
        np.asarray, _fit(keep, used, outputs, weights, alpha, count)
    )
    return Estimate(scores, errors, intercept, r2)


@functools.partial(jax.jit, static_argnames="distance")
def lime_regression(
    keep: jax.Array,
    outputs: jax.Array,
    *,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
    distance: str = "cosine",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weighted ridge regression with intercept of outputs on coalitions.

    With d the distance of a coalition to the full one, a sample weighs
    sqrt(exp(-d^2 / kernel_width^2)). The cosine distance is 1 - sqrt(share of segments kept) (1 for
    the empty coalition), the Euclidean one sqrt(number of segments hidden), for which the default
    width is far too small. The intercept is not penalised.

    Args:
      keep: `[N, S]` bool, True = visible.
      outputs: `[N, T]`, or `[N]` for one target.
      kernel_width: the kernel's width.
      alpha: strength of the ridge penalty, above 0.
      distance: "cosine" or "euclidean".

    Returns:
      scores `[T, S]`, intercept `[T]` and weighted R^2 `[T]` (without T for one target). R^2 of
      constant outputs is 1.
    """
    weights = _weights(keep, kernel_width, distance)
    columns = outputs.reshape(len(outputs), -1)
    results = _ridge(keep.astype(jnp.float32), columns, weights, alpha, len(keep))[:3]
    return results if outputs.ndim == 2 else jax.tree.map(lambda x: x[0], results)


@functools.partial(jax.jit, static_argnames="distance")
def _weights(keep: jax.Array, kernel_width: float, distance: str) -> jax.Array:
    x = keep.astype(jnp.float32)
    cosine = distance == "cosine"
    squared = (1 - jnp.sqrt(x.mean(axis=1))) ** 2 if cosine else (1 - x).sum(axis=1)
    return jnp.sqrt(jnp.exp(-squared / kernel_width**2))


@jax.jit
def _fit(keep, used, outputs, weights, alpha, count):
    """As `_ridge`, where all targets use all segments (None) or each its own (bool `[T, S]`)."""
    x = keep.astype(jnp.float32)
    if used is None:
        return _ridge(x, outputs, weights, alpha, count)

    def one(arguments):
        used, outputs = arguments  # a column of zeros has coefficient 0
        return _ridge(x * used[None], outputs[:, None], weights, alpha, count)

    return jax.tree.map(lambda each: each[:, 0], jax.lax.map(one, (used, outputs.T)))


def _ridge(x, outputs, weight, alpha, count):
    """Scores `[T, S]`, intercept `[T]`, R^2 `[T]` and standard errors `[T, S]`, of so many samples;
    rows beyond them have weight 0."""
    # Counted from the first output, constant outputs are exactly 0 and small effects keep digits.
    y = outputs - outputs[:1]
    with jax.default_matmul_precision("highest"):
        x_mean, y_mean = (weight @ x) / weight.sum(), (weight @ y) / weight.sum()
        x, y = x - x_mean[None, :], y - y_mean[None, :]
        weighted = weight[:, None] * x
        normal = weighted.T @ x + alpha * jnp.eye(x.shape[1])
        factor = jax.scipy.linalg.cho_factor(normal)
        scores = jax.scipy.linalg.cho_solve(factor, weighted.T @ y)
        intercept = outputs[0] + y_mean - x_mean @ scores
        residual = y - x @ scores
        left, total = weight @ residual**2, weight @ y**2
        influence = jax.scipy.linalg.cho_solve(factor, weighted.T)  # [S, N]
        variance = influence**2 @ residual**2
    r2 = jnp.where(total > 0, 1 - left / jnp.where(total > 0, total, 1), 1)
    free = jnp.maximum(count - x.shape[1] - 1, 1)
    return scores.T, intercept, r2, jnp.sqrt(variance * count / free).T


def _select(keep, outputs, weights, selection: str, num_features: int | None):
    """bool `[T, S]`: the segments each target uses; None where that is all."""
    if selection == "none":
        return None
    x, y, weights = (np.asarray(each, np.float64) for each in (keep, outputs, weights))
    root = np.sqrt(weights)[:, None]
    x = root * (x - np.average(x, axis=0, weights=weights))
    y = root * (y - np.average(y, axis=0, weights=weights))
    used = np.zeros((y.shape[1], x.shape[1]), bool)
    for row, column in zip(used, y.T):
        row[_SELECTIONS[selection](x, column, min(num_features, len(row)))] = True
    return used


def _highest_weights(x: np.ndarray, y: np.ndarray, number: int) -> np.ndarray:
    coefficients = np.linalg.solve(x.T @ x + 0.01 * np.eye(x.shape[1]), x.T @ y)
    return np.argsort(-np.abs(coefficients), kind="stable")[:number]


def _forward_selection(x: np.ndarray, y: np.ndarray, number: int) -> list[int]:
    products, moments, chosen = x.T @ x, x.T @ y, []
    least = 1e-10 * products.diagonal().max()
    for _ in range(number):
        # What each would add to the explained sum of squares; nothing where it adds no direction.
        size = np.maximum(products.diagonal(), least)
        gain = moments**2 / size
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        # The part along the chosen one leaves all others.
        share = products[best] / size[best]
        moments = moments - share * moments[best]
        products = products - np.outer(share, products[best])
    return chosen


def _lasso_path(x: np.ndarray, y: np.ndarray, number: int) -> np.ndarray:
    from sklearn.linear_model import lars_path

    _, _, path = lars_path(x, y, method="lasso")
    few_enough = (path != 0).sum(axis=0) <= number
    return path[:, np.flatnonzero(few_enough)[-1]].nonzero()[0]


_SELECTIONS = {
    "highest_weights": _highest_weights,
    "forward_selection": _forward_selection,
    "lasso_path": _lasso_path,
}


def _check_options(num_samples: int, distance: str, kernel_width: float, alpha: float) -> None:
    if num_samples < 2:
        raise ValueError(
            f"num_samples must be 2 or more, the whole image and another; got {num_samples!r}"
        )
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}; got {distance!r}")
    for name, value in (("kernel_width", kernel_width), ("alpha", alpha)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be above 0 and finite, got {value!r}")


def _check_selection(selection: str, num_features: int | None) -> None:
    allowed = ("none", *_SELECTIONS)
    if selection not in allowed:
        raise ValueError(f"selection must be one of {', '.join(allowed)}; got {selection!r}")
    if (num_features is None) != (selection == "none"):
        raise ValueError(
            "num_features and a selection other than 'none' go together; got "
            f"num_features={num_features!r} and selection={selection!r}"
        )
    if num_features is not None and num_features < 1:
        raise ValueError(f"num_features must be 1 or more, got {num_features!r}")


def _warn_few_samples(num_samples: int, num_segments: int) -> None:
    if num_samples < _SAMPLES_PER_SEGMENT * num_segments:
        warnings.warn(
            f"{num_samples} samples for {num_segments} segments are fewer than "
            f"{_SAMPLES_PER_SEGMENT} a segment: scores may be noise; use num_samples="
            f"{_SAMPLES_PER_SEGMENT * num_segments} or fewer segments",
            UserWarning,
            stacklevel=3,
        )
