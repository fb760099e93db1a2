"""Pictures of every kind that people have on disk; each file is made here."""

import io
import struct
import zlib

import numpy as np
import pytest
import skimage.data
from PIL import Image

from lmjax.data.files.images import read_image, read_mask, read_saliency

COLOURS = np.asarray(Image.fromarray(skimage.data.chelsea()).resize((45, 30)))
GREY = np.asarray(Image.fromarray(COLOURS).convert("L"))
DISC = (np.arange(30)[:, None] - 10) ** 2 + (np.arange(45) - 20) ** 2 < 64


def save(path, image, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_lossless_pictures_come_back_as_they_were(tmp_path, suffix):
    path = save(tmp_path / f"cat.{suffix}", COLOURS)
    for file in (path, str(path), path.read_bytes()):
        image = read_image(file)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, COLOURS)


def test_grey_pictures_have_three_equal_channels(tmp_path):
    expected = np.repeat(GREY[..., None], 3, axis=-1)
    np.testing.assert_array_equal(read_image(save(tmp_path / "grey.png", GREY)), expected)
    bits = save(tmp_path / "bits.png", Image.fromarray(DISC))
    np.testing.assert_array_equal(read_image(bits)[..., 1], DISC * 255)


def test_palettes_are_looked_up(tmp_path):
    few = Image.fromarray(COLOURS).quantize(16)
    expected = np.asarray(few.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(few)]
    np.testing.assert_array_equal(read_image(save(tmp_path / "few.png", few)), expected)
    transparent = save(tmp_path / "transparent.png", few, transparency=b"\x00\x80" * 8)
    np.testing.assert_array_equal(read_image(transparent), expected)


def test_opacity_is_dropped(tmp_path):
    pixels = np.concatenate([COLOURS, DISC[..., None] * np.uint8(200)], axis=-1)
    np.testing.assert_array_equal(read_image(save(tmp_path / "hole.png", pixels)), COLOURS)


def test_inks_become_light(tmp_path):
    inks = Image.new("CMYK", (16, 8), (255, 0, 0, 0))  # cyan
    image = read_image(save(tmp_path / "ink.jpg", inks, quality=100))
    assert image.shape == (8, 16, 3)
    np.testing.assert_allclose(image[4, 4], (0, 255, 255), atol=3)


def test_the_upper_8_of_16_bits_are_kept_in_png(tmp_path):
    fine = GREY.astype(np.uint16) * 256 + 77
    image = read_image(save(tmp_path / "fine.png", fine))
    np.testing.assert_array_equal(image, np.repeat(GREY[..., None], 3, axis=-1))


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int32])
def test_values_without_an_agreed_range_are_refused(tmp_path, kind):
    path = save(tmp_path / "microscope.tif", GREY.astype(kind) * 7)
    with pytest.raises(ValueError, match=r"microscope\.tif cannot be read.*no agreed range"):
        read_image(path)


def png_with_16_bits(colours, pixels):
    """A row of pixels in a PNG, whose colours are of type 2 (RGB) or 4 (grey and opacity)."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    row = b"\0" + np.asarray(pixels, ">u2").tobytes()
    header = struct.pack(">IIBBBBB", len(pixels), 1, 16, colours, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_colours_of_16_bits_are_images_but_no_masks():
    colours = png_with_16_bits(2, [[0x1234, 0xABCD, 3], [0, 0, 3]])
    np.testing.assert_array_equal(read_image(colours), [[[0x12, 0xAB, 0], [0, 0, 0]]])
    opacity = png_with_16_bits(4, [[3, 0xFFFF], [0, 0xFFFF]])
    for content in (colours, opacity):  # Pillow would make 3 to 0, beside the object
        with pytest.raises(ValueError, match=r"mask 1 cannot be read: its colours have 16 bits"):
            read_mask(content, name="mask 1")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_and_masks_are_turned_as_they_are_displayed(tmp_path, orientation):
    # What EXIF 2.32 says of the stored row 0 and column 0, for each orientation.
    displayed = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }[orientation]
    image = save(tmp_path / "turned.png", COLOURS, exif=exif(orientation))
    np.testing.assert_array_equal(read_image(image), displayed(COLOURS))
    mask = save(tmp_path / "mask.png", DISC.astype(np.uint8), exif=exif(orientation))
    np.testing.assert_array_equal(read_mask(mask), displayed(DISC))


NO_EXIF = {
    "text": b"Exif\0\0no TIFF at all",
    "header": b"Exif\0\0II*\0",
    "tag": b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03",
    "orientation": exif(99).tobytes(),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", NO_EXIF)
def test_exif_that_makes_no_sense_says_nothing(tmp_path, name):
    path = save(tmp_path / "cat.png", COLOURS, exif=NO_EXIF[name])
    np.testing.assert_array_equal(read_image(path), COLOURS)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_animations_the_first_frame_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = save(
        tmp_path / f"film.{suffix}", frames[0], save_all=True, append_images=frames[1:], duration=9
    )
    with Image.open(path) as film:
        assert film.n_frames == 2
    np.testing.assert_allclose(read_image(path)[4, 4].astype(int), (255, 0, 0), atol=3)


def broken():
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "jpeg")
    whole = file.getvalue()
    png = io.BytesIO()
    Image.fromarray(COLOURS).save(png, "png")
    return {
        "half": whole[: len(whole) // 2],
        "header": whole[:30],
        "empty": b"",
        "text": b"<html>404 Not Found</html>",
        "png": png.getvalue()[:200],
        "checksum": png.getvalue()[:60] + b"\xff\xff" + png.getvalue()[62:],
    }


@pytest.mark.parametrize(("name", "content"), broken().items(), ids=list(broken()))
@pytest.mark.parametrize("read", [read_image, read_mask, read_saliency])
def test_damaged_files_are_refused_by_name(tmp_path, name, content, read):
    path = tmp_path / f"{name}.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}\.jpg cannot be read: \w"):
        read(path)
    with pytest.raises(ValueError, match=r"record 7 cannot be read"):
        read(content, name="record 7")


def test_what_is_wrong_is_said_the_same_way_every_time():
    """Errors are kept with rows, so no address in memory may be in them."""
    for content, reason in ((b"", "it is empty"), (b"<html>", "it is no picture of a kind that")):
        with pytest.raises(ValueError, match=f"picture cannot be read: {reason}"):
            read_image(content)


def test_pictures_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "bomb.png", COLOURS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"bomb\.png cannot be read: .*decompression bomb"):
        read_image(path)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.jpg cannot be read: No such file or directory$"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory$"):
        read_image(tmp_path)


def test_masks_are_true_where_there_is_anything(tmp_path):
    values = DISC * np.uint8(3)
    palette = Image.new("P", (45, 30))
    palette.putpalette([200] * 768)
    palette.putdata(values.ravel().tolist())
    cut_out = np.dstack([np.full((30, 45, 3), 255, np.uint8), DISC * np.uint8(255)])
    files = [
        save(tmp_path / "bits.png", Image.fromarray(DISC)),
        save(tmp_path / "one.png", DISC.astype(np.uint8)),
        save(tmp_path / "palette.png", palette),
        save(tmp_path / "fine.png", DISC * np.uint16(40000)),
        save(tmp_path / "red.png", DISC[..., None] * np.array([9, 0, 0], np.uint8)),
        save(tmp_path / "cut-out.png", cut_out),
        save(tmp_path / "grey.jpg", DISC * np.uint8(255), quality=95),
    ]
    for file in files:
        mask = read_mask(file)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, DISC, err_msg=file.name)


def test_masks_may_have_another_background_or_a_least_value(tmp_path):
    trimap = np.where(DISC, 1, 2).astype(np.uint8)
    trimap[0] = 3
    path = save(tmp_path / "trimap.png", trimap)
    np.testing.assert_array_equal(read_mask(path, background=2), trimap != 2)
    bits = save(tmp_path / "bits.png", Image.fromarray(DISC))  # white is 255, however it is kept
    np.testing.assert_array_equal(read_mask(bits, at_least=128), DISC)
    np.testing.assert_array_equal(read_mask(bits, background=255), ~DISC)
    votes = save(tmp_path / "votes.png", GREY)
    np.testing.assert_array_equal(read_mask(votes, at_least=128), GREY >= 128)


def test_transparent_colours_of_masks_are_beside_the_object(tmp_path):
    palette = Image.fromarray(DISC + np.uint8(1), "L").convert("P")
    palette.putpalette([200] * 768)
    grey = Image.fromarray(np.where(DISC, 9, 7).astype(np.uint8))
    colours = Image.fromarray(np.where(DISC[..., None], 9, (7, 8, 9)).astype(np.uint8))
    for name, picture, transparent in (
        ("palette.png", palette, 1),
        ("palette.gif", palette, 1),
        ("grey.png", grey, 7),
        ("colours.png", colours, (7, 8, 9)),
    ):
        path = save(tmp_path / name, picture, transparency=transparent)
        np.testing.assert_array_equal(read_mask(path), DISC, err_msg=name)


def test_masks_in_jpeg_have_no_other_background(tmp_path):
    path = save(tmp_path / "mask.jpg", ~DISC * np.uint8(255))
    with pytest.raises(ValueError, match=r"mask\.jpg cannot be read: JPEG blurs values.*at_least"):
        read_mask(path, background=255)


def test_heatmaps_are_grey_levels(tmp_path):
    saliency = read_saliency(save(tmp_path / "map.png", GREY))
    assert saliency.dtype == np.float32
    np.testing.assert_array_equal(saliency, GREY / np.float32(255))
