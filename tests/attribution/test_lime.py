import importlib.util
import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances

from lmjax.attribution import Surrogate, lime, lime_regression
from lmjax.attribution.surrogate import _forward_selection, _weights
from lmjax.evaluation import Evaluator, Predictor
from lmjax.masks import random_keep, segments
from lmjax.removals.replace import Replace
from tests.support.segment_networks import shares
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
H, W = 12, 15
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
SEGMENTS = segments.grid(IMAGE, size=3)  # 20 segments
S = 20
KEY = jax.random.key(7)


def kernel(distance, width=0.25):
    return np.sqrt(np.exp(-(distance**2) / width**2))


def predictor(removal=None):
    classifier = small_classifier((H, W, 3), num_classes=5)
    return Predictor(classifier, removal or Replace("grey"))


def samples(num_samples=1000, num_segments=S):
    keep = np.array(random_keep(num_segments, num_samples, key=jax.random.key(1)))
    keep[5] = False  # also the empty coalition
    hidden = RNG.normal(size=(num_segments, 3))
    outputs = 1 / (1 + np.exp(-(keep @ hidden) + (keep[:, :1] & keep[:, 1:2]))) * [[1, 1e-3, 100]]
    return keep, outputs.astype(np.float32)


# -- the regression


def cross_validated(keep, outputs, weight, alpha=1.0):
    """R^2 of predictions for samples that were left out, one at a time."""
    outputs, left, total = outputs.astype(float), 0.0, 0.0
    for i in range(len(keep)):
        rest = np.arange(len(keep)) != i
        ridge = Ridge(alpha=alpha).fit(keep[rest], outputs[rest], weight[rest])
        left += weight[i] * (outputs[i] - ridge.predict(keep[i : i + 1])[0]) ** 2
        total += weight[i] * (outputs[i] - np.average(outputs[rest], weights=weight[rest])) ** 2
    return 1 - left / total


def test_regression_agrees_with_the_lime_package():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lime.lime_base import LimeBase
    keep, outputs = samples()
    distances = pairwise_distances(keep.astype(float), np.ones((1, S)), metric="cosine").ravel()
    scores, intercept, _ = lime_regression(keep, outputs)
    for target in range(outputs.shape[1]):
        expected_intercept, features, _, _ = LimeBase(kernel).explain_instance_with_data(
            keep.astype(float), outputs, distances, target, num_features=S
        )
        expected = np.array([weight for _, weight in sorted(features)])
        scale = abs(expected).max()
        np.testing.assert_allclose(scores[target], expected, atol=1e-4 * scale)
        np.testing.assert_allclose(intercept[target], expected_intercept, atol=1e-4 * scale)


def lime_package(keep, outputs, target, distances, **options):
    """Scores `[S]`, 0 for segments left out, and intercept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lime.lime_base import LimeBase

        intercept, features, _, _ = LimeBase(options.pop("kernel")).explain_instance_with_data(
            keep.astype(float), outputs, distances, target, **options
        )
    scores = np.zeros(keep.shape[1])
    scores[[feature for feature, _ in features]] = [weight for _, weight in features]
    return scores, intercept


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    ("selection", "number"),
    [
        ("highest_weights", 7),
        ("forward_selection", 5),
        ("lasso_path", 6),
        ("lasso_path", 1),
        ("highest_weights", 99),
    ],
)
def test_selection_and_distance_agree_with_the_lime_package(selection, number, distance):
    effects = RNG.normal(size=S) * np.arange(1, S + 1) / S

    def network(image, masks):
        shown = shares(SEGMENTS, masks)
        value = shown @ jnp.asarray(effects, jnp.float32) + shown[:, 0] * shown[:, 19]
        return jnp.stack([value, -(value**2)], axis=1)

    width = {"cosine": 0.25, "euclidean": 0.75 * np.sqrt(S)}[distance]
    found = lime(
        network,
        IMAGE,
        SEGMENTS,
        key=KEY,
        num_samples=200,
        target=(1, 0),
        objective="logit",
        surrogate=Surrogate(selection=selection, num_features=number, distance=distance),
    )
    keep = np.asarray(random_keep(S, 200, key=KEY))
    outputs = np.asarray(network(IMAGE, keep[:, SEGMENTS]))
    distances = pairwise_distances(keep.astype(float), np.ones((1, S)), metric=distance).ravel()
    for row, target in enumerate((1, 0)):
        scores, intercept = lime_package(
            keep,
            outputs,
            target,
            distances,
            kernel=lambda d: kernel(d, width),
            num_features=number,
            feature_selection=selection,
        )
        assert (scores != 0).sum() <= number
        np.testing.assert_array_equal(found.scores[row] != 0, scores != 0)
        np.testing.assert_allclose(found.scores[row], scores, atol=1e-4 * abs(scores).max())
        np.testing.assert_allclose(found.intercept[row], intercept, atol=1e-4 * abs(scores).max())
    # Of the last target: a regression for each sample takes long.
    left_out = cross_validated(keep[:, scores != 0], outputs[:, target], kernel(distances, width))
    np.testing.assert_allclose(found.r2[row], left_out, atol=1e-3)


def test_a_lasso_without_scikit_learn_is_refused_before_anything_is_evaluated(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'lasso_path' needs scikit-learn.*lmjax\[lasso\]"):
        Surrogate(selection="lasso_path", num_features=3)


def test_selections_of_constant_answers_are_finite():
    def network(image, masks):
        return jnp.ones((len(masks), 2))

    for selection in ("highest_weights", "forward_selection", "lasso_path"):
        surrogate = Surrogate(selection=selection, num_features=3)
        found = lime(network, IMAGE, SEGMENTS, key=KEY, num_samples=200, surrogate=surrogate)
        np.testing.assert_array_equal(found.scores, np.zeros(S))


def test_forward_selection_survives_segments_that_are_the_same():
    x = RNG.normal(size=(50, 3))
    x = np.c_[x, x[:, 0], np.zeros(50)]  # one again, and one that never varies
    chosen = _forward_selection(x, x[:, 0] + 0.1 * x[:, 1], 5)
    assert sorted(chosen) == [0, 1, 2, 3, 4]
    assert chosen[:2] == [0, 1]


def test_standard_errors_are_those_of_other_keys():
    network = predictor()
    runs = [
        lime(network, IMAGE, SEGMENTS, key=jax.random.key(i), num_samples=200, target=0)
        for i in range(30)
    ]
    spread = np.std([run.scores for run in runs], axis=0, ddof=1)
    claimed = np.mean([run.standard_error for run in runs], axis=0)
    assert 0.8 < np.median(spread / claimed) < 1.25


def test_standard_errors_of_a_selection_count_the_segments_of_the_regression():
    keep, outputs = samples(60, 50)
    surrogate = Surrogate(selection="highest_weights", num_features=5, alpha=1e-6)
    found = surrogate.fit(keep, outputs)
    for target in range(outputs.shape[1]):
        chosen = np.flatnonzero(found.scores[target])
        weight = np.asarray(_weights(keep, 0.25, "cosine"), float)
        x = np.c_[np.ones(60), keep[:, chosen]]
        inverse = np.linalg.inv(x.T @ (weight[:, None] * x))
        residual = outputs[:, target] - x @ inverse @ x.T @ (weight * outputs[:, target])
        influence = inverse @ x.T * weight
        expected = np.sqrt((influence**2 @ residual**2) * 60 / (60 - 6))[1:]
        np.testing.assert_allclose(found.standard_error[target, chosen], expected, rtol=1e-3)


def test_errors_of_fewer_samples_than_unknowns_are_not_known():
    keep, outputs = samples(20, 30)
    assert np.isnan(Surrogate().fit(keep, outputs).standard_error).all()


@pytest.mark.parametrize(
    ("num_samples", "num_segments", "width", "alpha"),
    [(1000, 20, 0.25, 1.0), (200, 60, 0.1, 1.0), (50, 80, 0.25, 0.1), (3000, 10, 1.0, 1e-3)],
)
def test_regression_agrees_with_scikit_learns_ridge(num_samples, num_segments, width, alpha):
    keep, outputs = samples(num_samples, num_segments)
    distances = pairwise_distances(
        keep.astype(float), np.ones((1, num_segments)), metric="cosine"
    ).ravel()
    weight = kernel(distances, width)
    scores, intercept, r2 = lime_regression(keep, outputs, kernel_width=width, alpha=alpha)
    for target in range(outputs.shape[1]):
        ridge = Ridge(alpha=alpha).fit(keep, outputs[:, target].astype(float), weight)
        scale = abs(ridge.coef_).max()
        np.testing.assert_allclose(scores[target], ridge.coef_, atol=1e-4 * scale)
        np.testing.assert_allclose(intercept[target], ridge.intercept_, atol=1e-4 * scale)
        if num_samples < num_segments + 2:
            assert np.isnan(r2[target])
        elif num_samples <= 200 and target == 0:  # a regression for each sample takes long
            expected = cross_validated(keep, outputs[:, target], weight, alpha)
            np.testing.assert_allclose(r2[target], expected, atol=1e-3)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_the_default_width_is_that_of_lime(distance):
    keep, outputs = samples()
    found = lime_regression(keep, outputs, distance=distance)
    width = Surrogate(distance=distance)._width(keep.shape[1])
    expected = lime_regression(keep, outputs, distance=distance, kernel_width=width)
    np.testing.assert_array_equal(found[0], expected[0])
    assert abs(found[0]).max() > 0
    with pytest.raises(ValueError, match=r"kernel_width must be larger: at 0\.001 the weights"):
        lime_regression(keep[1:], outputs[1:], distance=distance, kernel_width=0.001)


def test_one_target_is_a_column_of_several():
    keep, outputs = samples()
    together = lime_regression(keep, outputs)
    alone = jax.jit(lime_regression)(keep, outputs[:, 1])
    for one, several in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, several[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.3, 1e4])
def test_constant_outputs_have_no_scores_and_no_fit(value):
    keep, _ = samples()
    scores, intercept, r2 = lime_regression(keep, np.full(len(keep), value, np.float32))
    np.testing.assert_array_equal(scores, np.zeros(S))
    np.testing.assert_allclose(intercept, value)
    assert np.isnan(r2)


# -- the attribution


def linear_predictor(coefficients):
    """Logits linear in the visible pixels: each segment's true score is the sum of its pixels."""
    coefficients = jnp.asarray(coefficients)

    def predict(image, masks):
        return jnp.einsum("nhw,hwk->nk", masks.astype(jnp.float32), coefficients) + 0.5

    return predict


def test_a_linear_network_is_recovered():
    coefficients = RNG.normal(size=(H, W, 4)).astype(np.float32)
    truth = np.stack([coefficients[label == SEGMENTS].sum(axis=0) for label in range(S)])
    found = lime(
        linear_predictor(coefficients),
        IMAGE,
        SEGMENTS,
        key=KEY,
        target=range(4),
        surrogate=Surrogate(alpha=1e-5),
        objective="logit",
    )
    np.testing.assert_allclose(found.scores, truth.T, atol=2e-4)
    np.testing.assert_allclose(found.intercept, 0.5, atol=2e-4)
    np.testing.assert_allclose(found.r2, 1, atol=1e-5)


def test_it_is_the_regression_on_its_own_coalitions():
    network = predictor()
    found = lime(network, IMAGE, SEGMENTS, key=KEY, num_samples=200, target=2)
    keep = np.asarray(random_keep(S, 200, key=KEY))
    logits = np.asarray(network(IMAGE, keep[:, SEGMENTS]), np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weight = kernel(1 - np.sqrt(keep.mean(axis=1)))
    ridge = Ridge(alpha=1.0).fit(keep, probabilities[:, 2], weight)
    scale = abs(ridge.coef_).max()
    np.testing.assert_allclose(found.scores, ridge.coef_, atol=1e-3 * scale)
    expected = cross_validated(keep, probabilities[:, 2], weight)
    np.testing.assert_allclose(found.r2, expected, atol=1e-3)
    np.testing.assert_allclose(found.probability, probabilities[0, 2], atol=1e-5)
    np.testing.assert_allclose(found.predicted_probability, probabilities[0].max(), atol=1e-5)
    assert found.predicted_class == logits[0].argmax()
    assert found.num_variants == 200
    assert found.target == 2


def test_no_target_explains_the_predicted_class():
    network = predictor()
    found = lime(network, IMAGE, SEGMENTS, key=KEY, num_samples=200)
    assert found.target == found.predicted_class
    assert found.probability == found.predicted_probability
    same = lime(network, IMAGE, SEGMENTS, key=KEY, num_samples=200, target=found.target)
    np.testing.assert_array_equal(found.scores, same.scores)


def test_several_targets_equal_one_by_one():
    network = predictor()
    together = lime(network, IMAGE, SEGMENTS, key=KEY, num_samples=200, target=(3, 0))
    assert together.scores.shape == (2, S)
    assert together.target == (3, 0)
    for row, target in enumerate((3, 0)):
        alone = lime(network, IMAGE, SEGMENTS, key=KEY, num_samples=200, target=target)
        for name in ("scores", "intercept", "r2", "probability", "heatmap"):
            several = getattr(together, name)[row]
            np.testing.assert_allclose(getattr(alone, name), several, rtol=1e-4, atol=1e-6)


def test_heatmap_paints_scores_on_segments():
    found = lime(predictor(), IMAGE, SEGMENTS, key=KEY, num_samples=200)
    assert found.heatmap.shape == (H, W)
    for row, column in np.ndindex(H, W):
        assert found.heatmap[row, column] == found.scores[SEGMENTS[row, column]]


def test_the_batch_size_does_not_change_scores():
    network = predictor()
    scores = [
        lime(evaluator, IMAGE, SEGMENTS, key=KEY, num_samples=200).scores
        for evaluator in (Evaluator(network, batch_size=size) for size in (None, 7, 64))
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores[2], scores[0], rtol=1e-4, atol=1e-6)


def test_same_key_same_scores_and_another_key_others():
    network = predictor()
    one, same, other = (
        lime(network, IMAGE, SEGMENTS, key=jax.random.key(seed), num_samples=200).scores
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert abs(one - other).max() > 1e-4


def test_the_network_is_traced_once_with_and_without_a_target():
    network = predictor()
    for target in (None, 1, [0, 4]):
        lime(network, IMAGE, SEGMENTS, key=KEY, num_samples=200, target=target)
    assert len(network.classifier.traces) == 1


def test_one_segment_and_an_attribution_as_a_pytree():
    found = lime(predictor(), IMAGE, np.zeros((H, W), int), key=KEY, num_samples=50)
    assert found.scores.shape == (1,)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, found)
    np.testing.assert_array_equal(doubled.scores, 2 * found.scores)
    assert doubled.target == found.target


def test_few_samples_warn_and_say_how_many_are_needed():
    with pytest.warns(UserWarning, match=r"199 samples for 20 segments .* num_samples=200"):
        lime(predictor(), IMAGE, SEGMENTS, key=KEY, num_samples=199)


# -- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 5}, "target must be from 0 to 4, the network has 5 classes; got 5"),
        ({"target": [0, -1]}, "got -1"),
        (
            {"objective": "odds"},
            "objective must be one of probability, logit, margin, a function",
        ),
        ({"num_samples": 1}, "num_samples must be .* 2 or more .the whole image .* got 1"),
        ({"num_samples": 0}, "num_samples must be a whole number, 2 or more"),
        ({"keep_probability": 1.5}, "keep_probability"),
        ({"segments": SEGMENTS + 1}, "missing 0"),
        ({"segments": SEGMENTS.T}, "like the image"),
        ({"image": IMAGE[..., 0]}, r"image must be \[H, W, C\]"),
        ({"image": np.full_like(IMAGE, np.nan)}, "visible pixels"),
    ],
)
def test_bad_input_is_an_error(options, message):
    arguments = {"predictor": predictor(), "image": IMAGE, "segments": SEGMENTS, "key": KEY}
    with pytest.raises(ValueError, match=message):
        lime(**{**arguments, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be .* above 0"),
        ({"kernel_width": -1.0}, "kernel_width must be .* above 0"),
        ({"kernel_width": np.nan}, "kernel_width must be .* above 0"),
        ({"distance": "jaccard"}, "distance must be one of cosine, euclidean; got 'jaccard'"),
        ({"selection": "auto", "num_features": 3}, "selection must be one of none, highest"),
        ({"selection": "lasso_path"}, "num_features and a selection .* go together"),
        ({"num_features": 3}, "num_features and a selection .* go together"),
        (
            {"selection": "lasso_path", "num_features": 0},
            "num_features must be a whole number, 1 or more",
        ),
    ],
)
def test_a_surrogate_of_bad_options_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        Surrogate(**options)


def test_a_bad_target_is_found_before_the_run(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("evaluated")

    monkeypatch.setattr(Evaluator, "__call__", never)
    with pytest.raises(ValueError, match="target must be"):
        lime(predictor(), IMAGE, SEGMENTS, key=KEY, target=99)


def test_a_network_that_answers_nan_is_an_error():
    def broken(image, masks):
        empty = masks.mean(axis=(1, 2)) < 0.5
        return jnp.where(empty[:, None], jnp.nan, jnp.ones((1, 3)))

    with pytest.raises(ValueError, match=r"NaN or infinity for \d+ of 200 variants"):
        lime(broken, IMAGE, SEGMENTS, key=KEY, num_samples=200)


def test_more_segments_than_memory_allows_is_an_error(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    image = np.zeros((224, 224, 3), np.float32)
    pixels = np.arange(224 * 224).reshape(224, 224)
    with pytest.raises(ValueError, match=r"50,176 segments .* need about 31\.0 GB .* 1\.0 GB"):
        lime(predictor(), image, pixels, key=KEY)


@pytest.mark.parametrize(("count", "segments"), [(1000, 30), (300, 100), (60, 256), (31, 30)])
def test_noise_is_not_explained(count, segments):
    """On its own samples the fit to noise has an R^2 of up to .998."""
    keep = np.random.default_rng(0).random((count, segments)) < 0.5
    noise = np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32)
    r2 = np.asarray(lime_regression(keep, noise, alpha=1e-3)[2])
    if count < segments + 2:
        assert np.isnan(r2).all()
    else:
        assert (r2 < 0).all()


def test_outputs_that_vary_by_rounding_have_no_fit():
    keep, _ = samples()
    noise = np.random.default_rng(0).normal(size=len(keep)) * 1e-9
    assert np.isnan(lime_regression(keep, (0.5 + noise).astype(np.float32))[2])
