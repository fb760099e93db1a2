"""Pixel ImageNet, ImageNet-S and PartImageNet, from where they lie."""

import pickle

import numpy as np
import pytest
from PIL import Image

from lmjax.data import (
    from_imagenet_s,
    from_part_imagenet,
    from_pixel_imagenet,
    imagenet_classes,
    open_source,
)
from tests.support import imagenet_files as fake


@pytest.fixture
def root(tmp_path):
    fake.pixel_imagenet(tmp_path)
    fake.imagenet_s(tmp_path)
    fake.part_imagenet(tmp_path)
    return tmp_path


def test_pixel_imagenet_is_what_has_a_mask(root):
    where = f"{root}/pixel-imagenet-v2,images={root}/ILSVRC2012/train"
    source = pickle.loads(pickle.dumps(open_source(f"pixel-imagenet:{where}")))
    found = {example.id: example for example in map(source.__getitem__, range(len(source)))}
    first, third = f"{fake.TENCH}/{fake.TENCH}_1.JPEG", f"{fake.GOLDFISH}/{fake.GOLDFISH}_3.JPEG"
    assert {name: example.label for name, example in found.items()} == {first: 0, third: 1}
    np.testing.assert_array_equal(found[third].image, fake.picture(2))
    np.testing.assert_array_equal(found[third].object_mask, fake.box() == 1)
    assert found[first].object_mask.sum() == fake.box().sum() + 12 * 5  # instances 1 and 2
    assert source.class_names == tuple(each.synset for each in imagenet_classes())


@pytest.mark.parametrize("split", ["validation", "train-semi"])
def test_imagenet_s_is_coloured_by_the_numbers_of_classes(root, split):
    (example,) = open_source(f"imagenet-s:{root}/ImageNetS50,split={split}")
    assert example.label == 0
    np.testing.assert_array_equal(example.image, fake.picture(7))
    np.testing.assert_array_equal(example.object_mask, fake.imagenet_s_mask())


@pytest.mark.parametrize(("split", "number"), [("train", 0), ("val", 1), ("test", 2)])
def test_part_imagenet_is_all_but_its_background(root, split, number):
    (example,) = open_source(f"part-imagenet:{root}/PartImageNet,split={split}")
    assert (example.id, example.label) == (f"{fake.RETRIEVER}_{number}.JPEG", 207)
    np.testing.assert_array_equal(example.image, fake.picture(number))
    np.testing.assert_array_equal(example.object_mask, fake.box() == 1)


def test_nothing_but_names_is_read_before_it_is_asked_for(root):
    for path in (root / "PartImageNet").rglob("*.*"):
        path.write_bytes(b"")
    source = from_part_imagenet(root / "PartImageNet")
    assert len(source) == 1
    with pytest.raises(ValueError, match=r"images/val/n02099601_1\.JPEG cannot be read"):
        source[0]


def test_versions_tell_splits_apart_and_what_changes(root):
    folder = root / "ImageNetS50"
    splits = [from_imagenet_s(folder, split=split) for split in ("validation", "train-semi")]
    seen = {source.version for source in splits}
    (mask,) = (folder / "validation-segmentation").rglob("*.png")
    mask.write_bytes(b"short")
    assert len({*seen, from_imagenet_s(folder).version}) == 3


def test_an_image_that_is_not_there_is_named(root):
    source = from_pixel_imagenet(root / "pixel-imagenet-v2", images=root / "elsewhere")
    assert len(source) == 2
    with pytest.raises(
        ValueError, match=r"elsewhere/n0144\d+/n0144\d+_\d\.JPEG cannot be read: No"
    ):
        source[0]


def test_a_mask_of_another_size_is_named(root):
    (path,) = (root / "ImageNetS50/validation-segmentation").rglob("*.png")
    Image.fromarray(np.zeros((30, 24, 3), np.uint8)).save(path)
    source = from_imagenet_s(root / "ImageNetS50")
    with pytest.raises(
        ValueError, match=r"_val_00000293\.png is 30 x 24 .*_00000293\.JPEG 24 x 30"
    ):
        source[0]


def test_an_image_that_exif_turns_does_not_fit_its_mask(root):
    half = Image.Exif()
    half[0x0112] = 3  # by 180 degrees, which no size tells
    path = root / "ILSVRC2012/train" / fake.GOLDFISH / f"{fake.GOLDFISH}_3.JPEG"
    fake.write_jpeg(path, fake.picture(2), exif=half)
    source = from_pixel_imagenet(root / "pixel-imagenet-v2", images=root / "ILSVRC2012/train")
    index = [row.label for row in source.rows].index(1)
    with pytest.raises(ValueError, match=r"n01443537_3\.JPEG is turned by its EXIF orientation"):
        source[index]


def test_what_is_no_such_dataset_is_an_error(root):
    with pytest.raises(ValueError, match=r"split must be one of train, val, test; got 'dev'"):
        from_part_imagenet(root / "PartImageNet", split="dev")
    with pytest.raises(OSError, match=r"ImageNetS919/validation-segmentation cannot be read: No"):
        from_imagenet_s(root / "ImageNetS919")
    fake.write(root / "masks" / "cat" / "a.png", fake.box())
    with pytest.raises(
        ValueError, match=r"masks/cat/a\.png: its name begins with none of the Word"
    ):
        from_pixel_imagenet(root / "masks", images=root)
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match=r"folder .*/empty holds no mask"):
        from_pixel_imagenet(root / "empty", images=root)
