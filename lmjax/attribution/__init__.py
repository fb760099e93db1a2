"""Attributions: which parts of an image a prediction depends on."""

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.banzhaf import banzhaf
from lmjax.attribution.gradients import (
    gradcam,
    gradient,
    gradient_times_input,
    integrated_gradients,
    smoothgrad,
)
from lmjax.attribution.hsic import hsic
from lmjax.attribution.kernelshap import kernelshap
from lmjax.attribution.lime import lime, lime_regression
from lmjax.attribution.occlusion import leave_one_in, leave_one_out, occlusion
from lmjax.attribution.optimised_mask import extremal_perturbation, meaningful_perturbation
from lmjax.attribution.rise import rise
from lmjax.attribution.sampling import stable_ranking
from lmjax.attribution.shapley import exact_shapley, permutation_shapley
from lmjax.attribution.sobol import sobol

__all__ = [
    "Attribution",
    "banzhaf",
    "exact_shapley",
    "extremal_perturbation",
    "gradcam",
    "gradient",
    "gradient_times_input",
    "hsic",
    "integrated_gradients",
    "kernelshap",
    "leave_one_in",
    "leave_one_out",
    "lime",
    "lime_regression",
    "meaningful_perturbation",
    "occlusion",
    "permutation_shapley",
    "rise",
    "smoothgrad",
    "sobol",
    "stable_ranking",
]
