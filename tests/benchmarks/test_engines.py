"""The masks and networks of the benchmarks, and small runs of `benchmarks.engines`."""

import jax
import numpy as np
import pytest

from benchmarks import engines
from benchmarks.subjects import photograph, random_classifier, write_photographs
from lmjax.data import from_folder

IMAGE = photograph(64)


@pytest.mark.parametrize("kind", engines.KINDS)
def test_masks_show_the_share_that_their_name_says(kind):
    family, share = engines.KINDS[kind]
    masks = np.asarray(family(IMAGE, 40, share).masks())
    assert masks.shape[1:] == (64, 64)
    assert masks.any(axis=(1, 2)).all()
    if kind != "sliding occlusion":
        assert masks.mean() == pytest.approx(share, abs=0.1)


def test_sliding_occlusion_hides_every_pixel_and_no_window_is_missing():
    sweep = engines.sweep(IMAGE)
    hidden = ~np.asarray(sweep.masks())
    assert len(sweep) == 49  # 7 x 7 places of a 16-pixel hole, 8 pixels apart
    assert (hidden.sum(axis=(1, 2)) == 256).all()
    assert hidden.any(axis=0).all()


def test_photographs_are_read_as_a_source(tmp_path):
    size = write_photographs(tmp_path / "photographs", 3, width=100, height=75)
    source = from_folder(tmp_path / "photographs")
    assert len(source) == 3
    assert source[2].image.shape == (75, 100, 3)
    assert 1000 < size < 30_000


def test_random_networks_see_the_image():
    classifier = random_classifier("resnet18")
    images = np.stack([np.asarray(classifier.normalise(IMAGE)), np.zeros_like(IMAGE)])
    logits = np.asarray(jax.jit(lambda c, x: c.apply(x))(classifier, images))
    assert np.isfinite(logits).all()
    assert np.abs(logits[0] - logits[1]).max() > 0.01 * np.abs(logits).max()


def test_small_networks_of_every_family():
    chosen = engines.smallest_of_each_family()
    assert {"resnet18", "squeezenet1_1", "resnet18_digits"} <= set(chosen)
    assert "resnet50" not in chosen


@pytest.mark.slow
def test_engines_are_measured_against_the_recipe(capsys):
    engines.masks(("blob, 2%",), model="resnet18", variants=8, rounds=1, size=64)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "blob" in line]
    errors = {row[1]: row[-1].strip(" |") for row in rows}
    assert set(errors) >= {*engines.ENGINES, engines.RECIPE, engines.TORCHVISION}
    assert all(float(errors[engine]) < 1e-5 for engine in engines.ENGINES)


@pytest.mark.slow
def test_networks_are_measured_plain_and_masked(capsys):
    engines.networks(("squeezenet1_1", "resnet18_digits"), size=64, variants=2, rounds=1)
    published, bundled = (row.split(" | ") for row in capsys.readouterr().out.splitlines()[-3:-1])
    assert published[:2] == ["| squeezenet1_1", "1,235,496"]
    assert float(published[2]) < 1e-5
    assert bundled[0] == "| resnet18_digits"
    assert bundled[2].strip() == ""
    assert all(float(each) > 0 for each in (*published[3:5], *bundled[3:5]))


@pytest.mark.slow
def test_families_are_measured_against_pytorch(capsys):
    engines.families(("squeezenet1_1", "mobilenet_v2"), size=64, batch_size=2, rounds=1)
    *networks, mean = (row.split(" | ") for row in capsys.readouterr().out.splitlines()[-4:-1])
    assert [row[0] for row in networks] == ["| squeezenet1_1", "| mobilenet_v2"]
    assert mean[0] == "| geometric mean"
    of_each = [float(row[5].split(" ")[0]) for row in networks]
    assert float(mean[5]) == pytest.approx((of_each[0] * of_each[1]) ** 0.5, rel=0.02)
