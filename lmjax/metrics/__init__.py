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
from lmjax.metrics.localisation import relevance_rank_accuracy

__all__ = [
    "Estimate",
    "bootstrap_mean",
    "cosine_similarity",
    "kendall",
    "relevance_rank_accuracy",
    "spearman",
    "ssim",
    "top_k_jaccard",
    "win_rates",
]
