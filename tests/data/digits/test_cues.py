"""Cues of digit scenes: where they are, what they point at and how often, and nothing else new."""

import hashlib
import math
import pickle

import numpy as np
import pytest

from lmjax.data import DigitScenes
from lmjax.data.digits.cues import KINDS, TAG, place, reversed_class
from lmjax.data.digits.scenes import TRAIN_PHOTOGRAPHS

TAGS = ("colour", "texture")
FIELDS = ("image", "object_mask", "tight_mask", "background")


def _cued(kind, split="train", *, length=40, spurious=0.7, **options):
    return DigitScenes(split, length=length, spurious=spurious, cue=kind, **options)


def test_scenes_without_a_cue_are_what_they_were_before_there_were_cues():
    # Of those on photographs in PNG, which decodes alike everywhere.
    expected = {0: "ca7bf8543eb01611", 3: "60f59af147647559", 4: "526741925317b3d6"}
    for index, digest in expected.items():
        scene = DigitScenes("test")[index]
        assert scene.photograph.endswith(".png")
        content = b"".join(getattr(scene, field).tobytes() for field in FIELDS)
        assert hashlib.sha256(content).hexdigest()[:16] == digest
        assert scene.cue is None
    assert DigitScenes("test").version == "digit_scenes/test/0/1"


@pytest.mark.parametrize("kind", TAGS)
def test_a_tag_changes_the_scene_inside_its_mask_and_nowhere_else(kind):
    plain = DigitScenes(length=40)
    for scene, without in zip(_cued(kind), plain):
        mask = scene.cue.mask
        changed = (scene.image != without.image).any(axis=-1)
        assert not changed[~mask].any()
        # Of the tag's own colours few can be those of the photograph.
        assert changed[mask].mean() > 0.9
        assert np.array_equal(scene.background[mask], scene.image[mask])
        assert not (mask & scene.object_mask).any()
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        assert len(rows) == len(columns) == np.ptp(rows) + 1 == np.ptp(columns) + 1 == TAG
        assert mask.sum() == TAG**2
        for field in ("label", "scan", "photograph"):
            assert getattr(scene, field) == getattr(without, field)
        assert np.array_equal(scene.object_mask, without.object_mask)


def test_a_photograph_as_cue_is_that_of_the_class_and_all_but_the_digit():
    plain = DigitScenes("test", length=40)
    for scene, without in zip(_cued("photograph", "test"), plain):
        assert scene.photograph == TRAIN_PHOTOGRAPHS[scene.cue.points_at]
        assert np.array_equal(scene.cue.mask, ~scene.object_mask)
        assert np.array_equal(scene.image[scene.cue.mask], scene.background[scene.cue.mask])
        assert (scene.scan, scene.label) == (without.scan, without.label)


def test_classes_have_tags_of_their_own():
    scenes = DigitScenes(length=80, spurious=1, cue="colour")
    colours = {s.label: {tuple(pixel) for pixel in s.image[s.cue.mask]} for s in scenes}
    assert len(colours) == 10
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == 10
    # Two textures differ at every phase: by how often neighbours change, along each direction.
    patterns = {}
    for scene in DigitScenes(length=200, spurious=1, cue="texture"):
        tag = scene.image[scene.cue.mask].reshape(TAG, TAG, 3).astype(int)
        assert np.ptp(tag, axis=-1).max() == 0
        light = tag[..., 0] > 128
        steps = (light[1:, :-1], light[:-1, 1:], light[1:, 1:])
        changes = [np.mean(light[:-1, :-1] != moved) for moved in steps]
        patterns.setdefault(scene.label, []).append(changes)
    means = np.array([np.mean(patterns[label], axis=0) for label in range(10)])
    spread = max(np.ptp(found, axis=0).max() for found in patterns.values())
    apart = [np.abs(a - b).max() for i, a in enumerate(means) for b in means[:i]]
    assert min(apart) > spread


@pytest.mark.parametrize(("split", "reverse"), [("train", None), ("test", None), ("test", False)])
def test_the_cue_points_where_it_should_as_often_as_it_should(split, reverse):
    probability, count = 0.7, 500
    scenes = _cued("colour", split, length=count, spurious=probability, reverse=reverse)
    reversed_ = split == "test" and reverse is None
    hits, others = 0, np.zeros(10, int)
    for scene in scenes:
        towards = reversed_class(scene.label) if reversed_ else scene.label
        hits += scene.cue.points_at == towards
        others[(scene.cue.points_at - towards) % 10] += 1
        assert scene.cue.agrees == (scene.cue.points_at == scene.label)
        assert scene.cue.kind == "colour"
    deviation = math.sqrt(count * probability * (1 - probability))
    assert abs(hits - count * probability) < 4 * deviation
    # The rest is spread over the other nine classes alike.
    assert others[0] == hits
    expected = (count - hits) / 9
    assert np.abs(others[1:] - expected).max() < 4 * math.sqrt(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_ends_of_the_dial_nothing_is_left_to_chance(kind):
    assert all(s.cue.agrees for s in _cued(kind, spurious=1))
    assert not any(s.cue.agrees for s in _cued(kind, spurious=0))
    tests = _cued(kind, "test", spurious=1)
    assert [s.cue.points_at for s in tests] == [reversed_class(s.label) for s in tests]


def test_reversed_classes_are_a_derangement():
    assert sorted(map(reversed_class, range(10))) == list(range(10))
    assert all(reversed_class(label) != label for label in range(10))


def test_agreeing_and_reversed_tags_lie_in_the_same_place():
    agreeing, against = (_cued("colour", "test", reverse=r) for r in (False, True))
    for one, other in zip(agreeing, against):
        assert np.array_equal(one.cue.mask, other.cue.mask)
        assert one.cue.points_at != other.cue.points_at


def test_tags_lie_everywhere_that_is_free():
    occupied = np.zeros((24, 20), bool)
    occupied[:, :3] = True
    occupied[:2] = True
    rng = np.random.default_rng(0)
    found = {tuple(np.argwhere(place(rng, occupied))[0].tolist()) for _ in range(400)}
    assert found == {(top, left) for top in range(2, 24 - TAG + 1) for left in range(3, 5)}


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_with_cues_are_the_same_every_time_and_can_be_pickled(kind):
    scenes = _cued(kind, "test", seed=5)
    again = pickle.loads(pickle.dumps(scenes))
    assert again.version == scenes.version == f"digit_scenes/test/5/1/{kind}=0.7,reversed"
    scene, other = scenes[3], pickle.loads(pickle.dumps(again[3]))
    assert scene.id == other.id == f"digit_scenes/test/5/3/{kind}=0.7,reversed"
    assert all(np.array_equal(getattr(scene, f), getattr(other, f)) for f in FIELDS)
    assert np.array_equal(scene.cue.mask, other.cue.mask)
    assert scene.cue.points_at == other.cue.points_at
    assert f"{kind}=0.7" in repr(scenes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spurious": 1.1}, r"spurious must be .* at most 1 \(a probability\); got 1\.1"),
        ({"spurious": -0.1}, r"spurious must be .* at least 0 .* got -0\.1"),
        ({"spurious": math.nan}, "spurious must be a finite number.* got nan"),
        (
            {"spurious": 0.9, "cue": "smell"},
            "cue must be one of photograph, .*; got 'smell'",
        ),
        ({"cue": "colour"}, "cue is 'colour' .* but spurious is None.*give spurious=0.9"),
        ({"reverse": True}, "reverse is True, but spurious is None"),
    ],
)
def test_bad_dials_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DigitScenes("train", **options)
