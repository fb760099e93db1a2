"""Metrics that judge attributions."""

from lmjax.metrics.localisation import relevance_rank_accuracy

__all__ = ["relevance_rank_accuracy"]
