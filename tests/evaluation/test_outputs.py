"""What is read off logits."""

import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.evaluation.outputs import predicted_classes, probabilities
from lmjax.metrics import top_k_ablation

IMAGE = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
SEGMENTS = np.repeat(np.arange(4), 2)[:, None] + np.zeros((1, 8), int)


def one_logit(image, masks):
    """The mean of what is visible, as a logit from -3 to 3."""
    return (6 * (image[None] * masks[..., None]).mean((1, 2, 3)) - 3)[:, None]


def test_one_logit_is_a_sigmoid():
    """Softmax over one logit is always 1."""
    logits = jnp.array([[-2.0], [0.0], [5.0]])
    expected = 1 / (1 + np.exp(-np.asarray(logits)))
    np.testing.assert_allclose(probabilities(logits), expected, rtol=1e-6)
    two = jnp.concatenate([logits, jnp.zeros_like(logits)], axis=1)
    np.testing.assert_allclose(probabilities(two)[:, :1], probabilities(logits), rtol=1e-6)


def test_one_logit_is_explained():
    found = lmjax.attribution.leave_one_out(one_logit, IMAGE, SEGMENTS)
    p = 1 / (1 + np.exp(3 - 6 * IMAGE.mean()))
    np.testing.assert_allclose(found.probability, p, rtol=1e-5)
    assert (found.scores > 0.01).all()


def test_deletion_of_one_logit_falls():
    curve = lmjax.metrics.deletion(one_logit, IMAGE, np.arange(4.0), segments=SEGMENTS)
    assert (np.diff(curve.values) < 0).all()
    np.testing.assert_allclose(curve.values[-1], 1 / (1 + np.exp(3)), rtol=1e-5)


def test_predicted_classes():
    np.testing.assert_array_equal(predicted_classes(np.eye(3)[[2, 0]]), [2, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_predicts_nothing(bad):
    logits = np.zeros((4, 3))
    logits[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinity for 1 of 4 variants"):
        predicted_classes(logits)
    with pytest.raises(ValueError, match="NaN or infinity for 5 of 5 variants"):
        top_k_ablation(
            lambda image, masks: jnp.full((len(masks), 3), bad), IMAGE, np.arange(4.0), SEGMENTS
        )


def test_one_logit_predicts_no_class():
    with pytest.raises(ValueError, match="predicted classes need two logits"):
        top_k_ablation(one_logit, IMAGE, np.arange(4.0), SEGMENTS)
