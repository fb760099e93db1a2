"""The weights that come with the package, on digit scenes they were not trained on."""

import numpy as np
import pytest

from lmjax.data import DigitScenes
from lmjax.models import checkpoints, load, registry
from lmjax.training import accuracy

PATH = registry.network("resnet18_digits").bundled


def _batches(length):
    scenes = DigitScenes("test", length=length)
    for start in range(0, length, 100):
        batch = [scenes[i] for i in range(start, start + 100)]
        yield np.stack([s.image for s in batch]), np.array([s.label for s in batch])


def test_they_are_small_and_in_half_precision():
    from safetensors.numpy import load_file

    assert PATH.stat().st_size <= 6_000_000
    assert {value.dtype for value in load_file(PATH).values()} == {np.dtype(np.float16)}


def test_they_classify_97_percent_of_the_test_scenes():
    assert accuracy(load("resnet18_digits"), _batches(600)) >= 0.97


@pytest.mark.slow
def test_their_accuracy_is_what_the_file_says():
    metadata = checkpoints.read_metadata(PATH)
    length = metadata["config"]["test_scenes"]
    found = accuracy(load("resnet18_digits"), _batches(length))
    assert found >= 0.97
    assert found == pytest.approx(metadata["test_accuracy"], abs=2 / length)
