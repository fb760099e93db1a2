"""Attributions: which parts of an image a prediction depends on.

All take one image `[H, W, C]`, or several `[B, H, W, C]` (or a list, where sizes differ), whose
variants are evaluated together; they return a list then. Segments, random key and a sequence of
targets then have an entry for each image, or one for all (`lmjax.evaluation.many_images`).
"""

from typing import TYPE_CHECKING

from lmjax._utils.lazy import attach
from lmjax.attribution.ablationcam import ablationcam
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.banzhaf import banzhaf
from lmjax.attribution.expected_gradients import expected_gradients
from lmjax.attribution.extremal_perturbation import extremal_perturbation
from lmjax.attribution.fullgrad import fullgrad
from lmjax.attribution.gradcam import gradcam, gradcam_plus_plus, hirescam, layercam
from lmjax.attribution.gradients import (
    gradient,
    gradient_times_input,
    integrated_gradients,
    smoothgrad,
)
from lmjax.attribution.hsic import hsic
from lmjax.attribution.interactions import Interactions, interactions
from lmjax.attribution.kernelshap import kernelshap
from lmjax.attribution.lime import lime
from lmjax.attribution.meaningful_perturbation import MaskPenalty, meaningful_perturbation
from lmjax.attribution.occlusion import leave_one_in, leave_one_out, occlusion
from lmjax.attribution.rise import rise
from lmjax.attribution.scorecam import scorecam
from lmjax.attribution.shapley import exact_shapley, permutation_shapley
from lmjax.attribution.sobol import sobol
from lmjax.attribution.stopping import stable_ranking
from lmjax.attribution.surrogate import Surrogate, lime_regression

if TYPE_CHECKING:
    from lmjax.attribution import methods as methods

__getattr__, _, _ = attach(__name__, {"methods": "lmjax.attribution.methods"})

__all__ = [
    "Attribution",
    "Interactions",
    "MaskPenalty",
    "Surrogate",
    "ablationcam",
    "banzhaf",
    "exact_shapley",
    "expected_gradients",
    "extremal_perturbation",
    "fullgrad",
    "gradcam",
    "gradcam_plus_plus",
    "gradient",
    "gradient_times_input",
    "hirescam",
    "hsic",
    "integrated_gradients",
    "interactions",
    "kernelshap",
    "layercam",
    "leave_one_in",
    "leave_one_out",
    "lime",
    "lime_regression",
    "meaningful_perturbation",
    "methods",
    "occlusion",
    "permutation_shapley",
    "rise",
    "scorecam",
    "smoothgrad",
    "sobol",
    "stable_ranking",
]
