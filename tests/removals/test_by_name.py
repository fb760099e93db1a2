"""Removals by name."""

import dataclasses

import jax
import numpy as np
import pytest

import lmjax
from lmjax.removals import by_name
from tests.support.small_classifier import small_classifier


@pytest.mark.parametrize("name", [*by_name.NAMES, "layer@2", "no_padding@0", "partial@1"])
def test_every_name_makes_a_removal(name):
    segments = np.arange(48).reshape(8, 6) // 16
    removal = by_name.make(name, key=jax.random.key(0), segments=segments)
    image = np.full((8, 6, 3), 0.5, np.float32)
    logits = lmjax.Predictor(small_classifier(), removal)(image, np.ones((1, 8, 6), bool))
    assert logits.shape == (1, 4)


def test_depths_and_colours():
    assert by_name.make("layer@2") == lmjax.LayerMasking(depth=2)
    assert by_name.make("no_padding@3") == lmjax.LayerMasking(padding="none", depth=3)
    assert by_name.make("partial@1") == lmjax.PartialConvolution(depth=1)
    np.testing.assert_array_equal(by_name.make("green").baseline, [0, 1, 0])
    assert by_name.make("token_dropping") == lmjax.TokenDropping()


def test_masking_is_the_networks_own():
    @dataclasses.dataclass
    class Network:
        masking: object

    for own in (lmjax.TokenDropping(), lmjax.LayerMasking(depth=2)):
        assert lmjax.Predictor(Network(own), by_name.make("masking")).removal is own


def test_titles():
    assert by_name.title("layer@2") == "layer masking, depth 2"
    assert by_name.title("grey_smooth") == "grey smooth"


@pytest.mark.parametrize(
    "name",
    ["blak", "black@2", "masking@2", "token_dropping@2", "layer@", "layer@x", "layer@-1", ""],
)
def test_other_names_are_errors(name):
    with pytest.raises(ValueError, match="removal must be one of"):
        by_name.make(name)
