"""Selecting scenes that a network recognises; the network here knows colours."""

import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.data import CutoutScenes, recognised
from lmjax.models import Preprocessing
from tests.support import stamps as fake

TIGER, LEMON, MUSHROOM, BOLETE = 292, 951, 947, 997


def network(classes=1000):
    """Says lemon where anything is yellow, mushroom where anything is brown, else tench."""

    def apply(params, images):
        red, green, blue = jnp.moveaxis(images, -1, 0)
        yellow = ((red > 0.8) & (green > 0.7) & (blue < 0.3)).sum((1, 2))
        brown = ((red < 0.49) & (green < 0.3) & (blue < 0.2)).sum((1, 2))
        logits = jnp.zeros((len(images), classes)).at[:, 0].set(1)
        if classes < 1000:
            return logits
        return logits.at[:, LEMON].set(1.0 * yellow).at[:, MUSHROOM].set(1.0 * brown)

    seen = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
    return lmjax.models.from_function(apply, {"unused": np.zeros(1)}, preprocessing=seen)


@pytest.fixture
def scenes(tmp_path):
    return CutoutScenes(length=9, stamps=fake.write(tmp_path), backgrounds="grey")


@pytest.mark.parametrize("batch_size", [2, 16])
def test_scenes_of_a_right_class_are_kept_in_order_with_that_class(scenes, batch_size):
    kept = list(recognised(scenes, network(), batch_size=batch_size))
    right = [scene for scene in scenes if "tiger" not in scene.stamp]
    assert [scene.id for scene in kept] == [scene.id for scene in right]
    label = {"lemon": LEMON, "cep": MUSHROOM}  # a cep's first class is another
    assert [scene.label for scene in kept] == [label[s.stamp.split("/")[-1]] for s in right]
    assert all(type(scene.label) is int for scene in kept)
    assert {scene.label for scene in right} == {LEMON, BOLETE}
    np.testing.assert_array_equal(kept[0].object_mask, right[0].object_mask)


def test_scenes_are_made_when_they_are_needed(scenes):
    taken = []

    def watched():
        for scene in scenes:
            taken.append(scene.id)
            yield scene

    next(recognised(watched(), network(), batch_size=3))
    assert len(taken) == 3


def test_networks_of_other_classes_are_an_error(scenes):
    with pytest.raises(ValueError, match="ImageNet's 1000 classes; it has 10"):
        next(recognised(scenes, network(classes=10)))
