"""Metrics of attributions, and of a network's robustness to missing parts.

Those that ask a predictor take several images as attributions do, with a heatmap for each.
"""

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
from lmjax.metrics.complexity import entropy_complexity, sparseness
from lmjax.metrics.curves import Curve, deletion, insertion
from lmjax.metrics.fidelity import (
    SensitivityN,
    infidelity,
    mu_fidelity,
    necessity,
    sensitivity_n,
    sufficiency,
)
from lmjax.metrics.in_domain import FFidelity, f_fidelity, idsds
from lmjax.metrics.localisation import (
    alignment,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_iou,
)
from lmjax.metrics.missingness import (
    accuracy,
    class_entropy,
    class_similarity,
    unchanged_predictions,
    wordnet_similarity,
)
from lmjax.metrics.occlusion import (
    occlusion_area,
    r_oms,
    relevance_gain,
    symmetric_relevance_gain,
)
from lmjax.metrics.randomisation import Randomisation, efficient_mprt, mprt
from lmjax.metrics.regions import aopc, area_between, irof, region_perturbation, top_k_ablation
from lmjax.metrics.robustness import local_lipschitz, max_sensitivity, random_logit

__all__ = [
    "Curve",
    "Estimate",
    "FFidelity",
    "Randomisation",
    "SensitivityN",
    "accuracy",
    "alignment",
    "aopc",
    "area_between",
    "bootstrap_mean",
    "class_entropy",
    "class_similarity",
    "cosine_similarity",
    "deletion",
    "efficient_mprt",
    "entropy_complexity",
    "f_fidelity",
    "idsds",
    "infidelity",
    "insertion",
    "irof",
    "kendall",
    "local_lipschitz",
    "max_sensitivity",
    "mprt",
    "mu_fidelity",
    "necessity",
    "occlusion_area",
    "pointing_game",
    "r_oms",
    "random_logit",
    "region_perturbation",
    "relevance_gain",
    "relevance_mass_accuracy",
    "relevance_rank_accuracy",
    "sensitivity_n",
    "sparseness",
    "spearman",
    "ssim",
    "sufficiency",
    "symmetric_relevance_gain",
    "top_k_ablation",
    "top_k_iou",
    "top_k_jaccard",
    "unchanged_predictions",
    "win_rates",
    "wordnet_similarity",
]
