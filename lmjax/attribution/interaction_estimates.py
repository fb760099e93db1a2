"""Interaction indices from coalitions that methods draw: a model of pairs, corrected by its errors.

A weighted regression fits a model of order two, whose scores follow from its coefficients. As an
index is linear in the game, the game's scores are the model's plus those of the residuals, which
are summed over the drawn coalitions, each divided by the probability that it is drawn. So the
estimate is consistent for every index, and only the residuals add noise. For indices that are a
regression under the distribution of the coalitions, the correction is 0: Faith-Shapley under the
Shapley kernel, and Banzhaf where all coalitions are equally likely.

Standard errors are those of the sum, with the residual of each coalition from the model that is
fitted without it (as in HC3, MacKinnon & White 1985).

References:
  Lundberg & Lee 2017 (arXiv 1705.07874), the kernel; Fumagalli et al. 2024, "KernelSHAP-IQ" (arXiv
  2405.10852), regressions on features of order two; Witter et al. 2025, "Regression-adjusted Monte
  Carlo estimators for Shapley values and probabilistic values" (arXiv 2506.11849), the correction.
"""

import math
from typing import NamedTuple

import numpy as np

from lmjax.attribution.interaction_indices import Index, Sums, index_sums
from lmjax.attribution.regression import Fit, regression
from lmjax.masks.samplers import shapley_kernel

_ROWS_PER_UNKNOWN = 2
_TOLERANCE = 1e-6


class Estimates(NamedTuple):
    """An index with its standard errors.

    Attributes:
      scores: of segments and pairs.
      errors: in the same form.
    """

    scores: Sums
    errors: Sums


def from_uniform(index: Index, keep: np.ndarray, values: np.ndarray) -> Estimates:
    """Estimates an index from coalitions that hold each segment with probability 1/2.

    Args:
      index: whose weights are those of this distribution.
      keep: `[N, S]` bool.
      values: `[N, T]`.

    Raises:
      ValueError: coalitions that do not determine the model.
    """
    values = values.astype(np.float64)
    count, num_segments = keep.shape
    signs = np.where(keep, 0.5, -0.5)
    fit = _fit(np.concatenate([_with_pairs(signs), signs], axis=1), values, np.ones(count))
    singles, pairs = fit.scores[:, -num_segments:], fit.scores[:, 1:-num_segments]
    scale = 2.0**num_segments / count  # coalitions for which a drawn one stands
    _, squares = index_sums(index, keep, scale * _left_out(fit))
    found = Sums(singles, _symmetric(pairs, num_segments))
    return Estimates(found, Sums(*map(np.sqrt, squares)))


def from_pairs(index: Index, drawn: np.ndarray, values: np.ndarray, whole: np.ndarray) -> Estimates:
    """Estimates an index from the coalitions that KernelSHAP evaluates.

    The model's even part, which complements share, and its odd part, which has the opposite sign
    for them, are two regressions: on the means and on the differences of complementary pairs.

    Args:
      index: an interaction index.
      drawn: `[N, S]` bool, one coalition of each drawn pair, from the kernel without the sizes 1
        and S - 1.
      values: `[1 + 2 (S + N), T]`, of the empty coalition and of the pairs, single segments first.
      whole: `[T]`, value of the full coalition.

    Raises:
      ValueError: coalitions that do not determine the model.
    """
    values, whole = values.astype(np.float64), whole.astype(np.float64)
    count, num_segments = drawn.shape
    keep = np.concatenate([np.eye(num_segments, dtype=bool), drawn])
    kernel = shapley_kernel(num_segments)
    single = kernel[[0, -1]].sum()
    weights = np.repeat([single / num_segments, (1 - single) / count], [num_segments, count])
    signs = np.where(keep, 1.0, -1.0)
    empty, one, other = values[0], values[1::2], values[2::2]
    odd = _fit(signs, (one - other) / 2, weights, (whole - empty) / 2)
    even = _fit(_with_pairs(signs), (one + other) / 2, weights, (whole + empty) / 2)
    scale = np.concatenate([np.ones(num_segments), _stands_for(drawn)])[:, None]
    missed, _ = index_sums(index, keep, *_of_both(scale, even.residuals, odd.residuals))
    model = _of_model(index, 2 * odd.scores, _symmetric(4 * even.scores[:, 1:], num_segments))
    found = Sums(*map(np.add, model, missed))
    left_out = (each[num_segments:] for each in (scale, _left_out(even), _left_out(odd)))
    sums, squares = index_sums(index, drawn, *_of_both(*left_out))  # single segments are not random
    variances = (np.maximum(two - one**2 / count, 0) for one, two in zip(sums, squares))
    return Estimates(found, Sums(*map(np.sqrt, variances)))


def fewest_rows(num_segments: int, *, paired: bool) -> int:
    """Returns the number of coalitions, or of pairs of them, that determine a model with room."""
    unknowns = 1 + num_segments * (num_segments - 1) // 2 + (0 if paired else num_segments)
    return _ROWS_PER_UNKNOWN * unknowns


def _of_model(index: Index, centred: np.ndarray, pairs: np.ndarray) -> Sums:
    """Returns the scores of a model of order two.

    Args:
      index: an interaction index.
      centred: `[T, S]`, effects of segments where all others are visible with probability 1/2.
      pairs: `[T, S, S]`, effects of pairs.
    """
    alone = centred - pairs.sum(axis=2) / 2
    return Sums(alone if index.efficient else centred, pairs)


def _of_both(scale: np.ndarray, even: np.ndarray, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns scaled values of coalitions, and of their complements, from even and odd parts."""
    return scale * (even + odd), scale * (even - odd)


def _stands_for(drawn: np.ndarray) -> np.ndarray:
    """Returns for how many coalitions each drawn one stands, and its complement, `[N]`."""
    count, num_segments = drawn.shape
    kernel = shapley_kernel(num_segments)[1:-1]
    number = [math.comb(num_segments, size) for size in range(2, num_segments - 1)]
    every = np.asarray(number, float) * kernel.sum() / kernel
    return every[drawn.sum(axis=1) - 2] / (2 * count)


def _with_pairs(signs: np.ndarray) -> np.ndarray:
    """Returns a column of ones, and the products of all pairs of columns."""
    first, second = np.triu_indices(signs.shape[1], 1)
    return np.concatenate([np.ones((len(signs), 1)), signs[:, first] * signs[:, second]], axis=1)


def _symmetric(pairs: np.ndarray, num_segments: int) -> np.ndarray:
    """Returns scores of pairs `[T, P]` as `[T, S, S]`."""
    matrix = np.zeros((len(pairs), num_segments, num_segments))
    first, second = np.triu_indices(num_segments, 1)
    matrix[:, first, second] = matrix[:, second, first] = pairs
    return matrix


def _fit(
    features: np.ndarray, values: np.ndarray, weights: np.ndarray, total: np.ndarray | None = None
) -> Fit:
    """Fits a regression; raises ValueError unless no coefficient hangs on one observation."""
    unknowns = features.shape[1] - (total is not None)
    try:
        fit = regression(features, values, weights, total)
        loose = abs(fit.leverages.sum() - unknowns) > 1e-3 or fit.leverages.max() > 1 - _TOLERANCE
    except np.linalg.LinAlgError:
        loose = True
    if loose:
        raise ValueError(
            "num_samples must be higher: too few of these coalitions differ to tell all pairs of "
            "segments apart"
        )
    return fit


def _left_out(fit: Fit) -> np.ndarray:
    """Returns the residuals `[P, T]` of models that are fitted without the observation."""
    return fit.residuals / (1 - fit.leverages[:, None])
