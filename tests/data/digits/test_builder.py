"""The tensorflow-datasets builder, without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest

from lmjax.data import DigitScenes, prepare_digit_scenes
from lmjax.data.digits import builder
from lmjax.data.digits.builder import DigitScenesBuilder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Prepared in a process of its own, which says whether TensorFlow was imported."""
    data_dir = tmp_path_factory.mktemp("datasets")
    code = (
        "import sys; from lmjax.data import prepare_digit_scenes\n"
        f"prepare_digit_scenes({str(data_dir)!r}, train_length=6, test_length=4, seed=5)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return data_dir


@pytest.mark.parametrize(("split", "length"), [("train", 6), ("test", 4)])
def test_records_are_the_scenes_in_order(data_dir, split, length):
    builder = prepare_digit_scenes(data_dir, train_length=6, test_length=4, seed=5)
    source = builder.as_data_source(split)
    assert len(source) == length
    for scene, record in zip(DigitScenes(split, length=length, seed=5), source, strict=True):
        assert record["id"].decode() == scene.id
        assert record["photograph"].decode() == scene.photograph
        assert record["label"] == scene.label
        assert np.array_equal(record["image"], scene.image)
        assert np.array_equal(record["object_mask"][..., 0], scene.object_mask)
        assert np.array_equal(record["tight_mask"][..., 0], scene.tight_mask)


def test_files_are_array_records_and_are_not_made_twice(data_dir):
    files = {f: f.stat().st_mtime_ns for f in data_dir.rglob("*.array_record*")}
    assert len(files) == 2
    prepare_digit_scenes(data_dir, train_length=6, test_length=4, seed=5)
    assert {f: f.stat().st_mtime_ns for f in data_dir.rglob("*.array_record*")} == files


def test_cues_are_recorded(tmp_path):
    options = {"seed": 5, "spurious": 0.5, "cue": "colour"}
    builder = prepare_digit_scenes(tmp_path, train_length=1, test_length=2, **options)
    assert builder.builder_config.name == "train1_test2_seed5_colour0.5"
    source = builder.as_data_source("test")
    for scene, record in zip(DigitScenes("test", length=2, **options), source, strict=True):
        assert np.array_equal(record["image"], scene.image)
        assert np.array_equal(record["cue_mask"][..., 0], scene.cue.mask)
        assert record["cue_points_at"] == scene.cue.points_at


def test_bad_dials_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"spurious must be .* got 2"):
        prepare_digit_scenes(tmp_path, spurious=2)
    assert not any(tmp_path.iterdir())


def test_the_builder_of_the_default_lengths_is_the_one_that_is_registered(tmp_path):
    defaults = builder._config(12_000, 2_000, 0)
    made = builder._builder(tmp_path, defaults)
    assert made.builder_config == DigitScenesBuilder.BUILDER_CONFIGS[0] == defaults
    other = builder._config(12_000, 2_000, 1)
    assert builder._builder(tmp_path, other).builder_config == other


def test_lengths_below_one_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="test_length must be a whole number, 1 or more; got 0"):
        prepare_digit_scenes(tmp_path, train_length=1, test_length=0)
