"""A study of a folder where some files are broken: it counts them and goes on."""

from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from lmjax import studies
from lmjax.data import open_source
from tests.studies import fakes


@pytest.fixture
def folder(tmp_path):
    """Six images in two classes, four of them broken in some way."""
    source = fakes.Source(6)
    for i in range(6):
        item = source[i]
        for kind, pixels in (("images", item["image"]), ("masks", item["object_mask"])):
            path = tmp_path / kind / f"{i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    images, masks = tmp_path / "images", tmp_path / "masks"
    truncated = images / "0" / "0.png"
    truncated.write_bytes(truncated.read_bytes()[:999])
    (images / "0" / "2.png").write_bytes(b"<html>")
    (masks / "1" / "1.png").unlink()
    Image.fromarray(np.ones((9, 9), bool)).save(masks / "1" / "3.png")
    return tmp_path


class Network:
    """Never asked."""

    variables: ClassVar[dict] = {}
    preprocessing = fakes.AS_IT_IS
    apply = None


class Objects(fakes.Brightness):
    """A row for each image, with its object's share of it."""

    def rows(self, block):
        shares = block.object_masks("a").mean(axis=(1, 2)).tolist()
        return [{"image": s.index, "share": share} for s, share in zip(block.samples, shares)]


EXPECTED = {
    "0/0.png": "images/0/0.png cannot be read",
    "0/2.png": "images/0/2.png cannot be read",
    "1/1.png": "image 1/1.png has no object_mask, which this study needs",
    "1/3.png": "masks/1/3.png is 9 x 9 pixels",
}


def test_broken_files_are_counted_and_named(folder):
    source = open_source(f"folder:{folder / 'images'},masks={folder / 'masks'}")
    out, networks = folder / "out", {"a": Network()}
    with pytest.warns(UserWarning, match="4 of 6 images could not be evaluated"):
        rows = studies.run(Objects(), source, networks=networks, out=out)
    expected = {fakes.Source(6)[i]["object_mask"].mean() for i in (4, 5)}
    assert set(rows.column("share").to_pylist()) == expected
    errors = {source.rows[each["image"]].id: each["error"] for each in studies.errors(out)}
    assert errors.keys() == EXPECTED.keys()
    for name, message in EXPECTED.items():
        assert message in errors[name]
