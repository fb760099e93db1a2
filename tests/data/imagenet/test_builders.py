"""The builders on made-up data, in tensorflow-datasets' convention but without TensorFlow.

What its `DatasetBuilderTestCase` checks, which needs TensorFlow: builders are registered, prepare a
folder laid out as their instructions say, and give as many examples as they should, no two the
same, with the features they declare.
"""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from lmjax.data import (
    from_imagenet_s,
    from_part_imagenet,
    from_pixel_imagenet,
    from_salient_imagenet,
    from_tfds,
    imagenet_classes,
    prepare_imagenet,
)
from lmjax.data.imagenet import builders
from lmjax.data.imagenet.validation import from_imagenet
from tests.support import imagenet_files as fake

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SPLITS = {
    "imagenet_validation": {"validation": 3},
    "salient_imagenet/core": {"train": 2},
    "salient_imagenet/spurious": {"train": 3},
    "pixel_imagenet": {"train": 2},
    "imagenet_s/50": {"train": 1, "validation": 1},
    "part_imagenet": {"train": 1, "validation": 1, "test": 1},
}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    root = tmp_path_factory.mktemp("downloads")
    fake.validation(root)
    fake.pixel_imagenet(root)
    fake.imagenet_s(root)
    fake.part_imagenet(root)
    fake.salient_imagenet(root, (60, 45))
    return root


@pytest.fixture(scope="module")
def data_dir(downloads, tmp_path_factory):
    """Prepared in a process of its own, which says whether TensorFlow was imported."""
    data_dir = tmp_path_factory.mktemp("datasets")
    code = (
        "import sys; from lmjax.data import prepare_imagenet\n"
        f"for name in {list(SPLITS)}:\n"
        f"    prepare_imagenet(name, {str(downloads)!r}, data_dir={str(data_dir)!r})\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return data_dir


def source_of(name, split, root):
    """What a split should hold, from where it lies."""
    dataset, _, config = name.partition("/")
    if dataset == "salient_imagenet":
        images = root / "ILSVRC2012/train"
        folder = root / "salient_imagenet_dataset"
        return from_salient_imagenet(folder, images=images, features=config)
    if dataset == "pixel_imagenet":
        return from_pixel_imagenet(root / "pixel-imagenet-v2", images=root / "ILSVRC2012/train")
    if dataset == "imagenet_s":
        folder = {"train": "train-semi"}.get(split, split)
        return from_imagenet_s(root / "ImageNetS50", split=folder)
    if dataset == "part_imagenet":
        return from_part_imagenet(root / "PartImageNet", split=split.removesuffix("idation"))
    return from_imagenet(root / "ILSVRC2012_img_val")


@pytest.mark.parametrize("name", SPLITS)
def test_examples_are_those_of_the_source_in_its_order(name, downloads, data_dir):
    for split, length in SPLITS[name].items():
        expected = source_of(name, split, downloads)
        prepared = from_tfds(name, split=split, data_dir=data_dir)
        assert len(prepared) == len(expected) == length
        assert prepared.class_names == expected.class_names
        for i in range(length):
            for field, found in prepared[i]._asdict().items():
                np.testing.assert_array_equal(found, getattr(expected[i], field), field)


@pytest.mark.parametrize("name", SPLITS)
def test_builders_keep_the_conventions_of_tensorflow_datasets(name, data_dir):
    dataset, _, config = name.partition("/")
    assert dataset in tfds.list_builders(with_community_datasets=False)
    builder = builders.BUILDERS[dataset](data_dir=str(data_dir), config=config or None)
    assert builder.info.name == dataset
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == SPLITS[name]
    assert builder.info.homepage.startswith("https://")
    assert builder.info.citation
    assert builder.info.features["label"].names == [each.synset for each in imagenet_classes()]
    ids = []
    for split in SPLITS[name]:
        for record in builder.as_data_source(split):
            assert set(record) == set(builder.info.features)
            assert record["image"].dtype == np.uint8
            ids.append(record["id"])
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("dataset", "config"), [("imagenet_s", "919"), ("salient_imagenet", "core")]
)
def test_the_first_configuration_is_the_default(dataset, config, tmp_path):
    builder = builders.BUILDERS[dataset](data_dir=str(tmp_path))
    assert builder.builder_config.name == config


def test_files_are_array_records_and_are_not_made_twice(downloads, data_dir):
    files = {f: f.stat().st_mtime_ns for f in data_dir.rglob("*.array_record*")}
    assert len(files) == sum(map(len, SPLITS.values()))
    for name in SPLITS:
        prepare_imagenet(name, downloads, data_dir=data_dir)
    assert {f: f.stat().st_mtime_ns for f in data_dir.rglob("*.array_record*")} == files


def test_images_stay_as_they_are_where_all_readers_agree(tmp_path):
    """JPEG is kept byte for byte, but for what some readers turn or cannot read."""
    fake.part_imagenet(tmp_path)
    folder = tmp_path / "PartImageNet/images"
    kept = folder / "train" / f"{fake.RETRIEVER}_0.JPEG"
    fake.write_jpeg(kept, fake.picture(0))
    turned = Image.Exif()
    turned[0x0112] = 3  # by 180 degrees
    fake.write_jpeg(folder / "val" / f"{fake.RETRIEVER}_1.JPEG", fake.picture(1), exif=turned)
    cmyk = np.concatenate([fake.picture(2), fake.picture(3)[..., :1]], axis=-1)
    Image.fromarray(cmyk, "CMYK").save(folder / "test" / f"{fake.RETRIEVER}_2.JPEG", "jpeg")
    prepare_imagenet("part_imagenet", tmp_path, data_dir=tmp_path)
    stored = [
        from_tfds("part_imagenet", split=split, data_dir=tmp_path).values(0)["image"]
        for split in ("train", "validation", "test")
    ]
    assert stored[0] == kept.read_bytes()
    for content, split in zip(stored[1:], ("val", "test")):
        assert content.startswith(b"\x89PNG")
        prepared = from_tfds(
            "part_imagenet", split={"val": "validation"}.get(split, split), data_dir=tmp_path
        )
        expected = from_part_imagenet(tmp_path / "PartImageNet", split=split)
        np.testing.assert_array_equal(prepared[0].image, expected[0].image)


def test_lists_of_labels_are_found_beside_the_validation_images(tmp_path):
    fake.validation(tmp_path)
    fake.ground_truth(tmp_path)
    prepare_imagenet("imagenet_validation", tmp_path, data_dir=tmp_path / "datasets")
    source = from_tfds("imagenet_validation", data_dir=tmp_path / "datasets")
    assert sorted(source[i].label for i in range(3)) == [0, 1, 207]


def test_what_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"one of imagenet_validation, salient_imagenet/core, .* got"
    ):
        prepare_imagenet("imagenet", tmp_path)
    with pytest.raises(ValueError, match=r"imagenet_s/919, .*got 'imagenet_s/10'"):
        prepare_imagenet("imagenet_s/10", tmp_path)
    with pytest.raises(OSError, match=r"PartImageNet/annotations/train_whole cannot be read: No"):
        prepare_imagenet("part_imagenet", tmp_path, data_dir=tmp_path)
    fake.pixel_imagenet(tmp_path)
    (path,) = (tmp_path / "pixel-imagenet-v2" / fake.TENCH).iterdir()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read"):
        prepare_imagenet("pixel_imagenet", tmp_path, data_dir=tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json"))
