"""Prepared datasets, as tensorflow-datasets writes them; without TensorFlow."""

import io
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from lmjax.data import DigitScenes, from_tfds, prepare_digit_scenes
from lmjax.data.imagenet import synsets

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SIZE = (6, 9)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    file.seek(0)
    return file


def trimap(i):
    values = np.full(SIZE, 2, np.uint8)
    values[1:4, 2 : 4 + i] = 1
    values[4, 2:6] = 3
    return values


def image(i):
    return np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8)


class Fake(tfds.core.GeneratorBasedBuilder):
    """Features named as those of oxford_iiit_pet are, and some more."""

    name = "fake_pets"
    VERSION = tfds.core.Version("1.0.0")
    class_names = ("cat", "dog", "eel")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(),
                "label": tfds.features.ClassLabel(names=self.class_names),
                "segmentation_mask": tfds.features.Image(
                    shape=(None, None, 1), use_colormap=True, encoding_format="png"
                ),
                "file_name": tfds.features.Text(),
                "boxes": tfds.features.Sequence({"box": tfds.features.BBoxFeature()}),
                "depth": tfds.features.Tensor(shape=(*SIZE, 1), dtype=np.float32),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "test": self._generate_examples(2)}

    def _generate_examples(self, length):
        for i in range(length):
            box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
            yield (
                i,
                {
                    "image": png(image(i)),
                    "label": -1 if i == 3 else i,
                    "segmentation_mask": png(trimap(i)),
                    "file_name": f"pet_{i}",
                    "boxes": [{"box": box}] * i,
                    "depth": np.full((*SIZE, 1), i / 4, np.float32),
                },
            )


class Coco(tfds.core.GeneratorBasedBuilder):
    """Features named as those of coco/2017_panoptic are."""

    name = "fake_coco"
    VERSION = tfds.core.Version("1.0.0")
    numbers = np.array([[0, 7, 300], [0, 7, 70000]])

    def _info(self):
        objects = {
            "id": np.int64,
            "label": tfds.features.ClassLabel(names=["dog", "cat"]),
            "is_crowd": np.bool_,
        }
        features = {
            "image": tfds.features.Image(),
            "image/id": np.int64,
            "panoptic_image": tfds.features.Image(encoding_format="png"),
            "panoptic_objects": tfds.features.Sequence(objects),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"validation": self._generate_examples()}

    def _generate_examples(self):
        segments = np.stack([self.numbers >> shift & 255 for shift in (0, 8, 16)], axis=-1)
        for i, labels in enumerate(([1, 0, 1], [0, 0, 0], [1, 1, 0])):
            objects = [
                {"id": number, "label": label, "is_crowd": False}
                for number, label in zip((7, 300, 70000), labels)
            ]
            yield (
                i,
                {
                    "image": png(np.zeros((2, 3, 3), np.uint8)),
                    "image/id": i + 100,
                    "panoptic_image": png(segments.astype(np.uint8)),
                    "panoptic_objects": objects,
                },
            )


class Pets(Fake):
    name = "oxford_iiit_pet"


class Few(Fake):
    """ImageNet's classes in an order of their own."""

    name = "few"
    class_names = ("n15075141", "n02099601", "n01440764")


@pytest.fixture(scope="module", params=["array_record", "parquet", "tfrecord"])
def folder(request, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp(request.param)
    for kind in (Fake, Pets, Few):
        prepare(kind, data_dir, "parquet" if request.param == "parquet" else "array_record")
        if request.param == "tfrecord":
            turn_into_tfrecord(data_dir / kind.name / "1.0.0")
    return data_dir


def prepare(kind, data_dir, file_format):
    kind(data_dir=str(data_dir), file_format=file_format).download_and_prepare()


def turn_into_tfrecord(folder):
    """Writes the records again, since tensorflow-datasets would need TensorFlow for it."""
    builder = tfds.core.read_only_builder.builder_from_directory(folder)
    for split in builder.info.splits:
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        records = list(builder.as_data_source(split, deserialize_method=raw))
        (path,) = folder.glob(f"*-{split}.array_record-*")
        with open(str(path).replace("array_record", "tfrecord"), "wb") as file:
            for record in records:
                file.write(struct.pack("<QI", len(record), 0) + record + struct.pack("<I", 0))
        path.unlink()
    about = folder / "dataset_info.json"
    about.write_text(about.read_text().replace("array_record", "tfrecord"))


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


def test_trimaps_of_pets_are_the_animal_and_its_outline(folder):
    source = from_tfds("oxford_iiit_pet", split="train", data_dir=folder)
    for i in range(4):
        np.testing.assert_array_equal(source[i].object_mask, trimap(i) != 2)
    voted = from_tfds("oxford_iiit_pet", split="train", data_dir=folder, at_least=3)
    np.testing.assert_array_equal(voted[1].object_mask, trimap(1) == 3)


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
        ("fake_pets", "dev", {}, "split 'dev' of TFDS dataset fake_pets/1.0.0: it has train, test"),
        ("fake_pets", None, {}, "it has train, test"),
        ("fake_pets", "train[4:]", {}, "is empty"),
        ("fake_pets", "test", {"mask": "m"}, "no feature 'm'; the dataset has boxes, depth, file"),
        ("fake_pets", "test", {"category": "cat"}, "needs the features panoptic_image and"),
        ("fake_pets", "test", {"background": "a"}, "background must be a number"),
    ],
    ids=["dataset", "split", "none", "empty", "feature", "category", "number"],
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


def test_damaged_tfrecords_are_named(tmp_path):
    prepare(Fake, tmp_path, "array_record")
    turn_into_tfrecord(tmp_path / "fake_pets" / "1.0.0")
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
