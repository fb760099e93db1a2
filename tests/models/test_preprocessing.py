"""Preprocessing against torchvision's transforms on real photographs."""

import jax
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from lmjax.models import registry
from lmjax.models.preprocessing import Preprocessing
from tests.support.torch_reference import timm, torchvision

transforms = torchvision.transforms
MODES = transforms.InterpolationMode


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(skimage.data.chelsea())  # a cat, 451 wide and 300 high


def reference(image, *, resize, crop, interpolation):
    steps = []
    if resize is not None:
        steps.append(transforms.Resize(resize, interpolation=MODES(interpolation)))
    if crop is not None:
        steps.append(transforms.CenterCrop(crop))
    steps.append(transforms.ToTensor())
    return transforms.Compose(steps)(image).numpy().transpose(1, 2, 0)


SETTINGS = [
    {"resize": 256, "crop": 224, "interpolation": "bilinear"},
    {"resize": 232, "crop": 224, "interpolation": "bilinear"},
    {"resize": 235, "crop": 224, "interpolation": "bicubic"},
    {"resize": 168, "crop": 160, "interpolation": "bicubic"},
    {"resize": 99, "crop": None, "interpolation": "lanczos"},  # not square
    {"resize": 400, "crop": 333, "interpolation": "bicubic"},  # enlarged, odd
    {"resize": 64, "crop": 63, "interpolation": "nearest"},
    {"resize": None, "crop": 225, "interpolation": "bilinear"},
    {"resize": None, "crop": 401, "interpolation": "bilinear"},  # padded above and below
    {"resize": 100, "crop": 333, "interpolation": "bilinear"},  # padded on all sides
    {"resize": None, "crop": None, "interpolation": "bilinear"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_equals_torchvision(photograph, settings, turned):
    image = photograph.transpose(Image.Transpose.ROTATE_90) if turned else photograph
    expected = reference(image, **settings)
    for given in (image, np.asarray(image)):
        result = Preprocessing(**settings)(given)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, expected)


def publishers_input(tag: str, image: Image.Image) -> torch.Tensor:
    """What the network computes with: `[C, H, W]`, by torchvision alone."""
    name = registry.find_source(tag).network
    inputs = torchvision.models.get_model_weights(name)[tag.split(".")[-1]].transforms()(image)
    if name == "googlenet":  # normalises once more, inside the network
        network = torchvision.models.GoogLeNet(init_weights=False, transform_input=True)
        inputs = network._transform_input(inputs[None])[0]
    return inputs


def distinct(publisher: str) -> list[str]:
    """A tag of each setting; that tags have their publisher's setting is in test_registry.py."""
    tags = [tag for tag in registry.tags() if tag.startswith(publisher)]
    return list({registry.find_source(tag).preprocessing: tag for tag in tags}.values())


@pytest.mark.parametrize("tag", distinct("torchvision/"))
def test_network_input_equals_that_of_torchvisions_weights(photograph, tag):
    preprocessing = registry.find_source(tag).preprocessing
    expected = publishers_input(tag, photograph).numpy().transpose(1, 2, 0)
    result = preprocessing.normalise(preprocessing(photograph))
    np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "CMYK", "YCbCr"])
def test_other_colour_modes_become_rgb(photograph, mode):
    image = photograph.convert(mode)
    expected = reference(image.convert("RGB"), resize=64, crop=48, interpolation="bilinear")
    np.testing.assert_array_equal(Preprocessing(resize=64, crop=48)(image), expected)


def test_transparency_is_dropped_not_composited(photograph):
    image = photograph.copy()
    image.putalpha(0)
    expected = Preprocessing(64, 48)(photograph)
    np.testing.assert_array_equal(Preprocessing(64, 48)(image), expected)
    np.testing.assert_array_equal(Preprocessing(64, 48)(np.asarray(image)), expected)


def test_palette_with_transparency_keeps_its_colours(photograph):
    image = photograph.quantize(16)
    expected = Preprocessing(64, 48)(image.convert("RGB"))
    image.info["transparency"] = bytes(range(16))
    np.testing.assert_array_equal(Preprocessing(64, 48)(image), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_respected(photograph, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph.save(tmp_path / "photo.png", exif=exif)
    rows = np.asarray(photograph)
    upright = {  # EXIF 2.32, table "Orientation": which way the stored rows and columns run
        1: rows,
        2: rows[:, ::-1],
        3: rows[::-1, ::-1],
        4: rows[::-1],
        5: rows.transpose(1, 0, 2),
        6: rows[::-1].transpose(1, 0, 2),
        7: rows[::-1, ::-1].transpose(1, 0, 2),
        8: rows[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    with Image.open(tmp_path / "photo.png") as image:
        result = Preprocessing(64, 48)(image)
    np.testing.assert_array_equal(result, Preprocessing(64, 48)(upright))


def test_number_of_channels_follows_the_mean(photograph):
    grey = Preprocessing(64, 48, mean=(0.5,), std=(0.5,))
    expected = reference(photograph.convert("L"), resize=64, crop=48, interpolation="bilinear")
    np.testing.assert_array_equal(grey(photograph), expected)

    five = Preprocessing(64, 48, mean=(0.5,) * 5, std=(0.5,) * 5)
    rgb = np.asarray(photograph)
    result = five(np.concatenate([rgb, rgb[..., :2]], axis=-1))
    np.testing.assert_array_equal(result[..., 3:], Preprocessing(64, 48)(photograph)[..., :2])
    with pytest.raises(ValueError, match="network of 5 channels"):
        five(photograph)
    with pytest.raises(ValueError, match="6 channels, the network takes 5"):
        five(np.zeros((9, 9, 6), np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        Image.new("F", (8, 8)),
        Image.new("I", (8, 8)),
        Image.new("I;16", (8, 8)),
    ],
    ids=["float", "batch", "empty", "F", "I", "I;16"],
)
def test_images_without_an_agreed_range_are_refused(image):
    with pytest.raises(ValueError, match="image"):
        Preprocessing()(image)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_mask_follows_the_image(photograph, settings):
    rows, columns = np.mgrid[:300, :451]
    mask = (rows - 120) ** 2 + (columns - 250) ** 2 < 90**2
    painted = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    preprocessing = Preprocessing(**settings)
    result = preprocessing.for_mask(mask)
    image = preprocessing(painted)
    assert result.dtype == bool
    assert result.shape == image.shape[:2]
    assert (result == (image[..., 0] > 0.5)).mean() > 0.99
    np.testing.assert_array_equal(preprocessing.for_mask(mask.astype(np.float32)), result)


def test_mask_is_nearest_neighbour():
    mask = np.random.default_rng(0).random((37, 53)) < 0.5
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    expected = reference(image, resize=64, crop=48, interpolation="nearest")[..., 0] > 0
    np.testing.assert_array_equal(Preprocessing(64, 48).for_mask(mask), expected)


@pytest.mark.parametrize(("resize", "crop"), [(64, 48), (20, 32), (None, 40), (64, None)])
def test_heatmaps_go_with_their_photograph(resize, crop):
    heatmap = np.random.default_rng(0).random((37, 53), np.float32)
    image = Image.fromarray(heatmap)  # floating point, which Pillow does not round
    steps = [] if resize is None else [transforms.Resize(resize)]
    steps += [] if crop is None else [transforms.CenterCrop(crop)]
    expected = np.asarray(transforms.Compose(steps)(image))
    result = Preprocessing(resize, crop).for_heatmap(heatmap)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


def test_heatmaps_are_checked():
    with pytest.raises(ValueError, match=r"\[H, W\], got shape \(2, 8, 8\)"):
        Preprocessing().for_heatmap(np.zeros((2, 8, 8)))
    with pytest.raises(ValueError, match="NaN"):
        Preprocessing().for_heatmap(np.full((8, 8), np.nan))


def test_mask_values_and_shape_are_checked():
    with pytest.raises(ValueError, match=r"0 and 1 only, found \[0.5, 2.0\]"):
        Preprocessing().for_mask(np.array([[0.0, 0.5], [2.0, 1.0]]))
    with pytest.raises(ValueError, match=r"\[H, W\], got shape \(2, 8, 8\)"):
        Preprocessing().for_mask(np.zeros((2, 8, 8)))


def test_normalise_is_per_channel_and_works_under_jit():
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    images = np.random.default_rng(0).random((2, 5, 6, 3), dtype=np.float32)
    expected = (images - np.array([0.1, 0.2, 0.3])) / np.array([1.0, 2.0, 4.0])
    for function in (preprocessing.normalise, jax.jit(preprocessing.normalise)):
        np.testing.assert_allclose(function(images), expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(function(images[0]), expected[0], rtol=1e-6, atol=1e-7)
    with jax.numpy_dtype_promotion("strict"):
        half = preprocessing.normalise(images.astype(np.float16))
    np.testing.assert_allclose(half, expected, atol=0.01)
    assert half.dtype == np.float32
    with pytest.raises(ValueError, match=r"\[..., H, W, 3\].*got shape \(2, 5, 6, 1\)"):
        preprocessing.normalise(images[..., :1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 0}, "resize must be a whole number, 1 or more"),
        ({"crop": 2.5}, r"crop must be a whole number, 1 or more .*got 2\.5"),
        ({"interpolation": "cubic"}, "bicubic.*got 'cubic'"),
        ({"antialias": False}, "antialias must be True"),
        ({"mean": (0.5,)}, "one number for each channel, got 1 and 3"),
        ({"std": (1, 0, 1)}, "std must be a finite number above 0"),
        ({"std": (np.nan,) * 3}, "std must be a finite number above 0"),
        ({"mean": (123.7, 116.3, 103.5)}, r"mean must be .* at most 1 .*divide those of 0\.\.255"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**options)


def test_is_static():
    settings = Preprocessing(mean=[0.5, 0.5, 0.5], std=np.ones(3))
    assert hash(settings) == hash(Preprocessing(mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0)))


@pytest.mark.parametrize("tag", distinct("timm/"))
def test_network_input_equals_that_of_timms_weights(photograph, tag):
    settings = timm.models.get_pretrained_cfg(tag.removeprefix("timm/")).to_dict()
    options = timm.data.resolve_data_config(pretrained_cfg=settings)
    expected = timm.data.create_transform(**options, is_training=False)(photograph)
    preprocessing = registry.find_source(tag).preprocessing
    result = preprocessing.normalise(preprocessing(photograph))
    np.testing.assert_allclose(result, expected.numpy().transpose(1, 2, 0), atol=2e-6)
