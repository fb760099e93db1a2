"""Prepared datasets, as tensorflow-datasets writes them; without TensorFlow."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lmjax.data import DigitScenes, from_tfds, prepare_digit_scenes
from lmjax.data.imagenet.synsets import synsets
from lmjax.data.tfds.source import _with_split
from tests.support.prepared import SIZE, Coco, Fake, Few, Pets, image, prepare, trimap

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", params=["array_record", "parquet", "tfrecord"])
def folder(request, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp(request.param)
    for kind in (Fake, Pets, Few):
        prepare(kind, data_dir, request.param)
    return data_dir


def test_features_are_taken_by_name(folder):
    source = from_tfds("fake_pets", split="train", data_dir=folder, saliency="depth")
    assert len(source) == 4
    assert source.class_names == ("cat", "dog", "eel")
    for i, example in enumerate(source[i] for i in range(4)):
        assert example.id == f"pet_{i}"
        assert example.label == (None if i == 3 else i)
        np.testing.assert_array_equal(example.image, image(i))
        assert example.object_mask.all()  # nothing says that 2 is the background
        np.testing.assert_array_equal(example.saliency, np.full(SIZE, i / 4, np.float32))


def test_saliency_is_from_0_to_1(folder):
    looks = from_tfds("fake_pets", split="train", data_dir=folder, saliency="looks")
    assert looks[1].saliency.dtype == np.float32
    np.testing.assert_allclose(looks[1].saliency, np.full(SIZE, 0.2))
    distance = from_tfds("fake_pets", split="train", data_dir=folder, saliency="distance")
    with pytest.raises(
        ValueError, match=r"saliency of pet_1 must be from 0 to 1.*float32 from 1\.5"
    ):
        distance[1]


def test_trimaps_of_pets_are_the_animal_and_its_outline(folder):
    source = from_tfds("oxford_iiit_pet", split="train", data_dir=folder)
    for i in range(4):
        np.testing.assert_array_equal(source[i].object_mask, trimap(i) != 2)
    voted = from_tfds("oxford_iiit_pet", split="train", data_dir=folder, at_least=3)
    np.testing.assert_array_equal(voted[1].object_mask, trimap(1) == 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b:1.0.0[train[:5%]+test]", ("a/b:1.0.0", "train[:5%]+test")),
        ("a", ("a", None)),
        ("/x[1]/a,b[train[:10%]]", ("/x[1]/a,b", "train[:10%]")),
        ("/x[1]/a", ("/x[1]/a", None)),
    ],
)
def test_names_may_end_in_the_split(name, expected):
    assert _with_split(name, None) == expected


def test_a_split_is_named_once(folder, tmp_path):
    whole = from_tfds("fake_pets", split="train[1:3]", data_dir=folder)
    assert from_tfds("fake_pets[train[1:3]]", data_dir=folder).version == whole.version
    with pytest.raises(ValueError, match=r"split 'test' and fake_pets\[train\] both name a split"):
        from_tfds("fake_pets[train]", split="test", data_dir=folder)
    with pytest.raises(ValueError, match=r"has a \] without its \["):
        from_tfds("fake_pets]", data_dir=folder)
    link = tmp_path / "pets[1]"
    link.symlink_to(folder / "fake_pets" / "1.0.0")
    assert len(from_tfds(str(link), split="train")) == 4


def test_parts_of_splits(folder):
    def ids(split):
        source = from_tfds("fake_pets", split=split, data_dir=folder)
        return [source[i].id for i in range(len(source))]

    assert ids("train[1:3]") == ["pet_1", "pet_2"]
    assert ids("train[75%:]+test") == ["pet_3", "pet_0", "pet_1"]
    source = from_tfds("fake_pets", split="train[1:3]", data_dir=folder)
    assert source[-1].id == "pet_2"
    with pytest.raises(IndexError, match="index is 2"):
        source[2]


def test_sources_can_be_pickled_and_name_their_version(folder):
    source = from_tfds("fake_pets", split="train", data_dir=folder)
    source[0]
    again = pickle.loads(pickle.dumps(source))
    assert again.version == source.version
    assert again.version.startswith("tfds/fake_pets/1.0.0/train/")
    np.testing.assert_array_equal(again[1].image, source[1].image)
    options = [{"split": "test"}, {"split": "train[:3]"}, {"background": 2}, {"name": "few"}]
    others = [
        from_tfds(**{"name": "fake_pets", "split": "train", "data_dir": folder} | option).version
        for option in options
    ]
    assert len({source.version, *others}) == 5


def test_labels_by_wordnet_id_are_those_of_imagenets_networks(folder):
    source = from_tfds("few", split="train", data_dir=folder)
    assert [source[i].label for i in range(4)] == [999, 207, 0, None]
    assert source.class_names == synsets()


def test_categories_of_panoptic_datasets(tmp_path):
    prepare(Coco, tmp_path, "array_record")
    source = from_tfds("fake_coco", data_dir=tmp_path, category="cat")
    source = pickle.loads(pickle.dumps(source))
    assert source.class_names == ("dog", "cat")
    assert [(source[i].id, source[i].label) for i in range(len(source))] == [("100", 1), ("102", 1)]
    for example, numbers in zip((source[0], source[1]), ((7, 70000), (7, 300))):
        np.testing.assert_array_equal(example.object_mask, np.isin(Coco.numbers, numbers))
    assert len(from_tfds("fake_coco", data_dir=tmp_path)) == 3
    with pytest.raises(ValueError, match="category must be one of dog, cat; got 'cow'"):
        from_tfds("fake_coco", data_dir=tmp_path, category="cow")


def test_a_prepared_folder_will_do(folder):
    source = from_tfds(str(folder / "fake_pets" / "1.0.0"), split="test")
    assert source[1].id == "pet_1"


@pytest.mark.parametrize(
    ("name", "split", "options", "message"),
    [
        ("none", "test", {}, r"none is not prepared in .*tfds build none --file_format=array_rec"),
        ("fake_pets[test", "test", {}, r"'fake_pets\[test' must be NAME, NAME/CONFIG"),
        (
            "fake_pets",
            "dev",
            {},
            r"split 'dev' of TFDS dataset fake_pets/1.0.0: it has train \(4 ex",
        ),
        ("fake_pets", None, {}, r"it has train \(4 examples\), test"),
        ("fake_pets", "test[:1000]", {}, r"it has train \(4 examples\), test"),
        ("fake_pets", "train[4:]", {}, "is empty"),
        ("fake_pets", "train[3:1]+test", {}, "has a part of train from 3 to 1"),
        (
            "fake_pets",
            "test",
            {"mask": "m"},
            "no feature 'm'; the dataset has boxes, depth, distance, file",
        ),
        ("fake_pets", "test", {"category": "cat"}, "needs the features panoptic_image and"),
        ("fake_pets", "test", {"background": "a"}, "background must be a number"),
    ],
    ids=[
        *("dataset", "name", "split", "none", "too many", "empty", "reversed"),
        *("feature", "category", "number"),
    ],
)
def test_what_there_is_not_is_an_error(folder, name, split, options, message):
    with pytest.raises(ValueError, match=message):
        from_tfds(name, split=split, data_dir=folder, **options)


def test_formats_without_random_access_are_told_how_to_convert(tmp_path):
    prepare(Fake, tmp_path, "array_record")
    about = tmp_path / "fake_pets" / "1.0.0" / "dataset_info.json"
    about.write_text(about.read_text().replace("array_record", "riegeli"))
    with pytest.raises(ValueError, match=r"as riegeli.*tfds convert_format --dataset_version_dir="):
        from_tfds("fake_pets", split="test", data_dir=tmp_path)


def test_labels_that_are_no_numbers(tmp_path):
    prepare(Fake, tmp_path, "array_record")
    with pytest.raises(ValueError, match="label=file_name must be a whole number or a class"):
        from_tfds("fake_pets", split="test", data_dir=tmp_path, label="file_name")


@pytest.mark.parametrize("file_format", ["array_record", "parquet", "tfrecord"])
def test_examples_of_damaged_files_are_named(tmp_path, file_format):
    prepare(Fake, tmp_path, file_format)
    (path,) = tmp_path.rglob("*-test.*")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", None):
        path.unlink() if content is None else path.write_bytes(content)
        source = from_tfds("fake_pets", split="test", data_dir=tmp_path)
        with pytest.raises(ValueError, match=r"example 0 of split test in .* cannot be read: "):
            source[0]


def test_damaged_tfrecords_are_named(tmp_path):
    prepare(Fake, tmp_path, "tfrecord")
    (path,) = tmp_path.rglob("*-test.tfrecord*")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"fake_pets-test\.tfrecord.* does not hold 2 whole rec"):
        from_tfds("fake_pets", split="test", data_dir=tmp_path)[0]


def test_digit_scenes_come_back_without_tensorflow(tmp_path):
    prepare_digit_scenes(tmp_path, train_length=1, test_length=2)
    code = (
        "import sys; from lmjax.data import open_source\n"
        f"source = open_source('tfds:digit_scenes/train1_test2_seed0[test],data_dir={tmp_path}')\n"
        "print(source[1].object_mask.sum(), source[1].tight_mask.sum(), source[1].id)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with pytest.raises(ValueError, match=r"there is digit_scenes/train1_test2_seed0/1\.0\.0 "):
        from_tfds("digit_scenes/other", split="test", data_dir=tmp_path)
    scene = DigitScenes("test")[1]
    expected = [str(scene.object_mask.sum()), str(scene.tight_mask.sum()), scene.id]
    assert done.stdout.split() == expected


@pytest.mark.parametrize("by_name", [True, False])
def test_features_of_other_packages_are_not_imported(folder, tmp_path, by_name):
    """Importing the module that a features.json names would run its code."""
    shutil.copytree(folder / "fake_pets", tmp_path / "fake_pets")
    path = tmp_path / "fake_pets" / "1.0.0" / "features.json"
    text = path.read_text().replace("tensorflow_datasets.core.features.image_feature", "hostile")
    assert "hostile" in text
    path.write_text(text)
    (tmp_path / "hostile.py").write_text("raise SystemExit('the code ran')")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        name = (
            {"name": "fake_pets", "data_dir": tmp_path} if by_name else {"name": str(path.parent)}
        )
        with pytest.raises(ValueError, match=r"features\.json names the class 'hostile\."):
            from_tfds(**name, split="train")


def test_damaged_features_are_named(folder, tmp_path):
    shutil.copytree(folder / "fake_pets", tmp_path / "fake_pets")
    (tmp_path / "fake_pets" / "1.0.0" / "features.json").write_text("{")
    with pytest.raises(ValueError, match=r"features\.json is damaged .* prepare the dataset again"):
        from_tfds("fake_pets", split="train", data_dir=tmp_path)


DAMAGES = {
    "null": lambda about: None,
    "a list": lambda about: [about],
    "text": lambda about: "junk",
    "nothing": lambda about: {},
    "no version": lambda about: {k: v for k, v in about.items() if k != "version"},
    "no splits": lambda about: {k: v for k, v in about.items() if k != "splits"},
    "splits": lambda about: about | {"splits": 3},
    "lengths": lambda about: about | {"splits": [{"name": "train", "shardLengths": ["many"]}]},
    "version": lambda about: about | {"version": {"a": 1}},
    "format": lambda about: about | {"fileFormat": "no such format"},
    "version of no numbers": lambda about: about | {"version": "one"},
    "unknown": lambda about: about | {"junk": 1},
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_damaged_description_is_named(folder, tmp_path, damage, by_name):
    shutil.copytree(folder / "fake_pets", tmp_path / "fake_pets")
    path = tmp_path / "fake_pets" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps(DAMAGES[damage](json.loads(path.read_text()))))
    name = {"name": "fake_pets", "data_dir": tmp_path} if by_name else {"name": str(path.parent)}
    with pytest.raises(
        ValueError, match=r"dataset_info\.json.* is damaged \(.*prepare the dataset"
    ):
        from_tfds(**name, split="train")
