"""Images that have their size already."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from lmjax import studies
from lmjax.models import Preprocessing
from lmjax.studies.images import ImageBatch
from lmjax.studies.sizes import as_they_are, check_size
from tests.studies import fakes

CROPPING = Preprocessing(resize=48, crop=fakes.SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)


def cropping():
    """A network that would see the middle of each image, enlarged."""
    return dataclasses.replace(fakes.network(), preprocessing=CROPPING)


class Larger(fakes.Source):
    """A source whose second image has another size."""

    version = "fake/larger"

    def __getitem__(self, index):
        item = super().__getitem__(index)
        border = {"mode": "constant"} if index == 1 else None
        if border:
            item["image"] = np.pad(item["image"], ((0, 4), (0, 6), (0, 0)), **border)
            item["object_mask"] = np.pad(item["object_mask"], ((0, 4), (0, 6)), **border)
        return item


def run(out, source, **options):
    networks = {"a": cropping()}
    return studies.run(fakes.Answers(), source, models=networks, output=out, **options)


def test_images_are_seen_as_they_are(tmp_path, monkeypatch):
    seen = []
    images = ImageBatch.images
    monkeypatch.setattr(
        ImageBatch, "images", lambda *given: seen.append(images(*given)) or seen[-1]
    )
    answered = run(tmp_path / "a", fakes.Source(3), already_sized=True)
    expected = np.stack([fakes.Source(3)[i]["image"] for i in range(3)]).astype(np.float32) / 255
    np.testing.assert_array_equal(seen[0], expected)
    plain = studies.run(
        fakes.Answers(), fakes.Source(3), models={"a": fakes.network()}, output=tmp_path / "b"
    )
    assert answered.column("probability").equals(plain.column("probability"))
    assert (
        not run(tmp_path / "c", fakes.Source(3))
        .column("probability")
        .equals(plain.column("probability"))
    )


def test_rows_of_images_as_they_are_do_not_mix_with_others(tmp_path):
    run(tmp_path, fakes.Source(3), already_sized=True)
    with pytest.raises(ValueError, match="preprocessing"):
        run(tmp_path, fakes.Source(3))


def test_an_image_of_another_size_has_no_rows_and_is_named(tmp_path):
    with pytest.warns(UserWarning, match="1 of 3 images could not be evaluated"):
        table = run(tmp_path, Larger(3), already_sized=True)
    assert table.column("image").to_pylist() == [0, 2]
    (error,) = studies.errors(tmp_path)
    assert "image fake/1 is 36 x 38 pixels" in error["error"]
    assert "leave already_sized (--already-sized) out" in error["error"]


def test_networks_of_one_size_say_which():
    network = SimpleNamespace(module=SimpleNamespace(image_size=32))
    check_size("vit", network, (32, 32, 3), "x")
    with pytest.raises(ValueError, match=r"image x is 32 x 33 .* takes 32 x 32; give images"):
        check_size("vit", network, (32, 33, 3), "x")


def test_what_cannot_be_left_uncropped_is_an_error():
    with pytest.raises(ValueError, match=r"networks\['a'\].*leave already_sized out"):
        as_they_are({"a": SimpleNamespace(preprocessing=object())})
