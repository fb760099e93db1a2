"""Cut-out scenes: what they show, what their masks say, and that they stay what they are."""

import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from lmjax.data import CutoutScenes, imagenet_classes
from lmjax.data.cutouts import backgrounds, stamps
from lmjax.data.cutouts.classes import CLASSES
from lmjax.models import Preprocessing
from tests.support import stamps as fake


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("cutouts")
    return fake.write(root / "stamps"), fake.write_photographs(root / "photographs")


@pytest.fixture(scope="module")
def scenes(files):
    return CutoutScenes(length=12, stamps=files[0], backgrounds=files[1])


def test_images_differ_from_their_backgrounds_on_the_object_alone(scenes):
    for scene in scenes:
        assert scene.image.shape == scene.background.shape == (256, 256, 3)
        assert scene.image.dtype == np.uint8
        changed = (scene.image != scene.background).any(axis=-1)
        assert not (changed & ~scene.object_mask).any()
        assert (changed & scene.object_mask).sum() > 0.9 * scene.object_mask.sum()
        assert (scene.tight_mask <= scene.object_mask).all()
        assert 0 < scene.tight_mask.sum() < scene.object_mask.sum()


def test_opacity_mixes_both(tmp_path):
    path = tmp_path / f"{fake.NAMES[0]}.png"
    path.parent.mkdir(parents=True)
    pixels = np.full((64, 64, 4), (200, 100, 0, 51), np.uint8)  # a fifth
    pixels[:, 32:, 3] = 255
    Image.fromarray(pixels).save(path)
    scene = CutoutScenes(length=1, stamps=tmp_path, backgrounds="grey")[0]
    rows, columns = (np.flatnonzero(scene.object_mask.any(axis=axis)) for axis in (1, 0))
    row = scene.image[rows[len(rows) // 2], columns]
    np.testing.assert_array_equal(row[2], [142, 122, 102])  # 128 + (colour - 128) / 5
    np.testing.assert_array_equal(row[-3], [200, 100, 0])
    tight = np.flatnonzero(scene.tight_mask.any(axis=0))
    assert abs(len(tight) - len(columns) / 2) <= 2
    assert tight[-1] == columns[-1]


@pytest.mark.parametrize(("low", "high"), [(0.35, 0.6), (0.7, 1.0)])
def test_cut_outs_have_the_size_and_place_that_networks_see(files, low, high):
    given = {} if low < 0.5 else {"sides": (low, high)}  # the lower ones are the default
    sides = []
    for scene in CutoutScenes(length=90, stamps=files[0], backgrounds="white", **given):
        rows, columns = (np.flatnonzero(scene.object_mask.any(axis=axis)) for axis in (1, 0))
        assert min(rows[0], columns[0]) >= 16
        assert max(rows[-1], columns[-1]) < 240
        sides.append(max(np.ptp(rows), np.ptp(columns)) + 1)
    assert low - 0.02 <= min(sides) / 224 < low + 0.03  # the softest edge rounds to nothing
    assert high - 0.03 < max(sides) / 224 <= high + 0.01


def test_networks_see_the_middle_unchanged(scenes):
    seen = Preprocessing(resize=256, crop=224)
    middle = slice(16, 240), slice(16, 240)
    np.testing.assert_array_equal(seen(scenes[0].image) * 255, scenes[0].image[middle])
    np.testing.assert_array_equal(
        seen.for_mask(scenes[0].object_mask), scenes[0].object_mask[middle]
    )


def test_scenes_go_through_the_stamps_in_turn(scenes):
    assert sorted(scenes.stamps) == sorted(fake.NAMES)
    assert [scene.stamp for scene in scenes] == [*scenes.stamps] * 4
    assert scenes[4].id == f"cutout_scenes/{scenes.stamps[1]}/1/0"
    names = {each.index: each.name for each in imagenet_classes()}
    assert [names[scene.label] for scene in scenes] == [CLASSES[s.stamp][0] for s in scenes]
    cep = next(scene for scene in scenes if scene.stamp == "plants/mushrooms/cep")
    assert [names[each] for each in cep.classes] == ["bolete", "mushroom"]


def test_scenes_do_not_depend_on_length_or_on_other_stamps(files, scenes, tmp_path):
    longer = CutoutScenes(length=50, stamps=files[0], backgrounds=files[1])
    np.testing.assert_array_equal(longer[5].image, scenes[5].image)
    alone = tmp_path / f"{scenes.stamps[2]}.png"
    alone.parent.mkdir(parents=True)
    alone.write_bytes((files[0] / f"{scenes.stamps[2]}.png").read_bytes())
    (other,) = CutoutScenes(length=1, stamps=tmp_path, backgrounds=files[1])
    assert other.id == scenes[2].id
    np.testing.assert_array_equal(other.image, scenes[2].image)


def test_cut_outs_are_the_same_on_every_background(files, scenes):
    grey, white = (
        CutoutScenes(length=12, stamps=files[0], backgrounds=kind) for kind in ("grey", "white")
    )
    assert {(grey[i].photograph, white[i].photograph) for i in range(12)} == {("grey", "white")}
    assert {scene.photograph for scene in scenes} == {"a.png", "b.png"}
    for i in range(12):
        np.testing.assert_array_equal(grey[i].object_mask, scenes[i].object_mask)
        np.testing.assert_array_equal(white[i].tight_mask, scenes[i].tight_mask)
        assert set(grey[i].image[~grey[i].object_mask].ravel()) == {128}
        assert set(white[i].background.ravel()) == {255}


def test_seeds_and_sizes_make_other_scenes(files, scenes):
    other = CutoutScenes(length=12, seed=1, size=64, stamps=files[0], backgrounds=files[1])
    assert other[0].image.shape == (64, 64, 3)
    assert other[0].id != scenes[0].id
    assert (other[0].object_mask != scenes[0].object_mask[::4, ::4]).any()
    assert other.version != scenes.version


def test_versions_tell_files_apart(files, tmp_path):
    given = {"stamps": fake.write(tmp_path / "stamps"), "backgrounds": "grey"}
    before = CutoutScenes(**given).version
    assert CutoutScenes(length=3, **given).version == before
    assert before.startswith("cutout_scenes/grey/0/256/1/")
    assert CutoutScenes(sides=[0.35, 0.6], **given).version == before
    large = CutoutScenes(sides=(0.7, 1), **given).version
    assert large.startswith("cutout_scenes/grey/0/256/0.7-1/1/")
    (given["stamps"] / f"{fake.NAMES[1]}.png").unlink()
    assert CutoutScenes(**given).version != before
    assert CutoutScenes(stamps=files[0], backgrounds="white").version != before


def test_scenes_stay_what_they_are(files):
    """Their bits as first published: Pillow and NumPy promise as much."""
    digest = hashlib.sha256()
    for scene in CutoutScenes(length=6, stamps=files[0], backgrounds=files[1]):
        digest.update(scene.image.tobytes() + scene.object_mask.tobytes())
    assert digest.hexdigest()[:16] == "f7a57cf05e229285"


def test_the_table_is_sorted_and_names_classes_that_there_are():
    names = {each.name for each in imagenet_classes()}
    assert list(CLASSES) == sorted(CLASSES, key=str.lower)
    for stamp, classes in CLASSES.items():
        assert classes, stamp
        assert set(classes) <= names, stamp
        assert len(set(classes)) == len(classes), stamp
    number = {each.name: each.index for each in imagenet_classes()}
    assert stamps.labels()["animals/mammals/cats/tiger"] == (number["tiger"],)


@pytest.mark.skipif(not os.path.isdir(stamps.FOLDER), reason="tuxpaint-stamps-default")
def test_the_package_has_all_stamps_of_the_table():
    found = stamps.find()
    assert set(found) == set(CLASSES)
    for name, path in found.items():
        opacity = stamps.enlarge(path, 40)[..., 3]
        assert (opacity >= 128).sum() > 40, name


def test_photographs_are_those_of_the_packages_and_wallpapers_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(backgrounds, "WALLPAPERS_FOLDER", str(tmp_path))
    packaged = set(backgrounds.find())
    assert packaged >= {"brick.png", "gravel.png", "china.jpg"}
    (tmp_path / "mate" / "nature").mkdir(parents=True)
    Image.new("RGB", (40, 30), "green").save(tmp_path / "mate/nature/Dune.jpg")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "mate/nature/LadyBird.jpg")
    assert set(backgrounds.find()) - packaged == {"mate/nature/Dune.jpg"}


def test_crops_are_squares_of_the_photograph(tmp_path):
    rows = np.arange(200, dtype=np.uint8)[:, None, None]
    Image.fromarray(np.tile(rows, (1, 300, 3))).save(tmp_path / "ramp.png")
    for number in range(8):
        crop = backgrounds.crop(
            str(tmp_path / "ramp.png"), np.random.Generator(np.random.PCG64(number)), 64
        )
        assert crop.shape == (64, 64, 3)
        span = int(crop[-1, 0, 0]) - int(crop[0, 0, 0])
        assert 75 <= span <= 200  # 0.4 to 1 of the height
        assert (crop == crop[:, :1]).all()


def test_no_stamps_is_an_error_that_says_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setattr(stamps, "FOLDER", str(tmp_path / "none"))
    with pytest.raises(
        ValueError, match=r"none: there is no such folder.*apt-get install tuxpaint-stamps-default"
    ):
        CutoutScenes()
    (tmp_path / "others").mkdir()
    Image.fromarray(fake.disc(9, 9, 0)).save(tmp_path / "others" / "unicorn.png")
    with pytest.raises(ValueError, match=r"it has none of the 1\d\d known ones, such as animals/"):
        CutoutScenes(stamps=tmp_path / "others")


def _cut_off(path):
    path.write_bytes(path.read_bytes()[:200])


def _no_picture(path):
    path.write_text("no picture")


def _opaque(path):
    Image.new("RGB", (60, 60)).save(path)


def _invisible(path):
    Image.new("RGBA", (60, 60)).save(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut_off, "cannot be read"),
        (_no_picture, "no picture of a kind that is read"),
        (_opaque, "it has no opacity"),
        (_invisible, "transparent all over"),
    ],
)
def test_a_damaged_stamp_is_an_error_of_its_scenes_alone(tmp_path, damage, message):
    scenes = CutoutScenes(length=3, stamps=fake.write(tmp_path), backgrounds="grey")
    damage(tmp_path / f"{scenes.stamps[1]}.png")
    assert scenes[0].object_mask.any()
    with pytest.raises(ValueError, match=rf"{scenes.stamps[1]}.png.*{message}"):
        scenes[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": -1}, "length must be a whole number, 0 or more; got -1"),
        ({"seed": -1}, "seed must be"),
        (
            {"sides": (0.6, 0.3)},
            r"sides must be two shares from 0.05 to 1, the lower first; got \(0.6, 0.3\)",
        ),
        ({"sides": (0.6, 1.1)}, "sides must be two shares"),
        ({"sides": (0.04, 0.5)}, "sides must be two shares"),
        ({"sides": 0.5}, "sides must be two shares"),
        ({"sides": (0.5, float("nan"))}, "sides must be two shares"),
        ({"size": 31}, "size must be a whole number, 32 or more; got 31"),
        (
            {"backgrounds": "pink"},
            "backgrounds must be photographs, grey, white or a folder of pictures; got 'pink'",
        ),
    ],
)
def test_bad_options_are_errors(files, options, message):
    with pytest.raises(ValueError, match=message):
        CutoutScenes(stamps=files[0], **options)


def test_backgrounds_without_pictures_are_an_error(files, tmp_path):
    with pytest.raises(ValueError, match=r"backgrounds .* has no picture"):
        CutoutScenes(stamps=files[0], backgrounds=tmp_path)
    (tmp_path / "a.jpg").write_text("no picture")
    scenes = CutoutScenes(length=1, stamps=files[0], backgrounds=tmp_path)
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read"):
        scenes[0]


def test_haze_and_specks_are_no_part_of_a_cut_out(tmp_path):
    pixels = np.zeros((100, 100, 4), np.uint8)
    pixels[:, :, 3] = 12  # haze all over
    pixels[10:60, 10:60, 3] = 255
    pixels[80:84, 80:84, 3] = 255  # 0.6%, detached
    pixels[70:76, 20:26, 3] = 255  # 1.4%
    pixels[58:72, 22:24, 3] = 90  # a part that is attached
    Image.fromarray(pixels).save(tmp_path / "a.png")
    opacity = stamps.enlarge(str(tmp_path / "a.png"), 100)[..., 3]
    expected = np.where(pixels[..., 3] > 12, pixels[..., 3], 0)
    expected[80:84, 80:84] = 0
    np.testing.assert_array_equal(opacity, expected)
