import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.attribution import rise
from lmjax.evaluation import Predictor
from lmjax.masks.families import random_grids
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
H, W = 13, 10
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
KEY = jax.random.key(3)
OPTIONS = {"num_samples": 300, "grid": (4, 3), "keep_probability": 0.3}


def predictor(removal):
    return Predictor(small_classifier((H, W, 3), num_classes=5), removal)


SOFT, BINARY = predictor(lmjax.Replace("grey")), predictor(lmjax.LayerMasking())


def answers(network, masks, target):
    logits = np.asarray(network(IMAGE, masks), np.float64)
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[:, target]


def test_soft_masks_give_the_formula_of_the_paper():
    found = rise(SOFT, IMAGE, key=KEY, target=2, **OPTIONS)
    masks = np.asarray(
        random_grids((H, W), 300, key=KEY, grid=(4, 3), keep_probability=0.3, soft=True).masks()
    )
    assert ((masks > 0) & (masks < 1)).mean() > 0.5
    terms = answers(SOFT, masks, 2)[:, None, None] * masks / 0.3
    np.testing.assert_allclose(found.scores, terms.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        found.standard_error, terms.std(axis=0, ddof=1) / np.sqrt(300), rtol=1e-4
    )
    assert found.num_variants == 301


@pytest.mark.parametrize("network", [BINARY, SOFT], ids=["layer masking", "replace"])
def test_binary_masks_give_the_mean_over_variants_that_show_a_pixel(network):
    found = rise(network, IMAGE, key=KEY, target=2, soft=False, **OPTIONS)
    masks = np.asarray(
        random_grids((H, W), 300, key=KEY, grid=(4, 3), keep_probability=0.3).masks()
    )
    values = answers(network, masks, 2)
    for row, column in np.ndindex(H, W):
        shown = values[masks[:, row, column]]
        error = shown.std(ddof=1) / np.sqrt(len(shown))
        np.testing.assert_allclose(found.scores[row, column], shown.mean(), rtol=1e-5)
        np.testing.assert_allclose(found.standard_error[row, column], error, rtol=1e-3)


def test_masks_are_soft_where_the_predictor_takes_them():
    for network, soft in ((SOFT, True), (BINARY, False), (lambda i, m: BINARY(i, m), False)):
        expected = rise(network, IMAGE, key=KEY, soft=soft, **OPTIONS)
        found = rise(network, IMAGE, key=KEY, **OPTIONS)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_standard_errors_are_those_of_other_keys():
    for network in (SOFT, BINARY):
        runs = [rise(network, IMAGE, key=jax.random.key(i), target=0, **OPTIONS) for i in range(40)]
        spread = np.std([run.scores for run in runs], axis=0, ddof=1)
        claimed = np.mean([run.standard_error for run in runs], axis=0)
        assert 0.8 < np.median(spread / claimed) < 1.25


def test_a_pixel_that_is_never_shown_has_the_mean_and_says_so():
    def network(image, masks):
        return jnp.stack([masks.mean(axis=(1, 2)), jnp.ones(len(masks))], axis=1)

    found = rise(
        network, IMAGE, key=KEY, target=0, num_samples=2, grid=(13, 10), keep_probability=0.2
    )
    hidden = ~np.isfinite(found.standard_error)
    assert hidden.any()
    assert not hidden.all()
    assert np.isfinite(found.scores).all()
    assert len(np.unique(found.scores[hidden])) >= 1


def test_defaults_are_those_of_the_paper():
    def network(image, masks):
        return jnp.ones((len(masks), 2))

    found = rise(network, np.zeros((28, 28, 1), np.float32), key=KEY)
    assert found.num_variants == 4001
    np.testing.assert_allclose(found.scores, 0.5)  # constant answers, and what they are
    np.testing.assert_array_equal(found.standard_error, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 1}, "num_samples must be a whole number, 2 or more"),
        ({"grid": 11}, "grid must be .* from 1 to 13 and 10 .* got 11"),
        ({"keep_probability": 0.0}, "keep_probability must be .* above 0"),
    ],
)
def test_bad_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        rise(SOFT, IMAGE, key=KEY, **options)


def test_soft_masks_under_layer_masking_are_an_error():
    with pytest.raises(ValueError, match="takes only 0 and 1"):
        rise(BINARY, IMAGE, key=KEY, soft=True, **OPTIONS)
