"""Pictures of every kind that people have on disk; each file is made here."""

import io
import struct
import zlib

import numpy as np
import pytest
import skimage.data
from PIL import Image

from lmjax.data.files.images import mask_rule, read_image, read_mask, read_saliency

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
    with pytest.raises(
        ValueError, match=r"mask\.jpg cannot be read: its comp.* blurs values.*at_least"
    ):
        read_mask(path, background=255)


def test_heatmaps_are_grey_levels(tmp_path):
    saliency = read_saliency(save(tmp_path / "map.png", GREY))
    assert saliency.dtype == np.float32
    np.testing.assert_array_equal(saliency, GREY / np.float32(255))


def in_bits(values, bits):
    """A grey PNG with values of a few bits."""
    file = io.BytesIO()
    height, width = values.shape
    shifted = values.astype(np.uint8)[..., None] >> np.arange(bits)[::-1] & 1
    rows = np.packbits(shifted.reshape(height, -1).astype(bool), axis=1)

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
    file.write(chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))))
    file.write(chunk(b"IEND", b""))
    return file.getvalue()


def pnm(values, largest, *, plain=False, colours=False):
    kind = {(0, 0): 5, (1, 0): 2, (0, 1): 6, (1, 1): 3}[plain, colours]
    pixels = np.repeat(values[..., None], 3, axis=-1) if colours else values
    header = f"P{kind}\n# a comment 9\n{values.shape[1]} {values.shape[0]} # 7\n{largest}\n"
    if plain:
        return f"{header}{' '.join(map(str, pixels.ravel().tolist()))}\n".encode()
    return header.encode() + pixels.astype(np.uint8 if largest < 256 else ">u2").tobytes()


def saved(picture, format, **options):
    file = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(file, format, **options)
    return file.getvalue()


CLASSES = np.where(DISC, 2, 1).astype(np.uint8)
CLASSES[:4], CLASSES[4:8] = 0, 3
CONTAINERS = {
    "8 bits": saved(CLASSES, "PNG"),
    "2 bits": in_bits(CLASSES, 2),
    "4 bits": in_bits(CLASSES, 4),
    "16 bits": saved(CLASSES.astype(np.uint16), "PNG"),
    "32 bits": saved(CLASSES.astype(np.int32), "TIFF"),
    "floats": saved(CLASSES.astype(np.float32), "TIFF"),
    "bmp": saved(CLASSES, "BMP"),
    "webp": saved(np.repeat(CLASSES[..., None], 3, axis=-1), "WEBP", lossless=True),
    "lzw": saved(CLASSES, "TIFF", compression="tiff_lzw"),
    **{
        f"pnm {largest}{' plain' * plain}{' colours' * colours}": pnm(
            CLASSES, largest, plain=plain, colours=colours
        )
        for largest in (3, 15, 200, 255, 1000, 65535)
        for plain in (False, True)
        for colours in (False, True)
    },
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_mask_is_the_same_in_every_container(container):
    content = CONTAINERS[container]
    for rule in ({}, {"background": 1}, {"background": 3}, {"at_least": 2}, {"at_least": 1}):
        wanted = (
            rule["at_least"] <= CLASSES
            if "at_least" in rule
            else rule.get("background", 0) != CLASSES
        )
        np.testing.assert_array_equal(read_mask(content, **rule), wanted, err_msg=str(rule))


def test_numbers_that_a_file_cannot_hold_are_refused():
    for content in (in_bits(CLASSES, 2), pnm(CLASSES, 3)):
        for rule in ({"at_least": 128}, {"background": 255}):
            with pytest.raises(ValueError, match=r"its values are from 0 to 3, so \w+=\d+ "):
                read_mask(content, **rule)
    for content, largest in ((saved(CLASSES, "PNG"), 255), (pnm(CLASSES, 65535), 65535)):
        for rule in ({"at_least": largest + 1}, {"background": largest + 1}):
            with pytest.raises(ValueError, match=rf"from 0 to {largest}, so \w+=\d+ cannot be me"):
                read_mask(content, **rule)
    with pytest.raises(ValueError, match="background=1 and at_least=2 both say"):
        read_mask(saved(CLASSES, "PNG"), background=1, at_least=2)
    with pytest.raises(ValueError, match="background=1 and at_least=2 both say"):
        mask_rule("1", "2")
    with pytest.raises(ValueError, match=r"whole numbers, and it holds 1\.5"):
        read_mask(saved(CLASSES / np.float32(2), "TIFF"))
    for content, message in ((pnm(CLASSES, 2), "holds 3"), (pnm(CLASSES, 3)[:-1], "ends after")):
        with pytest.raises(ValueError, match=f"cannot be read: .*{message}"):
            read_mask(content)


LOSSY = {
    "jpeg": ("JPEG", {"quality": 30}),
    "webp": ("WEBP", {"quality": 20}),
    "tiff": ("TIFF", {"compression": "jpeg"}),
}


@pytest.mark.parametrize("container", LOSSY)
def test_lossy_masks_are_right_or_refused(container):
    format, options = LOSSY[container]

    def lossy(values):
        return saved(np.repeat(values[..., None], 3, axis=-1).astype(np.uint8), format, **options)

    big = np.kron(DISC, np.ones((8, 8), bool))
    found = read_mask(lossy(big * 255))
    assert np.mean(found != big) < 0.01
    assert not read_mask(lossy(np.zeros((64, 64)))).any()
    for values in (big * 20, np.where(big, 200, 100)):  # numbers of classes
        with pytest.raises(ValueError, match="blurs values, and they are not just black and white"):
            read_mask(lossy(values))
    with pytest.raises(ValueError, match="blurs values, so background=255"):
        read_mask(lossy(big * 255), background=255)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "GIF"])
def test_black_on_transparent_is_the_object(format):
    options = {"lossless": True} if format == "WEBP" else {}
    for colour in (0, 255):
        pixels = np.dstack([np.full((30, 45, 3), colour), DISC * 255]).astype(np.uint8)
        np.testing.assert_array_equal(read_mask(saved(pixels, format, **options)), DISC)
    black = np.dstack([np.zeros((30, 45, 3)), np.full((30, 45), 255)]).astype(np.uint8)
    assert not read_mask(saved(black, format, **options)).any()


def test_palettes_in_an_accidental_order_are_refused():
    inverted = Image.fromarray(np.where(DISC, 0, 1).astype(np.uint8)).convert("P")
    inverted.putpalette([255] * 3 + [0] * 765)
    greys = Image.fromarray(CLASSES).convert("P")
    greys.putpalette([0] * 3 + [200] * 3 + [100] * 3 + [255] * 3)
    for picture, rule in ((inverted, {}), (greys, {"at_least": 128}), (greys, {"background": 100})):
        with pytest.raises(ValueError, match="palette is in another order than its colours"):
            read_mask(saved(picture, "PNG"), **rule)
    np.testing.assert_array_equal(read_mask(saved(greys, "PNG")), CLASSES > 0)
    # Writers of GIF number greys anew.
    np.testing.assert_array_equal(read_mask(saved(inverted, "GIF")), DISC)
    np.testing.assert_array_equal(read_mask(saved(greys, "GIF"), at_least=128), CLASSES % 2 == 1)


def test_formats_that_run_other_programs_are_not_opened(tmp_path):
    path = tmp_path / "photograph.jpg"  # an EPS file, which Pillow gives to Ghostscript
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    for read in (read_image, read_mask, read_saliency):
        with pytest.raises(ValueError, match=r"no picture of a kind that is read \(JPEG, PNG"):
            read(path)
