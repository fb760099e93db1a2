import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.attribution import hsic
from lmjax.evaluation import Predictor
from lmjax.masks.samplers import half_visible_keep
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
H, W = 12, 9
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
KEY = jax.random.key(3)


def plain_hsic(keep, outputs, width):
    """tr(K H L H) / (n - 1)^2, Gretton et al. 2005, with the kernels of Novello et al. 2022."""
    n = len(keep)
    centre = np.eye(n) - 1 / n
    output_kernel = np.exp(-((outputs[:, None] - outputs[None]) ** 2) / (2 * width**2))
    scores = []
    for column in keep.astype(float).T:
        kernel = 0.5 - (column[:, None] - column[None]) ** 2
        scores.append(np.trace(kernel @ centre @ output_kernel @ centre) / (n - 1) ** 2)
    return np.array(scores)


@pytest.mark.parametrize("removal", [lmjax.Replace("grey"), lmjax.LayerMasking()], ids=repr)
@pytest.mark.parametrize("width", [None, 0.05])
def test_scores_are_those_of_the_formula(removal, width):
    predictor = Predictor(small_classifier((H, W, 3), num_classes=5), removal)
    found = hsic(
        predictor, IMAGE, key=KEY, grid=(3, 4), num_samples=101, target=[3, 1], kernel_width=width
    )
    keep = half_visible_keep(12, 0, 101, key=KEY, block=50)
    logits = np.asarray(predictor(IMAGE, keep[:, found.segments]), np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for scores, target in zip(found.scores, (3, 1)):
        outputs = probabilities[:, target]
        expected = plain_hsic(keep, outputs, np.median(outputs) if width is None else width)
        np.testing.assert_allclose(scores, expected, atol=1e-4 * expected.max())
    assert found.num_variants == 102
    assert (found.scores > -1e-8).all()


def test_segments_are_visible_in_half_of_the_samples_independently():
    keep = half_visible_keep(40, 0, 500, key=KEY, block=50)
    np.testing.assert_array_equal(keep.sum(axis=0), np.full(40, 250))
    correlation = np.corrcoef(keep.T.astype(float))
    assert abs(correlation - np.eye(40)).max() < 0.2


def test_standard_errors_are_those_of_other_keys():
    predictor = Predictor(small_classifier((H, W, 3), num_classes=5), lmjax.LayerMasking())
    options = {"target": 0, "grid": 3, "num_samples": 200}
    runs = [hsic(predictor, IMAGE, key=jax.random.key(i), **options) for i in range(40)]
    spread = np.std([run.scores for run in runs], axis=0, ddof=1)
    claimed = np.mean([run.standard_error for run in runs], axis=0)
    assert 0.8 < np.median(spread / claimed) < 1.25


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_answers_have_no_scores(value):
    def network(image, masks):
        return jnp.full((len(masks), 2), value)

    found = hsic(network, IMAGE, key=KEY, grid=3, num_samples=50, objective="logit")
    np.testing.assert_allclose(found.scores, np.zeros(9), atol=1e-9)


def test_outputs_whose_median_is_zero_still_have_a_width():
    def network(image, masks):
        return jnp.where(masks[:, :1, 0] & masks[:, :1, -1], jnp.ones((1, 2)), jnp.zeros((1, 2)))

    found = hsic(network, IMAGE, key=KEY, grid=3, num_samples=100, objective="logit")
    assert np.isfinite(found.scores).all()
    assert set(np.argsort(found.scores)[-2:]) == {0, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 1}, "num_samples must be a whole number, 2 or more"),
        ({"grid": 10}, "grid must be .* from 1 to 12 and 9 .* got 10"),
        ({"kernel_width": 0.0}, "kernel_width must be .* above 0"),
        ({"segments": np.ones((H, W), int)}, "missing 0"),
    ],
)
def test_bad_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        hsic(lambda image, masks: jnp.ones((len(masks), 2)), IMAGE, key=KEY, **options)
