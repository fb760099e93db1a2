"""Metrics that judge attributions, and how a network bears missing features."""

from lmjax.metrics.agreement import (
    Estimate,
    bootstrap_mean,
    cosine_similarity,
    kendall,
    spearman,
    ssim,
    top_k_jaccard,
    win_rates,
)
from lmjax.metrics.localisation import (
    alignment,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_iou,
)

__all__ = [
    "Estimate",
    "alignment",
    "bootstrap_mean",
    "cosine_similarity",
    "kendall",
    "pointing_game",
    "relevance_mass_accuracy",
    "relevance_rank_accuracy",
    "spearman",
    "ssim",
    "top_k_iou",
    "top_k_jaccard",
    "win_rates",
]
