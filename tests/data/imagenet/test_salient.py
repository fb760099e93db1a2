"""Salient ImageNet: which features are core, which images show them, and where masks lie."""

import pickle

import numpy as np
import pytest
from PIL import Image

from lmjax.data import from_salient_imagenet, open_source
from lmjax.data.source import Example, check_sizes
from lmjax.models.preprocessing import Preprocessing
from tests.support import imagenet_files as fake
from tests.support.torch_reference import torchvision

SIZE = (300, 400)
SLACK = 3 / 255  # JPEG


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("salient")
    fake.salient_imagenet(root, SIZE)
    return root


@pytest.fixture
def root(tmp_path):
    """To be broken."""
    fake.salient_imagenet(tmp_path, (40, 50))
    return tmp_path


def source_of(root, **options):
    images = root / "ILSVRC2012/train"
    return from_salient_imagenet(root / "salient_imagenet_dataset", images=images, **options)


def by_letter(source):
    return {source.rows[i].id[-6]: source[i] for i in range(len(source))}


def cropped(array):
    """As torchvision's Resize(256) and CenterCrop(224), which the masks were made for."""
    functional = torchvision.transforms.functional
    nearest = torchvision.transforms.InterpolationMode.NEAREST
    resized = functional.resize(Image.fromarray(array), [256], interpolation=nearest)
    return np.asarray(functional.center_crop(resized, [224]))


def test_features_are_spurious_where_three_of_five_say_so(whole):
    core, spurious = (by_letter(source_of(whole, features=kind)) for kind in ("core", "spurious"))
    assert {letter: example.label for letter, example in core.items()} == {"a": 0, "b": 0}
    assert {letter: example.label for letter, example in spurious.items()} == {
        **{"b": 0, "c": 0},
        "d": 1,
    }
    assert core["a"].id == f"{fake.TENCH}/{fake.TENCH}_a.JPEG"
    assert core["a"].image.shape == (*SIZE, 3)


@pytest.mark.parametrize("size", [SIZE, (500, 281), (256, 256), (120, 90)], ids=str)
def test_masks_lie_where_the_crop_was_taken(tmp_path, size):
    fake.salient_imagenet(tmp_path, size)
    example = by_letter(source_of(tmp_path))["b"]
    assert example.saliency.shape == example.object_mask.shape == size
    core = np.maximum(fake.soft_mask(0, 59, "b"), fake.soft_mask(0, 686, "b"))
    spurious = fake.soft_mask(0, 981, "b")
    # By nearest neighbour there and back. A small image has fewer pixels than its masks, which
    # change by 3 in 255 from one to the next, and a pixel at the rim may lie half outside.
    slack, rim = (SLACK, 0) if min(size) >= 256 else (12 / 255, 2)
    inside = (slice(rim, 224 - rim),) * 2
    seen = cropped(example.saliency)
    np.testing.assert_allclose(seen[inside], core[inside] / np.float32(255), atol=slack)
    for seen, soft in ((example.object_mask, core), (example.spurious_mask, spurious)):
        certain = np.abs(soft.astype(int) - 128) > 255 * slack
        assert (cropped(seen) == (soft >= 128))[certain].all()


def test_nothing_is_marked_beside_the_crop(whole):
    example = by_letter(source_of(whole, at_least=0))["a"]
    assert example.object_mask.all()  # 0 is at least 0, everywhere
    example = by_letter(source_of(whole, at_least=1))["a"]
    short, side = min(SIZE), round(224 * min(SIZE) / 256)
    top, left = ((length - side) // 2 for length in SIZE)
    outside = np.ones(SIZE, bool)
    outside[top - 1 : top + side + 2, left - 1 : left + side + 2] = False
    assert short > side
    assert outside.sum() > 10_000
    assert not example.saliency[outside].any()


def test_networks_see_the_mask_where_it_was_made(whole):
    """Through this package's own preprocessing, with the crop of most weights."""
    example = by_letter(source_of(whole))["a"]
    seen = Preprocessing(resize=256, crop=224).for_mask(example.object_mask)
    soft = fake.soft_mask(0, 59, "a")
    certain = np.abs(soft.astype(int) - 128) > 6
    assert (seen == (soft >= 128))[certain].all()


def test_the_object_may_be_what_is_spurious(whole):
    core, spurious = (by_letter(source_of(whole, features=kind)) for kind in ("core", "spurious"))
    np.testing.assert_array_equal(core["b"].spurious_mask, spurious["b"].object_mask)
    np.testing.assert_array_equal(spurious["b"].object_mask, spurious["b"].spurious_mask)
    assert core["b"].spurious_mask.any()
    assert not core["a"].spurious_mask.any()  # no image of a spurious feature


def test_sources_open_by_name_and_can_be_pickled(whole):
    folder = whole / "salient_imagenet_dataset"
    answers = whole / "mturk_results/discover_spurious_features.csv"
    opened = open_source(
        f"salient-imagenet:{folder},images={whole}/ILSVRC2012/train,features=spurious,"
        f"answers={answers},at_least=200"
    )
    again = pickle.loads(pickle.dumps(opened))
    assert (
        again.version
        == opened.version
        == source_of(whole, features="spurious", at_least=200).version
    )
    others = [source_of(whole), source_of(whole, features="spurious")]
    assert len({opened.version, *(source.version for source in others)}) == 3
    assert [row.id for row in again.rows] == [row.id for row in others[1].rows]


def test_a_spurious_mask_of_another_size_is_refused():
    """Wherever it comes from; here, masks are put into their images."""
    example = Example("a.jpg", np.zeros((4, 5, 3), np.uint8), spurious_mask=np.ones((5, 4), bool))
    with pytest.raises(ValueError, match=r"spurious_mask m\.png is 5 x 4 pixels .* a\.jpg 4 x 5"):
        check_sizes(example, {"spurious_mask": "m.png"})


def folder_of(root, synset=fake.TENCH):
    return root / "salient_imagenet_dataset" / synset


def test_missing_tables_are_named(root):
    (folder_of(root) / "image_names_map.csv").unlink()
    with pytest.raises(OSError, match=r"n01440764/image_names_map\.csv cannot be read: No such"):
        source_of(root)
    (root / "mturk_results/discover_spurious_features.csv").unlink()
    with pytest.raises(
        ValueError, match=r"discover_spurious_features\.csv is neither in .*answers="
    ):
        source_of(root)


def test_tables_that_miss_a_column_are_named(root):
    fake.write_table(folder_of(root) / "image_names_map.csv", (59, 686), [])
    with pytest.raises(
        ValueError, match=r"image_names_map\.csv must have a column 981; its .* 59, 6"
    ):
        source_of(root)
    answers = root / "mturk_results/discover_spurious_features.csv"
    fake.write_table(answers, ("Input.class_index", "Input.feature_index"), [])
    with pytest.raises(ValueError, match=r"_features\.csv must have a column Answer\.main"):
        source_of(root)
    columns = ("Input.class_index", "Input.feature_index", "Answer.main")
    fake.write_table(answers, columns, [("n01440764", 59, "background")])
    with pytest.raises(
        ValueError, match=r"_features\.csv, line 2: no numbers of a class and a fea"
    ):
        source_of(root)


def test_folders_of_features_without_masks_are_named(root):
    folder = folder_of(root) / "feature_59"
    for mask in folder.iterdir():
        mask.unlink()
    with pytest.raises(ValueError, match=r"n01440764/feature_59 holds no mask"):
        source_of(root)
    folder.rmdir()
    with pytest.raises(OSError, match=r"n01440764/feature_59 cannot be read: No such file"):
        source_of(root)


def message(source):
    """What goes wrong on one image; all others are read."""
    errors = []
    for i in range(len(source)):
        try:
            assert source[i].object_mask is not None
        except ValueError as error:
            errors.append(str(error))
    (only,) = errors
    return only


def test_a_broken_image_costs_itself_alone(root):
    mask = folder_of(root) / "feature_59" / f"{fake.TENCH}_a.JPEG"
    fake.write_jpeg(mask, np.zeros((40, 50), np.uint8))
    assert "n01440764_a.JPEG is 40 x 50 pixels; masks of Salient ImageNet are 224 x 224" in (
        message(source_of(root))
    )
    mask.unlink()
    assert f"{mask} cannot be read: No such file" in message(source_of(root))
    fake.salient_imagenet(root, (40, 50))
    image = root / "ILSVRC2012/train" / fake.TENCH / f"{fake.TENCH}_a.JPEG"
    turned = Image.Exif()
    turned[0x0112] = 6
    fake.write_jpeg(image, fake.picture(5), exif=turned)
    assert f"{image} is turned by its EXIF orientation" in message(source_of(root))
    image.unlink()
    assert f"{image} cannot be read: No such file" in message(source_of(root))


def test_what_is_no_such_dataset_is_an_error(root):
    with pytest.raises(ValueError, match="features must be one of core, spurious; got 'all'"):
        source_of(root, features="all")
    answers = root / "mturk_results/discover_spurious_features.csv"
    images = root / "ILSVRC2012/train"
    with pytest.raises(ValueError, match=r"has no folder of a class, as n01440764, with images of"):
        from_salient_imagenet(root, images=images, answers=answers)
