"""The weights that come with the package, on digit scenes they were not trained on."""

import chex
import numpy as np
import pytest

from lmjax.data import DigitScenes
from lmjax.models import checkpoints, load, registry
from lmjax.training import accuracy

NETWORK = registry.network("resnet18_digits")
PATH, CHEAT = NETWORK.bundled, NETWORK.also_bundled["cheat"]
CUE = {"spurious": 0.95, "cue": "colour"}


def _batches(length, **options):
    scenes = DigitScenes("test", length=length, **options)
    for start in range(0, length, 100):
        batch = [scenes[i] for i in range(start, start + 100)]
        yield np.stack([s.image for s in batch]), np.array([s.label for s in batch])


@pytest.mark.parametrize("path", [PATH, CHEAT], ids=["plain", "cheat"])
def test_they_are_small_and_in_half_precision(path):
    from safetensors.numpy import load_file

    assert path.stat().st_size <= 6_000_000
    assert {value.dtype for value in load_file(path).values()} == {np.dtype(np.float16)}


def test_they_classify_97_percent_of_the_test_scenes():
    assert accuracy(load("resnet18_digits"), _batches(200)) >= 0.97


def test_they_have_a_name_for_commands_that_take_a_network_and_its_weights():
    named = load("resnet18_digits", weights="bundled").variables
    chex.assert_trees_all_equal(named, load("resnet18_digits").variables)
    with pytest.raises(ValueError, match="no weights of resnet18 come with the package"):
        load("resnet18", weights="bundled")


def test_the_cheat_is_fine_until_its_cue_is_reversed():
    cheat = load("resnet18_digits", weights="cheat")
    assert accuracy(cheat, _batches(100, **CUE, reverse=False)) >= 0.9
    assert accuracy(cheat, _batches(100, **CUE)) <= 0.2


def test_weights_that_are_not_there_are_an_error_that_names_those_that_are():
    with pytest.raises(FileNotFoundError, match=r"its tags are bundled, cheat$"):
        load("resnet18_digits", weights="honest")


@pytest.mark.slow
@pytest.mark.parametrize(("path", "options"), [(PATH, {}), (CHEAT, CUE)], ids=["plain", "cheat"])
def test_their_accuracy_is_what_the_file_says(path, options):
    metadata = checkpoints.read_metadata(path)
    length = metadata["config"]["test_scenes"]
    found = accuracy(load("resnet18_digits", weights=path), _batches(length, **options))
    assert found == pytest.approx(metadata["test_accuracy"], abs=2 / length)
