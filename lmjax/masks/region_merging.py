"""Hierarchical merging of neighbouring regions, the most similar pair first."""

import numpy as np


def merge_regions(
    features: np.ndarray, sizes: np.ndarray, adjacent: np.ndarray, *, num_groups: int
) -> np.ndarray:
    """Merges neighbours by Ward's criterion until `num_groups` groups are left.

    Each step merges the two neighbours whose union adds least to the sum of squared distances from
    the groups' means, n m / (n + m) |f - g|^2. Groups for a smaller number are therefore unions of
    those for a larger one.

    Args:
      features: `[S, D]`, each region's mean.
      sizes: `[S]`, weight of each region.
      adjacent: `[S, S]` bool, symmetric: which regions may merge.
      num_groups: when to stop; merging stops earlier where no neighbours are left.

    Returns:
      ints `[S]`: each region's group, named by the lowest region in it.

    References:
      Ward 1963, "Hierarchical grouping to optimize an objective function", JASA 58.
    """
    features, sizes = features.astype(np.float64), sizes.astype(np.float64)
    adjacent = adjacent & ~np.eye(len(sizes), dtype=bool)
    group = np.arange(len(sizes))
    costs = np.stack([_costs(i, features, sizes, adjacent) for i in range(len(sizes))])
    for _ in range(len(sizes) - num_groups):
        kept, gone = sorted(map(int, np.unravel_index(costs.argmin(), costs.shape)))
        if not np.isfinite(costs[kept, gone]):
            break
        weights = sizes[[kept, gone]]
        features[kept] = weights @ features[[kept, gone]] / weights.sum()
        sizes[kept] = weights.sum()
        adjacent[kept] |= adjacent[gone]
        adjacent[:, kept] |= adjacent[:, gone]
        adjacent[gone] = adjacent[:, gone] = adjacent[kept, kept] = False
        costs[gone] = costs[:, gone] = np.inf
        costs[kept] = costs[:, kept] = _costs(kept, features, sizes, adjacent)
        group[group == gone] = kept
    return group


def _costs(
    region: int, features: np.ndarray, sizes: np.ndarray, adjacent: np.ndarray
) -> np.ndarray:
    """Returns the cost of merging a region with each other one, `[S]`; inf unless adjacent."""
    squared = ((features - features[region]) ** 2).sum(axis=1)
    cost = sizes * sizes[region] / (sizes + sizes[region]) * squared
    return np.where(adjacent[region], cost, np.inf)
