"""Orders of segments `[S]`: the first is removed (or shown) first."""

from typing import Literal

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_choice, check_flag, check_numbers, check_whole
from lmjax.masks.coalitions import check_memory
from lmjax.masks.samplers import numbered_bits
from lmjax.masks.segments import check_segments

REDUCTIONS = ("mean", "sum")


def random_orders(
    num_segments: int, num_orders: int, *, key: jax.Array, first: int = 0
) -> np.ndarray:
    """Draws orders, all permutations being equally likely.

    Args:
      num_segments: S.
      num_orders: N.
      key: random key; order i depends on the key and on i alone.
      first: number of the first order.

    Returns:
      ints `[N, S]`, a permutation of 0..S-1 in each row.

    Raises:
      ValueError: numbers out of range, or more orders than memory allows.
    """
    num_segments = check_whole("num_segments", num_segments, least=1)
    num_orders = check_whole("num_orders", num_orders, least=1)
    first = check_whole("first", first, least=0, most=2**31)
    check_memory(2 * 12 * num_segments * num_orders, num_segments, num_orders)
    return np.argsort(numbered_bits(num_segments, first, first + num_orders, key=key), axis=1)


def salience_order(
    heatmap: ArrayLike,
    segments: ArrayLike,
    *,
    most_salient_first: bool = True,
    by: Literal["mean", "sum"] = "mean",
) -> np.ndarray:
    """Ranks segments from the most to the least salient, or the reverse.

    Args:
      heatmap: `[H, W]`, higher = more salient.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      most_salient_first: False starts with the least salient.
      by: the score of a segment, the "mean" or the "sum" of its pixels. Sums favour large segments.

    Returns:
      ints `[S]`. Segments of equal score keep the order of their labels, in both directions.

    Raises:
      ValueError: shapes that differ, non-finite heatmaps, or another reduction.
    """
    salience = segment_salience(heatmap, segments, by=by)
    first = check_flag("most_salient_first", most_salient_first)
    return np.argsort(-salience if first else salience, kind="stable")


def segment_salience(
    heatmap: ArrayLike, segments: ArrayLike, *, by: Literal["mean", "sum"] = "mean"
) -> np.ndarray:
    """Reduces a heatmap to its mean or sum over each segment.

    Args:
      heatmap: `[H, W]`.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      by: "mean" or "sum".

    Returns:
      float64 `[S]`.

    Raises:
      ValueError: shapes that differ, non-finite heatmaps, or another reduction.
    """
    heatmap = check_numbers("heatmap", heatmap)
    segments = check_segments(segments)
    if heatmap.shape != segments.shape:
        raise ValueError(
            f"heatmap must be {segments.shape} like segments, got shape {heatmap.shape}; "
            "of several targets, give one: heatmap[i]"
        )
    if not np.isfinite(heatmap).all():
        raise ValueError("heatmap holds NaN or infinity")
    check_choice("by", by, REDUCTIONS)
    labels, values = segments.ravel(), heatmap.ravel()
    if by == "sum":
        return np.bincount(labels, weights=values)
    # Relative to a pixel of each segment: where all pixels are equal, means are exactly that.
    one = np.zeros(labels.max() + 1)
    one[labels] = values
    return one + np.bincount(labels, weights=values - one[labels]) / np.bincount(labels)


def prefixes(orders: ArrayLike) -> np.ndarray:
    """Returns the coalitions between nothing and everything as segments appear in an order.

    Args:
      orders: `[..., S]` ints, a permutation of 0..S-1 in each row.

    Returns:
      bool `[..., S - 1, S]`: the k-th keeps the first k + 1 segments of the order. The empty
      coalition and the full one are left out, as all orders share them.

    Raises:
      ValueError: rows that are not permutations, or more coalitions than memory allows.
    """
    orders = np.asarray(orders)
    size = orders.shape[-1] if orders.ndim else 0
    if size == 0 or (np.sort(orders, axis=-1) != np.arange(size)).any():
        raise ValueError("orders must be [..., S], every row a permutation of 0 to S - 1")
    check_memory(orders.size * size, size, orders.size)
    rank = np.argsort(orders, axis=-1)
    return rank[..., None, :] <= np.arange(size - 1)[:, None]
