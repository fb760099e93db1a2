"""Arguments that fuzzing found to end in errors of other libraries, by kind."""

import numpy as np
import pytest

from lmjax.attribution import methods
from tests.support import public_calls

REFUSED = [
    ("attribution", "lime", {"surrogate": 3}, "surrogate must be a lmjax.attribution.Surrogate"),
    ("attribution", "meaningful_perturbation", {"penalty": "a"}, "penalty must be a lmjax"),
    ("attribution", "integrated_gradients", {"steps": 2**31}, "steps must be a .* from 1 to 1000"),
    ("attribution", "stable_ranking", {"errors": np.ones(3)}, "scores and standard errors must be"),
    ("attribution", "lime_regression", {"kernel_width": 2**63}, None),
    ("attribution", "lime_regression", {"kernel_width": 0}, "kernel_width must be a finite number"),
    ("attribution", "lime_regression", {"outputs": np.ones(3)}, "keep must be .N, S. and outputs"),
    ("evaluation", "Evaluator.images", {"expected": "x"}, "expected must be a whole number"),
    ("evaluation", "Evaluator.images", {"masks": np.ones((3, 0, 4), bool)}, "images with pixels"),
    ("evaluation", "compare_engines", {"tolerance": None}, "tolerance must be a finite number"),
    ("evaluation", "calibrate", {"ridge": 2**63}, None),
    ("evaluation", "resolve_target", {"logits": "a"}, "logits must be real numbers; got 'a'"),
    ("masking", "neighbor_padding", {"rings": 1.5}, "rings must be a whole number, 0 or more"),
    ("masking", "neighbor_padding", {"x": [1, 2]}, "x must be .N, H, W, C. and mask"),
    ("masking", "neighbor_padding", {"mask": np.ones((3, 8, 6), np.int8)}, "mask bools"),
    ("masks", "all_coalitions", {"num_segments": 2**31}, "num_segments must be a .* from 1 to 40"),
    ("masks", "complement_pairs", {"keep": np.ones(3, bool)}, "keep must be bool"),
    ("masks", "bernoulli_keep", {"first": 2**32}, "first must be a whole number from 0 to"),
    ("masks", "segment_salience", {"heatmap": "@"}, "heatmap must be real numbers; got '@'"),
    ("metrics", "f_fidelity", {"sizes": {0.1}}, "sizes must be real numbers"),
    ("metrics", "necessity", {"budgets": "a"}, "budgets must be real numbers"),
    ("metrics", "sensitivity_n", {"sizes": 2.5}, "sizes must be a whole number"),
    ("removals", "title", {"name": None}, "removal must be a name, got None"),
    ("removals", "check_fits", {"own": 3}, "own must be a network's masking"),
    ("attribution.methods", "pairs", {"removals": 3}, "removals must be a mapping"),
    ("attribution.methods", "check_methods", {"chosen": np.ones(2)}, "method must be one or more"),
    ("attribution.methods", "check_samples", {"num_segments": "nan"}, "num_segments must be"),
    ("attribution.methods", "check_methods", {"chosen": [["lime"]]}, "method must be one of"),
    ("attribution", "sobol", {"key": 0}, "key must be a random key"),
    ("masking", "layer_mask", {"params": "<b>"}, "params must be arrays, in any pytree"),
    ("masks", "shapley_keep", {"smallest": np.float32(1)}, None),
    ("removals", "make(ring)", {"image": np.ones((8, 6, 6), np.float32)}, "mean must have shape"),
    ("segments", "cells", {"shape": (3, [4, 5])}, "shape must be a whole number or two"),
    ("attribution", "banzhaf", {"num_samples": "7"}, "num_samples must be a whole number"),
    ("attribution", "extremal_perturbation", {"areas": None}, "areas must be real numbers"),
    ("attribution", "lime_regression", {"outputs": np.full(30, np.nan)}, "outputs hold NaN"),
    ("attribution", "lime_regression", {"outputs": np.arange(30) % 2 == 0}, None),
    ("attribution", "stable_ranking", {"scores": "a"}, "scores must be real numbers"),
    ("evaluation", "Evaluator.images", {"images": np.full((2, 8, 6, 3), "a")}, "hold numbers"),
    ("masks", "quasi_random", {"first": 2**31}, "need about .* GB of memory"),
    ("attribution.methods", "check_samples", {"num_segments": 2**63}, "from 1 to 100000"),
    ("segments", "make", {"image": [[[0.5]]]}, None),
    ("segments", "check_segments", {"shape": (8,)}, "segments must be .8, 8. like the image"),
    ("metrics", "max_sensitivity", {"explain": 3}, "explain must be a function .image. -> heatmap"),
    ("metrics", "local_lipschitz", {"explain": "a"}, "explain must be a function"),
    ("metrics", "random_logit", {"explain": {}}, "explain must be a function .target. -> heatmap"),
    ("metrics", "random_logit", {"similarity": None}, "similarity must be a function"),
    ("metrics", "mprt", {"explain": 2.5}, "explain must be a function .classifier. -> heatmap"),
    ("metrics", "mprt", {"similarity": 3}, "similarity must be a function"),
    ("metrics", "efficient_mprt", {"explain": 3}, "explain must be a function"),
    ("metrics", "efficient_mprt", {"draw": 3}, "draw must be a function .key, array. -> array"),
    ("attribution.methods", "check_budget", {"num_segments": 2**63}, "from 1 to 100000"),
    ("attribution.methods", "new_name", {"name": {}}, None),
    ("masks", "Coalitions", {"keep": np.full((2, 12), "a")}, "keep must be bool or numbers"),
    ("attribution", "extremal_perturbation", {"step": 2**31 - 1}, "step must be a whole number"),
    ("attribution", "extremal_perturbation", {"sigma": 2.0**31}, "sigma must be a finite number"),
    ("attribution", "extremal_perturbation", {"mirror": np.nan}, "mirror must be True or False"),
    ("attribution", "sobol", {"soft": np.nan}, "soft must be True or False; got nan"),
    ("attribution", "rise", {"soft": "yes"}, "soft must be True or False; got 'yes'"),
    ("attribution", "permutation_shapley", {"antithetic": np.nan}, "antithetic must be True or"),
    ("metrics", "infidelity", {"rescale": np.nan}, "rescale must be True or False"),
    ("masks", "random_keep", {"first_all_visible": "a"}, "first_all_visible must be True or"),
    ("evaluation", "Evaluator.images", {"images": np.full((2, 8, 6, 3), np.nan)}, r"images\[0\] h"),
    ("attribution", "expected_gradients", {"baselines": "xx"}, "baselines must be real numbers"),
    ("removals", "calibrated", {"logits": "a\nb"}, "logits must be real numbers"),
    ("masking", "neighbor_padding", {"x": b"a"}, "x must be .N, H, W, C. and mask"),
    ("masking", "neighbor_padding", {"mask": "a"}, "x must be .N, H, W, C. and mask"),
    ("attribution", "meaningful_perturbation", {"jitter": 2**31 - 1}, "jitter must be a whole"),
    ("evaluation", "resolve_target", {"logits": np.zeros(0)}, r"one or more; got \[\]"),
    ("metrics", "necessity", {"budgets": [1e-30, 9e18, 1e30] * 9}, r"^[^\n]*got \[1e-30[^\n]*$"),
    ("metrics", "efficient_mprt", {"num_bins": 2**31}, "num_bins must be a .* from 2 to 1000000"),
    ("masking", "neighbor_padding", {"rings": np.float32(2)}, None),
    ("masking", "neighbor_padding", {"rings": 2**31}, None),
    ("attribution", "ablationcam", {"halves": np.array([[len], [len]])}, r"^[^\n]*$"),
    ("removals", "calibrated", {"removal": np.nan}, "removal must be a name, lmjax"),
    ("masking", "layer_mask", {"images": np.full((3, 8, 6, 3), None)}, "floating point .* object"),
    ("metrics", "ssim", {"window": 1}, "window must be a whole number from 3 to 6"),
    ("metrics", "ssim", {"window": np.float32(3)}, None),
    ("metrics", "ssim", {"first": np.ones((2, 2))}, "3 x 3 or larger"),
    ("segments", "make", {"name": {}}, "must be one of .*; got {}"),
    ("segments", "cells", {"shape": (2**32, 3)}, "shape must be of at most 268435456 pixels"),
    ("segments", "contours", {"heatmap": np.full((8, 6), "a")}, "heatmap must be real numbers"),
    ("attribution", "lime_regression", {"keep": np.full((30, 12), "a")}, "keep must be real"),
    ("attribution", "lime_regression", {"keep": np.full((30, 12), 0.5)}, "keep must hold only 0"),
    ("attribution", "lime_regression", {"outputs": np.arange(30.0).tolist()}, None),
    ("removals", "make(segment_mean)", {"segments": np.full((8, 6), "a")}, "must hold ints from 0"),
    ("metrics", "class_similarity", {"similarity": "--"}, "similarity must be real numbers"),
    ("attribution", "integrated_gradients", {"baseline": "a b"}, "baseline must be real numbers"),
    ("attribution", "meaningful_perturbation", {"smooth": 2**32}, None),
    ("metrics", "sensitivity_n", {"sizes": []}, "sizes must be one or more"),
    ("removals", "make(image_mean)", {"image": np.full((8, 6, 3), np.inf)}, "reads hidden"),
]


@pytest.mark.parametrize(("module", "name", "changed", "message"), REFUSED)
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_they_are_refused_by_name_or_taken(module, name, changed, message):
    call = public_calls.calls(module)[name]
    if message is None:
        call(**changed)
        return
    with pytest.raises(ValueError, match=message):
        call(**changed)


def test_the_fewest_samples_are_known_before_anything_runs():
    assert methods.check_samples(("rise", "gradient"), 60, 12) == {"rise": 60, "gradient": None}
