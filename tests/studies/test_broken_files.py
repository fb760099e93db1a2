"""A study of a folder where some files are broken: it counts them and goes on."""

import os
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from lmjax import studies
from lmjax.data import open_source
from tests.studies import fakes

OTHER_KINDS = {
    "cmyk.jpg": lambda image: image.convert("CMYK"),
    "grey.jpg": lambda image: image.convert("L"),
    "opacity.png": lambda image: image.convert("RGBA"),
    "palette.gif": lambda image: image.quantize(8),
    "sixteen.png": lambda image: Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257),
    "näme 日本.png": lambda image: image,
    os.fsdecode(b"no text \xfe.png"): lambda image: image,
}
TRUNCATED = {"half.png": 999, "half.jpg": 400, "nothing.png": 0}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures of all kinds that can be read, and others that are broken in some way."""
    image = Image.fromarray(fakes.Source(1)[0]["image"])
    mask = Image.fromarray(fakes.Source(1)[0]["object_mask"])
    images, masks = tmp_path / "images" / "0", tmp_path / "masks" / "0"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)

    def write(name, picture=image, mask=mask, **options):
        picture.save(images / name, **options)
        if mask is not None:
            mask.save((masks / name).with_suffix(".png"))

    for name, change in OTHER_KINDS.items():
        write(name, change(image))
    write("film.gif", save_all=True, append_images=[image.rotate(90)])
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = mask.transpose(Image.Transpose.ROTATE_270)
    write("turned.jpg", mask=upright, exif=turned)
    for name, length in TRUNCATED.items():
        write(name := name.replace("half.", f"half-{length}."))
        (images / name).write_bytes((images / name).read_bytes()[:length])
    write("page.png")
    (images / "page.png").write_bytes(b"<html>")
    write("alone.png", mask=None)
    write("small-mask.png", mask=mask.resize((9, 9)))
    write("mask-broken.png")
    (masks / "mask-broken.png").write_bytes(b"")
    write("microscope.tif", Image.fromarray(np.ones((32, 32), np.uint16)))
    write("bomb.png", Image.new("L", (100, 100)), mask=Image.new("1", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    write("circle.png")
    (images / "circle.png").unlink()
    (images / "circle.png").symlink_to("circle.png")
    write("nowhere.png")
    (images / "nowhere.png").unlink()
    (images / "nowhere.png").symlink_to("none.png")
    return tmp_path


class Network:
    """Never asked."""

    variables: ClassVar[dict] = {}
    preprocessing = fakes.AS_IT_IS
    apply = None


class Objects(fakes.Brightness):
    """A row for each image, with its object's share of it."""

    def rows(self, batch):
        shares = batch.object_masks("a").mean(axis=(1, 2)).tolist()
        return [{"image": s.index, "share": share} for s, share in zip(batch.samples, shares)]


EXPECTED = {
    "0/half-999.png": "images/0/half-999.png cannot be read",
    "0/half-400.jpg": "images/0/half-400.jpg cannot be read",
    "0/nothing.png": "images/0/nothing.png cannot be read: it is empty",
    "0/page.png": "images/0/page.png cannot be read: it is no picture",
    "0/alone.png": "image 0/alone.png has no object_mask, which this study needs",
    "0/small-mask.png": "masks/0/small-mask.png is 9 x 9 pixels",
    "0/mask-broken.png": "masks/0/mask-broken.png cannot be read: it is empty",
    "0/microscope.tif": "images/0/microscope.tif cannot be read: its values",
    "0/bomb.png": "images/0/bomb.png cannot be read: Image size (10000 pixels)",
    "0/circle.png": "images/0/circle.png cannot be read: Too many levels of symbolic links",
    "0/nowhere.png": "images/0/nowhere.png cannot be read: No such file",
}


def test_broken_files_are_counted_and_named(folder):
    source = open_source(f"folder:{folder / 'images'},masks={folder / 'masks'}")
    out, networks = folder / "out", {"a": Network()}
    good = len(OTHER_KINDS) + 2
    assert len(source) == good + len(EXPECTED)
    with pytest.warns(UserWarning, match=f"{len(EXPECTED)} of {len(source)} images could not be"):
        rows = studies.run(Objects(), source, models=networks, output=out)
    share = fakes.Source(1)[0]["object_mask"].mean()
    assert rows.column("share").to_pylist() == [share] * good
    errors = {source.rows[each["image"]].id: each["error"] for each in studies.errors(out)}
    assert errors.keys() == EXPECTED.keys()
    for name, message in EXPECTED.items():
        assert message in errors[name]


def test_errors_that_name_files_which_are_no_text_are_kept(tmp_path):
    name = os.fsdecode(b"\xfe.png")
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / name).write_bytes(b"")
    Image.fromarray(fakes.Source(1)[0]["image"]).save(tmp_path / "0" / "a.png")
    source, out = open_source(f"folder:{tmp_path}"), tmp_path / "out"
    with pytest.warns(UserWarning, match="1 of 2 images"):
        rows = studies.run(fakes.Brightness(), source, models={"a": Network()}, output=out)
    ((broken,),) = [studies.errors(out)]
    assert broken["error"].endswith("\\udcfe.png cannot be read: it is empty")
    studies.write(fakes.Brightness(), rows, out)
    with fakes.registered(fakes.Brightness):
        page = studies.report([out], tmp_path / "report.html")
    assert "udcfe" in page.read_text("utf-8")


def test_a_folder_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        studies.run(
            fakes.Brightness(), fakes.Source(1), models={"a": Network()}, output=tmp_path / "file"
        )
