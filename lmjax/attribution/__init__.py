"""Attributions: which parts of an image a prediction depends on."""

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.banzhaf import banzhaf
from lmjax.attribution.kernelshap import kernelshap
from lmjax.attribution.lime import lime, lime_regression
from lmjax.attribution.running import stable_ranking
from lmjax.attribution.shapley import exact_shapley, permutation_shapley

__all__ = [
    "Attribution",
    "banzhaf",
    "exact_shapley",
    "kernelshap",
    "lime",
    "lime_regression",
    "permutation_shapley",
    "stable_ranking",
]
