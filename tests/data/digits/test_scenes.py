"""Digit scenes without cues: what a scene promises, the same every time and everywhere."""

import hashlib
import operator
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lmjax.data.digits.scenes import (
    SIZE,
    TRAIN_PHOTOGRAPHS,
    UNSEEN_PHOTOGRAPHS,
    DigitScenes,
    Scene,
    _digits,
    scans,
)

ARRAYS = ("image", "object_mask", "tight_mask", "background")


@pytest.fixture(scope="module", params=["train", "test"])
def scenes(request) -> list[Scene]:
    return list(DigitScenes(request.param, length=300))


def _digest(scene: Scene) -> str:
    content = b"".join(getattr(scene, name).tobytes() for name in ARRAYS)
    return hashlib.sha256(content).hexdigest()


def test_shapes_types_and_ids(scenes):
    assert len({s.id for s in scenes}) == len(scenes)
    for scene in scenes:
        assert scene.image.shape == scene.background.shape == (SIZE, SIZE, 3)
        assert scene.image.dtype == scene.background.dtype == np.uint8
        assert scene.object_mask.shape == scene.tight_mask.shape == (SIZE, SIZE)
        assert scene.object_mask.dtype == scene.tight_mask.dtype == bool
        assert type(scene.label) is int


def test_scans_are_those_of_scikit_learn():
    ink, labels = _digits()
    digits = load_digits()
    np.testing.assert_array_equal(ink, digits.images)
    np.testing.assert_array_equal(labels, digits.target)


def test_labels_are_those_of_the_scans(scenes):
    target = load_digits().target
    assert [s.label for s in scenes] == [target[s.scan] for s in scenes]
    assert {s.label for s in scenes} == set(range(10))


def test_outside_the_object_mask_the_photograph_is_untouched(scenes):
    for scene in scenes:
        outside = ~scene.object_mask
        assert np.array_equal(scene.image[outside], scene.background[outside])


def test_the_digit_shows_and_its_edge_is_soft(scenes):
    for scene in scenes:
        change = np.abs(scene.image.astype(int) - scene.background).max(axis=-1)
        assert np.all(scene.object_mask[scene.tight_mask])
        rim = scene.object_mask & ~scene.tight_mask
        assert scene.tight_mask.sum() > 100
        assert rim.sum() > 50
        # Half opaque or more: another colour than the photograph's nearly everywhere.
        assert (change[scene.tight_mask] > 8).mean() > 0.6
        # A mask cut at half opacity would leave some of the digit behind.
        assert (change[rim] > 0).mean() > 0.5


def test_digits_stand_out_in_luminance(scenes):
    weights = np.array([0.299, 0.587, 0.114])
    contrast = [
        abs(((s.image - s.background.astype(float))[s.tight_mask] @ weights).mean()) / 255
        for s in scenes
    ]
    assert min(contrast) > 0.1
    assert np.mean(contrast) > 0.3


def test_digits_lie_inside_the_picture_and_have_the_sizes_promised(scenes):
    heights = []
    for scene in scenes:
        rows = np.flatnonzero(scene.tight_mask.any(axis=1))
        heights.append(rows[-1] - rows[0] + 1)
    # A scan is 44-88 pixels high, and digits fill nearly all of its height.
    assert 30 < min(heights) < 50
    assert 70 < max(heights) < 100


def test_backgrounds_are_windows_of_the_photograph():
    from importlib import resources

    from PIL import Image

    with Image.open(resources.files("skimage.data") / "chelsea.png") as image:
        photograph = np.asarray(image.convert("RGB"))
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (SIZE, SIZE, 3))[:, :, 0]
    cats = (s for s in DigitScenes("train", length=500) if s.photograph == "chelsea.png")
    found = 0
    for scene in (next(cats) for _ in range(3)):
        for background in (scene.background, scene.background[:, ::-1]):
            starts = np.argwhere((windows[:, :, 0, 0] == background[0, 0]).all(axis=-1))
            found += any(np.array_equal(windows[y, x], background) for y, x in starts)
    assert found == 3


def test_train_and_test_share_no_scan_and_use_them_all():
    train, test = set(scans("train").tolist()), set(scans("test").tolist())
    assert not train & test
    assert train | test == set(range(1797))
    assert {s.scan for s in DigitScenes("train", length=200)} <= train
    assert {s.scan for s in DigitScenes("test", length=200)} <= test


def test_some_test_photographs_are_never_trained_on():
    assert not set(TRAIN_PHOTOGRAPHS) & set(UNSEEN_PHOTOGRAPHS)
    train = {s.photograph for s in DigitScenes("train", length=300)}
    test = [s.photograph for s in DigitScenes("test", length=300)]
    assert train == set(TRAIN_PHOTOGRAPHS)
    assert set(test) == set(TRAIN_PHOTOGRAPHS + UNSEEN_PHOTOGRAPHS)
    assert 0.15 < np.mean([name in UNSEEN_PHOTOGRAPHS for name in test]) < 0.35


def test_a_scene_depends_on_seed_split_and_index_alone():
    reference = [_digest(s) for s in DigitScenes("test", length=5, seed=7)]
    assert [_digest(DigitScenes("test", length=99, seed=7)[i]) for i in (4, 3, 2, 1, 0)] == (
        reference[::-1]
    )
    others = [*DigitScenes("test", length=5, seed=8), *DigitScenes("train", length=5, seed=7)]
    assert not set(reference) & {_digest(s) for s in others}


def test_another_process_makes_the_same_scenes():
    code = (
        "from tests.data.digits.test_scenes import _digest\n"
        "from lmjax.data import DigitScenes\n"
        "print(*map(_digest, DigitScenes('train', length=3, seed=11)))"
    )
    root = Path(__file__).parents[3]
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert there.stdout.split() == [_digest(s) for s in DigitScenes("train", length=3, seed=11)]


def test_scenes_are_those_that_the_bundled_weights_were_trained_on():
    # Not to the last bit, which JPEG decoders may choose.
    scenes = list(DigitScenes("test", length=3))
    assert [s.label for s in scenes] == [8, 4, 9]
    assert [s.photograph for s in scenes] == ["ihc.png", "retina.jpg", "ihc.png"]
    assert [s.object_mask.sum() for s in scenes] == pytest.approx([1497, 1996, 3472], abs=3)


def test_sequence_protocol():
    scenes = DigitScenes("train", length=4, seed=2)
    assert len(scenes) == 4
    assert [s.id for s in scenes] == [f"digit_scenes/train/2/{i}" for i in range(4)]
    assert scenes[-1].id == scenes[np.int64(3)].id == "digit_scenes/train/2/3"
    assert DigitScenes.class_names == tuple("0123456789")


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_out_of_range_is_an_error(index):
    with pytest.raises(IndexError, match=f"index is {index}; this DigitScenes has 4 scenes"):
        DigitScenes("train", length=4)[index]


def test_an_index_that_is_no_integer_is_an_error():
    with pytest.raises(TypeError):
        operator.getitem(DigitScenes("train", length=4), 1.0)


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("validation", {}, "split must be one of train, test; got 'validation'"),
        ("train", {"length": -1}, "length must be .* 0 or more; got -1"),
        ("train", {"seed": -1}, "seed must be .* 0 or more; got -1"),
    ],
)
def test_bad_arguments_are_named(split, options, message):
    with pytest.raises(ValueError, match=message):
        DigitScenes(split, **options)
