"""Weighted least squares with what standard errors need: residuals, directions and leverages."""

from typing import NamedTuple

import numpy as np


class Fit(NamedTuple):
    """The result of a regression of T outputs on F features, from P observations.

    Attributes:
      scores: `[T, F]`, the coefficients.
      residuals: `[P, T]`.
      directions: `[P, F]`, derivatives of the scores with respect to the weighted value of an
        observation.
      leverages: `[P]`, derivatives of fitted values with respect to the observed ones.
    """

    scores: np.ndarray
    residuals: np.ndarray
    directions: np.ndarray
    leverages: np.ndarray


def regression(
    features: np.ndarray, values: np.ndarray, weights: np.ndarray, total: np.ndarray | None = None
) -> Fit:
    """Finds the scores b that minimise the weighted squares of values - features b.

    Args:
      features: `[P, F]`.
      values: `[P, T]`.
      weights: `[P]`, above 0.
      total: `[T]`, to which the scores must sum; None leaves them free.

    Raises:
      numpy.linalg.LinAlgError: observations that do not determine the scores.
    """
    root = np.sqrt(weights)[:, None]
    scaled = root * features
    normal, right = scaled.T @ scaled, scaled.T @ (root * values)
    if total is None:
        inverse = np.linalg.inv(normal)
        scores = inverse @ right
    else:  # bordered by the constraint and its Lagrange multiplier
        bordered = np.pad(normal, (0, 1), constant_values=1.0)
        bordered[-1, -1] = 0
        inverse = np.linalg.inv(bordered)[:-1]
        scores = inverse @ np.concatenate([right, total[None]])
    moved = scaled @ inverse[:, : features.shape[1]]
    return Fit(
        scores=scores.T,
        residuals=values - features @ scores,
        directions=moved / root,
        leverages=np.einsum("pf,pf->p", scaled, moved),
    )
