"""The debugging aid that names the layer where engines part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.evaluation import compare_engines, programs
from lmjax.masking.sparse import rows
from tests.evaluation.test_engines import IMAGE, random_masks, random_predictor

PAIRS = [("bottleneck", "visible"), ("concatenated", "shared")]


@pytest.mark.parametrize(("kind", "engine"), PAIRS)
def test_engines_that_agree_part_nowhere(kind, engine):
    predictor = random_predictor(kind, lmjax.LayerMasking())
    found = compare_engines(predictor, IMAGE, random_masks(7), engine=engine)
    assert found.layer is None
    assert found.logits_error < 1e-5
    assert len(found.errors) > 10
    assert max(found.errors.values()) < 1e-5


def test_the_first_layer_that_is_wrong_is_named(monkeypatch):
    """A wrong sum over windows shows first in the first convolution that fills rings of rows."""
    right = rows._read_sum

    def wrong(x, read):
        total, count = right(x, read)
        return total + jnp.ones((), x.dtype), count

    monkeypatch.setattr(rows, "_read_sum", wrong)
    programs._visible_call.clear_cache()
    predictor = random_predictor("bottleneck", lmjax.LayerMasking())
    found = compare_engines(predictor, IMAGE, random_masks(7))
    assert found.layer == "layer1.0/conv2"
    assert found.logits_error > 1e-4
    before = list(found.errors)[: list(found.errors).index("layer1.0/conv2")]
    assert before
    assert max(found.errors[name] for name in before) < 1e-5
    programs._visible_call.clear_cache()


def test_engines_that_the_predictor_lacks_are_an_error():
    predictor = random_predictor("basic", lmjax.Replace("grey"))
    with pytest.raises(ValueError, match="engine 'visible' needs an lmjax"):
        compare_engines(predictor, IMAGE, np.ones((1, *IMAGE.shape[:2]), bool))
    with pytest.raises(ValueError, match="engine must be one of visible, shared"):
        compare_engines(predictor, IMAGE, np.ones((1, *IMAGE.shape[:2]), bool), engine="dense")


def test_networks_whose_layers_are_not_known():
    params = {"kernel": np.ones((3, 3, 3, 2), np.float32), "head": np.eye(2, 4, dtype=np.float32)}

    def network(params, images):
        y = jax.lax.conv_general_dilated(
            images, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.matmul(y.mean((1, 2)), params["head"])

    size = IMAGE.shape[0]
    predictor = lmjax.Predictor(lmjax.models.from_function(network, params, image_size=size))
    square = np.resize(IMAGE, (size, size, 3))
    with pytest.raises(ValueError, match=r"Flax Linen.*only the logits can, which differ by"):
        compare_engines(predictor, square, np.ones((1, size, size), bool))
