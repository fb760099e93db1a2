"""Examples of users' own sources."""

import numpy as np
import pytest
from PIL import Image

from lmjax.data.files.images import read_image
from lmjax.data.source import read_example

COLOURS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
MASK = np.arange(96).reshape(12, 8) % 5 == 0
TURNED = Image.Exif()
TURNED[0x0112] = 6


def pictures():
    colours = Image.fromarray(COLOURS)
    return {
        "turned.jpg": (colours, {"exif": TURNED}),
        "palette.gif": (colours.quantize(16), {}),
        "clear.png": (colours.quantize(16), {"transparency": 3}),
        "inks.jpg": (colours.convert("CMYK"), {}),
        "grey.png": (colours.convert("L"), {}),
        "fine.png": (Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257), {}),
    }


@pytest.mark.parametrize("label", [3.7, "cat", np.nan, np.eye(3)[1]], ids=str)
def test_labels_are_whole_numbers(label):
    with pytest.raises(ValueError, match="label of 0 must be a whole number; got "):
        read_example([{"image": COLOURS, "label": label}], 0)


@pytest.mark.parametrize(("label", "number"), [(np.int64(3), 3), (2.0, 2), (np.True_, 1)])
def test_labels_of_any_type_of_numbers(label, number):
    found = read_example([{"image": COLOURS, "label": label}], 0).label
    assert type(found) is int
    assert found == number


@pytest.mark.parametrize("name", pictures())
def test_pictures_of_pillow_are_read_as_their_files(tmp_path, name):
    picture, options = pictures()[name]
    picture.save(tmp_path / name, **options)
    expected = read_image(tmp_path / name)
    assert expected.shape == ((12, 8, 3) if name == "turned.jpg" else (8, 12, 3))
    with Image.open(tmp_path / name) as opened:
        for _ in range(2):  # it stays open
            found = read_example([{"image": opened}], 0)
            np.testing.assert_array_equal(found.image, expected)
    if not options and name != "inks.jpg" and picture.mode != "I;16":  # as it never was in a file
        in_memory = read_example([{"image": picture}], 0).image
        np.testing.assert_array_equal(in_memory, np.asarray(picture.convert("RGB")))


def test_masks_and_heatmaps_may_be_pictures_too(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "image.png", exif=TURNED)
    Image.fromarray(MASK.T[::-1]).save(tmp_path / "mask.png", exif=TURNED)
    with Image.open(tmp_path / "image.png") as image, Image.open(tmp_path / "mask.png") as mask:
        fields = dict.fromkeys(("object_mask", "tight_mask", "spurious_mask"), mask)
        grey = Image.fromarray(np.where(MASK, 255, 51).astype(np.uint8))
        found = read_example([{"image": image, "saliency": grey, **fields}], 0)
    assert found.image.shape[:2] == MASK.shape
    for field in fields:
        np.testing.assert_array_equal(getattr(found, field), MASK)
    np.testing.assert_allclose(found.saliency, np.where(MASK, 1, 0.2))


def test_a_picture_without_an_agreed_range_is_named():
    picture = Image.fromarray(np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"image 0 cannot be read: its values .*no agreed range"):
        read_example([{"image": picture}], 0)


def test_a_lossy_mask_without_its_file_is_read_as_one(tmp_path):
    """What WebP lost cannot be told from a picture that is open: values may be blurred."""
    mask = np.kron(MASK, np.ones((8, 8), bool))
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(tmp_path / "a.webp", quality=90)
    image = np.zeros((*mask.shape, 3), np.uint8)
    with Image.open(tmp_path / "a.webp") as opened:
        found = read_example([{"image": image, "object_mask": opened}], 0).object_mask
    assert np.mean(found != mask) < 0.01
