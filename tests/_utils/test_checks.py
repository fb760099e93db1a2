"""Numbers that are too large for memory or for 64 bits are refused before work starts."""

import numpy as np
import pytest

from lmjax import studies
from lmjax._utils.checks import LARGEST, check_whole
from lmjax.data import DigitScenes
from lmjax.explanation import ExplanationConfig
from lmjax.models import Preprocessing, load
from lmjax.training import TrainingConfig
from tests.studies import fakes

HUGE = (2**63, 2**64, 10**30)


@pytest.mark.parametrize("value", HUGE)
def test_numbers_of_more_than_64_bits_are_refused(value):
    for name in ("anything", *LARGEST):
        with pytest.raises(ValueError, match=f"{name} must be a whole number from 0 to"):
            check_whole(name, value, least=0)
    assert check_whole("anything", 2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize("name", ["num_samples", "n_segments", "num_classes", "batch_size", "seed"])
def test_explanations_have_limits(name):
    for value in (*HUGE, LARGEST[name] + 1):
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            ExplanationConfig(**{name: value})
    assert getattr(ExplanationConfig(**{name: LARGEST[name]}), name) == LARGEST[name]


@pytest.mark.parametrize("name", ["small_size", "batch_size", "epochs", "seed", "images_per_epoch"])
def test_trainings_have_limits(name):
    for value in HUGE:
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            TrainingConfig(**{name: value})


def test_studies_networks_and_sources_have_limits(tmp_path):
    networks = {"a": fakes.network()}
    with pytest.raises(ValueError, match="seed must be a whole number from 0 to"):
        studies.run(fakes.Brightness(seed=2**63), fakes.Source(2), models=networks, output=tmp_path)
    with pytest.raises(ValueError, match="num_classes must be a whole number from 1 to 100000"):
        load("resnet18_digits", num_classes=10**9)
    for options in ({"length": 2**63}, {"seed": 2**63}):
        with pytest.raises(ValueError, match="must be a whole number from 0 to"):
            DigitScenes("test", **options)


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (2, 500_000)])
def test_pictures_that_would_grow_beyond_memory_are_refused(shape):
    preprocessing = Preprocessing(resize=256, crop=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(ValueError, match=r"shorter side of 256 it would have .* crop it"):
        preprocessing(np.zeros((*shape, 3), np.uint8))
    with pytest.raises(ValueError, match="crop it first"):
        preprocessing.for_mask(np.zeros(shape, bool))
