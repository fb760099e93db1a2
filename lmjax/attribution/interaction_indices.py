"""Interaction indices of order two: what segments and pairs of them contribute to an output.

The synergy of two segments within a coalition of others is the output with both, minus the outputs
with either, plus the output with neither: 0 where their effects add up. An index is a weighted mean
of the synergies within all coalitions of the other segments, and a score of order one is a weighted
sum of a segment's own contributions to them. The weight of a coalition depends on its size alone.

The weights of synergies are those of coalitions that hold every other segment with a probability
that is drawn first: uniformly for k-SII, from Beta(1, 2) for STII, which so dwells on small
coalitions, and from Beta(2, 2) for Faith-Shapley; for Banzhaf it is always 1/2.

References:
  Grabisch & Roubens 1999, "An axiomatic approach to the concept of interaction among players in
  cooperative games" (Shapley and Banzhaf interactions); Bordt & von Luxburg 2023, "From Shapley
  values to generalized additive models and back" (arXiv 2209.04012), k-SII; Sundararajan, Dhamdhere
  & Agarwal 2020, "The Shapley Taylor interaction index" (arXiv 1902.05622); Tsai, Yeh & Ravikumar
  2023, "Faith-Shap: the faithful Shapley interaction index" (arXiv 2203.00870).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Index(NamedTuple):
    """Weights of contributions and of synergies, by the number of other segments that are visible.

    Attributes:
      single: S -> `[S]`, the weight of a segment's contribution to each coalition of 0, 1, ...,
        S - 1 others.
      pair: S -> `[S - 1]`, the weight of a pair's synergy within each coalition of 0, 1, ..., S - 2
        others.
      efficient: whether scores and interactions sum to the output for the whole image minus that
        for nothing visible.
    """

    single: Callable[[int], np.ndarray]
    pair: Callable[[int], np.ndarray]
    efficient: bool = True


class Sums(NamedTuple):
    """Scores of order one and of order two, or other sums over coalitions of their form.

    Attributes:
      singles: `[T, S]`.
      pairs: `[T, S, S]`, symmetric, 0 on the diagonal.
    """

    singles: np.ndarray
    pairs: np.ndarray


def _mixed(first: int, second: int, others: int) -> np.ndarray:
    """Returns the probability of each coalition of 0, 1, ... `others` of that many segments.

    Each of them is visible with one probability, drawn from Beta(`first`, `second`).
    """
    from scipy.special import betaln

    size = np.arange(others + 1)
    return np.exp(betaln(size + first, others - size + second) - betaln(first, second))


def _ends(others: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights of 1 for the coalition of none of the others, and for that of all."""
    size = np.arange(others + 1)
    return (size == 0).astype(float), (size == others).astype(float)


def _half(others: int) -> np.ndarray:
    """Returns the probability of each coalition where all are equally likely."""
    return np.full(others + 1, 0.5**others)


def _k_sii_single(count: int) -> np.ndarray:
    """Shapley values, minus half of the interactions of all pairs that a segment belongs to.

    These sum to its contribution to all others minus that to none.
    """
    none, every = _ends(count - 1)
    return _mixed(1, 1, count - 1) + (none - every) / 2


def _faith_shapley_single(count: int) -> np.ndarray:
    """Shapley values, minus half of the interactions of all pairs that a segment belongs to."""
    return 4 * _mixed(1, 1, count - 1) - 3 * _mixed(2, 1, count - 1)


INDICES = {
    "k-SII": Index(_k_sii_single, lambda count: _mixed(1, 1, count - 2)),
    "STII": Index(lambda count: _ends(count - 1)[0], lambda count: _mixed(1, 2, count - 2)),
    "Faith-Shapley": Index(_faith_shapley_single, lambda count: _mixed(2, 2, count - 2)),
    "Banzhaf": Index(
        lambda count: _half(count - 1), lambda count: _half(count - 2), efficient=False
    ),
}


def index_sums(
    index: Index, keep: np.ndarray, values: np.ndarray, opposite: np.ndarray | None = None
) -> tuple[Sums, Sums]:
    """Sums what coalitions contribute to the scores of an index, and the squares of that.

    The values of all 2^S coalitions sum to the scores themselves.

    Args:
      index: an interaction index.
      keep: `[N, S]` bool, the coalitions.
      values: `[N, T]`, of the coalitions.
      opposite: `[N, T]`, of the coalitions of all other segments; a coalition contributes together
        with its complement then.
    """
    count = keep.shape[1]
    visible = keep.astype(np.float64)
    singles = _by_overlap(index.single(count), 1, keep, values, opposite)
    pairs = _by_overlap(index.pair(count), 2, keep, values, opposite)
    first, second = (
        Sums(
            _sum_singles(visible, singles**power),
            np.stack([_sum_pairs(visible, each) for each in np.moveaxis(pairs**power, -1, 0)]),
        )
        for power in (1, 2)
    )
    return first, second


def _by_overlap(
    weights: np.ndarray,
    order: int,
    keep: np.ndarray,
    values: np.ndarray,
    opposite: np.ndarray | None,
) -> np.ndarray:
    """Returns what a coalition contributes to segments or pairs that it holds 0, 1, ... of.

    Args:
      weights: of coalitions of others, by their number.
      order: 1 for segments, 2 for pairs.
      keep, values, opposite: as in `index_sums`.

    Returns:
      `[order + 1, N, T]`.
    """
    size, count = keep.sum(axis=1), keep.shape[1]
    found = _signed(weights, order, size)[..., None] * values
    if opposite is not None:
        found += _signed(weights, order, count - size)[::-1, :, None] * opposite
    return found


def _signed(weights: np.ndarray, order: int, size: np.ndarray) -> np.ndarray:
    """Returns the weights `[order + 1, N]` of coalitions of these sizes, by their overlap.

    A coalition that holds `overlap` of them has a value in the synergy within `size - overlap`
    others, with the sign of what is missing.
    """
    padded = np.pad(weights, order)  # sizes that no coalition with this overlap has
    rows = [
        (-1) ** (order - overlap) * padded[size - overlap + order] for overlap in range(order + 1)
    ]
    return np.stack(rows)


def _sum_singles(visible: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Sums over coalitions `[N, S]` what they contribute to each segment, `[T, S]`."""
    without, within = parts
    return within.T @ visible + without.T @ (1 - visible)


def _sum_pairs(visible: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Sums over coalitions `[N, S]` what they contribute to each pair, `[S, S]`, from `[3, N]`."""
    hidden = 1 - visible
    neither, one, both = (part[:, None] for part in parts)
    crossed = visible.T @ (one * hidden)
    sums = visible.T @ (both * visible) + hidden.T @ (neither * hidden) + crossed + crossed.T
    np.fill_diagonal(sums, 0)
    return sums
