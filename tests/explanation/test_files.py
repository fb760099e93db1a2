"""Files that are explained, read as sources of images read them, and files that are written."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

import lmjax
from lmjax._utils.atomic import write_together
from lmjax.data.files.images import read_image
from lmjax.explanation.files import check_output, check_outputs
from lmjax.explanation.images import load_image

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def exif(orientation, *, damaged=False):
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x8298] = "somebody"
    content = tags.tobytes()
    return content[:20] + b"\xff" * 12 + content[32:] if damaged else content


def photographs():
    colours = Image.fromarray(COLOURS)
    return {
        "turned.jpg": (colours, {"exif": exif(6)}),
        "damaged.jpg": (colours, {"exif": exif(6, damaged=True)}),
        "short.jpg": (colours, {"exif": b"Exif\0\0II*\0"}),
        "odd.png": (colours, {"exif": exif(99)}),
        "fine.png": (Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257), {}),
        "grey.png": (Image.fromarray(COLOURS[..., 0]), {}),
        "inks.jpg": (colours.convert("CMYK"), {}),
        "palette.gif": (colours.convert("P"), {}),
        "cut-out.webp": (colours.convert("RGBA"), {"lossless": True}),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about EXIF
@pytest.mark.parametrize("name", photographs())
def test_photographs_are_read_as_by_sources(tmp_path, any_size, name):
    picture, options = photographs()[name]
    picture.save(tmp_path / name, **options)
    expected = any_size.preprocessing(read_image(tmp_path / name))
    np.testing.assert_array_equal(load_image(tmp_path / name, any_size).pixels, expected)
    with Image.open(tmp_path / name) as opened:
        found = load_image(opened, any_size)
        np.testing.assert_array_equal(found.pixels, expected)
        assert found.hash == load_image(tmp_path / name, any_size).hash
        if opened.mode[0] not in "IF":
            np.testing.assert_array_equal(any_size.preprocessing(opened), expected)


def test_other_formats_are_not_opened(tmp_path, any_size):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"image .*a\.jpg cannot be read: it is no picture of a"):
        load_image(path, any_size)


def test_only_explanations_are_replaced(tmp_path):
    output = tmp_path / "results.png"
    for name in ("results.npz", "results.json", "results.png"):
        other = tmp_path / name
        other.write_text('{"results": 3}')
        for check in (
            lambda: check_output(output),
            lambda: check_outputs(tmp_path, ["results.jpg"]),
            lambda: lmjax.explain("scene:0", output=output),
        ):
            with pytest.raises(ValueError, match=f"{name} exists and is not of an explanation"):
                check()
        assert other.read_text() == '{"results": 3}'
        other.unlink()
    record = {"settings": {}, "weights_sha256": None, "results": {}, "versions": {}}
    (tmp_path / "results.json").write_text(json.dumps(record))
    for suffix in (".npz", ".png"):
        output.with_suffix(suffix).write_text("")
    assert check_output(output)[0] == output


def test_names_that_leave_no_room_for_the_suffixes_are_refused_before_the_work(tmp_path):
    output = tmp_path / ("x" * 251 + ".png")  # with .json, one byte too many
    for options in ({}, {"html": True}):
        with pytest.raises(OSError, match=r"x\.json is too long for a file's name"):
            lmjax.explain("scene:0", weights="none", output=output, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:4 samples for:UserWarning")
def test_the_record_is_json_where_nothing_is_known_of_the_fit(tmp_path, any_size, photographs):
    options = {"model": any_size, "segmenter": "grid", "num_samples": 4, "removal": "black"}
    found = lmjax.explain(photographs[0], **options, output=tmp_path / "a.png")
    assert np.isnan(found["lime", "black"].attribution.r2)

    def refuse(constant):
        raise AssertionError(constant)

    record = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert record["results"]["lime/black"]["r2"] is None


@pytest.mark.parametrize("allowed", range(3))
def test_a_full_disk_leaves_all_files_or_none(tmp_path, monkeypatch, allowed):
    files = {tmp_path / name: name.encode() for name in "abc"}
    (tmp_path / "a").write_text("before")
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_together(files)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"
    monkeypatch.undo()
    write_together(files)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
