"""LIME's surrogate model: a weighted ridge regression on coalitions, on a selection of segments.

Numbers follow the `lime` package 0.2.0.1 (`lime_base.py`).
"""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.checks import check_choice, check_number, check_numbers, set_number, set_whole
from lmjax._utils.sizes import filled, power_of_two
from lmjax.attribution.sampling import Estimate
from lmjax.masking.checks import is_traced

# Outputs that differ by no more than this share of the largest are constant to their rounding.
_ROUNDING = 1e-6

DISTANCES = ("cosine", "euclidean")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surrogate:
    """The surrogate model of LIME: a weighted ridge regression of outputs on coalitions.

    Attributes:
      distance: of a variant from the whole image, "cosine" or "euclidean"; see `lime_regression`.
      kernel_width: width of the kernel that weights variants by their distance. None takes 0.25 for
        the cosine distance and 0.75 sqrt(S) for the Euclidean one, the `lime` package's widths for
        images and for tables.
      alpha: strength of the ridge penalty, above 0.
      selection: how the regression selects segments; the others score 0. "none" keeps all, as the
        package does for images. "highest_weights": those with the largest coefficients of a ridge
        regression on all, with penalty 0.01. "forward_selection": one by one, the one that raises
        the weighted R^2 most. "lasso_path": those that a lasso keeps when its penalty is lowered
        from infinity, as long as they are no more than `num_features` (needs scikit-learn, the
        extra `lasso`).
      num_features: number of segments to select; for selections other than "none".

    Raises:
      ValueError: options out of range.
      ImportError: "lasso_path" without scikit-learn.
    """

    distance: str = "cosine"
    kernel_width: float | None = None
    alpha: float = 1.0
    selection: str = "none"
    num_features: int | None = None

    def __post_init__(self):
        check_choice("distance", self.distance, DISTANCES)
        if self.kernel_width is not None:
            set_number(self, "kernel_width", above=0)
        set_number(self, "alpha", above=0)
        check_choice("selection", self.selection, ("none", *_SELECTIONS))
        if self.selection == "lasso_path" and importlib.util.find_spec("sklearn") is None:
            raise ImportError(
                "selection 'lasso_path' needs scikit-learn, which is not installed: "
                'pip install "lmjax[lasso]"'
            )
        if (self.num_features is None) != (self.selection == "none"):
            raise ValueError(
                "num_features and a selection other than 'none' go together; got "
                f"num_features={self.num_features!r} and selection={self.selection!r}"
            )
        if self.num_features is not None:
            set_whole(self, "num_features", least=1)

    def fit(self, keep: np.ndarray, outputs: np.ndarray) -> Estimate:
        """Fits coalitions `[N, S]` to outputs `[N, T]`."""
        (count, segments), missing = keep.shape, power_of_two(len(keep)) - len(keep)
        # Filled up to powers of two: a run that stops early, and images of other numbers of
        # segments, compile seldom. A column of zeros has coefficient 0.
        keep, outputs = (np.pad(x, ((0, missing), (0, 0)), mode="edge") for x in (keep, outputs))
        weights = np.asarray(_weights(keep, self._width(segments), self.distance))
        weights[count:] = 0
        used = None
        if self.num_features is not None:
            samples = keep[:count], outputs[:count], weights[:count]
            used = filled(_select(*samples, self.selection, self.num_features), axis=1)
        found = _fit(filled(keep, axis=1), used, outputs, weights, self.alpha, count)
        scores, intercept, r2, errors = map(np.asarray, found)
        return Estimate(scores[:, :segments], errors[:, :segments], intercept, r2)

    def _width(self, num_segments: int) -> float:
        """Returns the kernel's width for S segments."""
        if self.kernel_width is not None:
            return self.kernel_width
        return _default_width(self.distance, num_segments)


def _default_width(distance: str, num_segments: int) -> float:
    """Returns the kernel's width where none is given."""
    return 0.25 if distance == "cosine" else 0.75 * num_segments**0.5


def lime_regression(
    keep: ArrayLike,
    outputs: ArrayLike,
    *,
    kernel_width: float | None = None,
    alpha: float = 1.0,
    distance: str = "cosine",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Fits a weighted ridge regression with intercept of outputs on coalitions.

    With d the distance of a coalition to the full one, a sample has weight
    sqrt(exp(-d^2 / kernel_width^2)). The cosine distance is 1 - sqrt(share of segments kept) (1 for
    the empty coalition), the Euclidean one sqrt(number of segments hidden). The intercept is not
    penalised.

    Example:
      >>> keep = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)
      >>> outputs = np.array([[3.0], [2.0], [1.0], [0.0]])  # 2 + 1
      >>> scores = lmjax.attribution.lime_regression(keep, outputs, alpha=0.001)[0]
      >>> scores.round(1).ravel().tolist()
      [2.0, 1.0]

    Args:
      keep: `[N, S]` bool, True = visible.
      outputs: `[N, T]`, or `[N]` for one target.
      kernel_width: the kernel's width, above 0; None takes 0.25 for the cosine distance and
        0.75 sqrt(S) for the Euclidean one, as the `lime` package does for images and for tables.
      alpha: strength of the ridge penalty, above 0.
      distance: "cosine" or "euclidean".

    Returns:
      scores `[T, S]`, intercept `[T]` and R^2 `[T]`; without the axis T for outputs `[N]`. R^2 is
      cross-validated, leaving out one sample at a time (PRESS; Allen 1974, "The relationship
      between variable selection and data augmentation and a method for prediction"): at most 1, and
      below 0 where the mean predicts better. It is NaN where outputs do not vary, and for fewer
      than S + 2 samples.

    Raises:
      ValueError: shapes that do not match, coalitions that hold other values than 0 and 1, outputs
        that are not finite, options out of range, or a width so small that no sample has weight.
    """
    if kernel_width is not None:
        kernel_width = check_number("kernel_width", kernel_width, above=0)
    alpha = check_number("alpha", alpha, above=0)
    check_choice("distance", distance, DISTANCES)
    shapes = np.shape(keep), np.shape(outputs)
    if len(shapes[0]) != 2 or len(shapes[1]) not in (1, 2) or shapes[0][0] != shapes[1][0]:
        raise ValueError(
            f"keep must be [N, S] and outputs [N] or [N, T], got shapes {shapes[0]} and {shapes[1]}"
        )
    if 0 in shapes[0]:
        raise ValueError(f"keep must hold coalitions of segments, got shape {shapes[0]}")
    if not is_traced(keep) and not np.isin(check_numbers("keep", keep), (0, 1)).all():
        raise ValueError("keep must hold only 0 (hidden) and 1 (visible)")
    if not is_traced(outputs) and not np.isfinite(check_numbers("outputs", outputs)).all():
        raise ValueError("outputs hold NaN or infinity")
    if kernel_width is None:
        kernel_width = _default_width(distance, shapes[0][1])
    if not is_traced(keep) and not _weights(np.asarray(keep), kernel_width, distance).any():
        raise ValueError(
            f"kernel_width must be larger: at {kernel_width:g} the weights of all samples are 0"
        )
    keep, outputs = jnp.asarray(keep), jnp.asarray(outputs)
    outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    return _regression(keep, outputs, kernel_width, alpha, distance=distance)


@bounded_jit(static_argnames="distance")
def _regression(keep, outputs, kernel_width, alpha, *, distance: str):
    keep, outputs = jnp.asarray(keep), jnp.asarray(outputs)
    weights = _weights(keep, kernel_width, distance)
    columns = outputs.reshape(len(outputs), -1)
    results = _ridge(keep.astype(jnp.float32), columns, weights, alpha, len(keep))[:3]
    return results if outputs.ndim == 2 else jax.tree.map(lambda x: x[0], results)


def _weights(keep, kernel_width: float, distance: str):
    """Returns the weights `[N]`, float32, of coalitions `[N, S]` of NumPy or JAX."""
    xp = jnp if isinstance(keep, jax.Array) else np
    shown = keep.astype(np.float32).mean(axis=1)
    squared = (1 - xp.sqrt(shown)) ** 2 if distance == "cosine" else keep.shape[1] * (1 - shown)
    return xp.exp(-squared / (2 * kernel_width**2)).astype(np.float32)


@bounded_jit()
def _fit(keep, used, outputs, weights, alpha, count):
    """Fits `_ridge` on all segments (`used` None), or on those of each target (bool `[T, S]`)."""
    x = keep.astype(jnp.float32)
    if used is None:
        return _ridge(x, outputs, weights, alpha, count)

    def fit_one(arguments):
        used, outputs = arguments  # a column of zeros has coefficient 0
        return _ridge(x * used[None], outputs[:, None], weights, alpha, count)

    return jax.tree.map(lambda each: each[:, 0], jax.lax.map(fit_one, (used, outputs.T)))


def _ridge(x, outputs, weight, alpha, count):
    """Fits the regression to the first `count` samples; rows beyond them have weight 0.

    Columns beyond the number of segments are 0.

    Returns:
      scores `[T, S]`, intercept `[T]`, cross-validated R^2 `[T]` and standard errors `[T, S]`;
      the last two are NaN where there are no more samples than unknowns.
    """
    unknowns = (x != 0).any(axis=0).sum() + 1  # segments left out are columns of zeros
    # Relative to the first output, constant outputs are exactly 0 and small effects keep digits.
    y = outputs - outputs[:1]
    with jax.default_matmul_precision("highest"):
        x_mean, y_mean = (weight @ x) / weight.sum(), (weight @ y) / weight.sum()
        x, y = x - x_mean[None, :], y - y_mean[None, :]
        scores, influence = _solve(x, y, weight, alpha)
        intercept = outputs[0] + y_mean - x_mean @ scores
        residual = y - x @ scores
        variance = influence**2 @ residual**2
        share = weight / weight.sum()
        leverage = share + (x * influence.T).sum(axis=1)
        left = weight @ (residual / (1 - leverage)[:, None]) ** 2
        total = weight @ (y / (1 - share)[:, None]) ** 2
    rounding = _ROUNDING * jnp.abs(outputs).max(axis=0)
    known = (count > unknowns) & (total > weight.sum() * rounding**2)
    r2 = jnp.where(known, 1 - left / total, jnp.nan)
    free = (count - unknowns).astype(jnp.float32)  # of the regression, not of all segments
    free = jnp.where(free > 0, free, jnp.nan)
    return scores.T, intercept, r2, jnp.sqrt(variance * count / free).T


def _solve(x, y, weight, alpha):
    """Returns coefficients `[S, T]`, and the matrix `[S, N]` that makes them of outputs."""
    weighted = weight[:, None] * x
    if len(x) >= x.shape[1]:
        factor = jax.scipy.linalg.cho_factor(weighted.T @ x + alpha * jnp.eye(x.shape[1]))
        scores = jax.scipy.linalg.cho_solve(factor, weighted.T @ y)
        return scores, jax.scipy.linalg.cho_solve(factor, weighted.T)
    # Fewer samples than segments: the same by a system of the samples' size.
    root = jnp.sqrt(weight)[:, None]
    rows = root * x
    factor = jax.scipy.linalg.cho_factor(rows @ rows.T + alpha * jnp.eye(len(x)))
    influence = jax.scipy.linalg.cho_solve(factor, rows).T * root.T
    return influence @ y, influence


def _select(
    keep: np.ndarray, outputs: np.ndarray, weights: np.ndarray, selection: str, num_features: int
) -> np.ndarray:
    """Selects segments for each target, bool `[T, S]`."""
    x, y, weights = (np.asarray(each, np.float64) for each in (keep, outputs, weights))
    root = np.sqrt(weights)[:, None]
    x = root * (x - np.average(x, axis=0, weights=weights))
    y = root * (y - np.average(y, axis=0, weights=weights))
    used = np.zeros((y.shape[1], x.shape[1]), bool)
    for row, column in zip(used, y.T):
        row[_SELECTIONS[selection](x, column, min(num_features, len(row)))] = True
    return used


def _highest_weights(x: np.ndarray, y: np.ndarray, number: int) -> np.ndarray:
    """Selects the segments with the largest coefficients of a ridge regression on all."""
    coefficients = np.linalg.solve(x.T @ x + 0.01 * np.eye(x.shape[1]), x.T @ y)
    return np.argsort(-np.abs(coefficients), kind="stable")[:number]


def _forward_selection(x: np.ndarray, y: np.ndarray, number: int) -> list[int]:
    """Selects segments one by one, each time the one that raises R^2 most."""
    products, moments, chosen = x.T @ x, x.T @ y, []
    least = 1e-10 * products.diagonal().max()
    for _ in range(number):
        # The gain of each segment in explained sum of squares, 0 where it adds no direction.
        size = np.maximum(products.diagonal(), least)
        gain = moments**2 / size
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        # Remove from all segments their part along the chosen one.
        share = products[best] / size[best]
        moments = moments - share * moments[best]
        products = products - np.outer(share, products[best])
    return chosen


def _lasso_path(x: np.ndarray, y: np.ndarray, number: int) -> np.ndarray:
    """Selects the segments of the last point on the lasso path with at most `number` of them."""
    from sklearn.linear_model import lars_path

    _, _, path = lars_path(x, y, method="lasso")
    few_enough = (path != 0).sum(axis=0) <= number
    return path[:, np.flatnonzero(few_enough)[-1]].nonzero()[0]


_SELECTIONS = {
    "highest_weights": _highest_weights,
    "forward_selection": _forward_selection,
    "lasso_path": _lasso_path,
}
