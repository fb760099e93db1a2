"""The tensorflow-datasets builder of cut-out scenes, without TensorFlow."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from lmjax.data import CutoutScenes, open_source, prepare_cutout_scenes
from tests.data.cutouts.test_recognition import LEMON, MUSHROOM, network
from tests.support import stamps as fake

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stamps, and a dataset made by the command in a process of its own, without TensorFlow."""
    folder = tmp_path_factory.mktemp("cutouts")
    stamps = fake.write(folder / "stamps")
    code = (
        "import sys; from lmjax.cli.main import main\n"
        f"main(['data', 'cutout-scenes', '--data-dir', {str(folder)!r}, '--length', '5', '--size',"
        f" '64', '--seed', '2', '--backgrounds', 'grey', '--stamps', {str(stamps)!r}])\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    (folder / "printed").write_text(done.stdout)
    return folder


def test_the_source_that_the_command_names_has_the_scenes(folder):
    printed = (folder / "printed").read_text()
    source = open_source(printed.split('--source "')[1].split('"')[0])
    scenes = CutoutScenes(length=5, size=64, seed=2, backgrounds="grey", stamps=folder / "stamps")
    assert len(source) == 5
    for example, scene in zip(source, scenes, strict=True):
        assert (example.id, example.label) == (scene.id, scene.label)
        for name in ("image", "object_mask", "tight_mask"):
            np.testing.assert_array_equal(getattr(example, name), getattr(scene, name), name)


OPTIONS = {"length": 5, "size": 64, "seed": 2, "backgrounds": "grey"}


def test_what_is_there_is_not_made_twice_nor_taken_for_other_scenes(folder, tmp_path):
    files = {f: f.stat().st_mtime_ns for f in folder.rglob("*.array_record*")}
    assert len(files) == 1
    prepare_cutout_scenes(folder, stamps=folder / "stamps", **OPTIONS)
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("*.array_record*")} == files
    others = fake.write(tmp_path)
    (others / f"{fake.NAMES[0]}.png").unlink()
    with pytest.raises(ValueError, match="holds scenes of other stamps or photographs"):
        prepare_cutout_scenes(folder, stamps=others, **OPTIONS)


def test_other_sides_are_another_dataset(folder, tmp_path):
    options = {**OPTIONS, "length": 1, "stamps": folder / "stamps"}
    builder = prepare_cutout_scenes(tmp_path, sides=(0.7, 1.0), **options)
    assert "size64_sides0.7-1[test]" in builder.source
    (example,) = open_source(builder.source)
    (usual,) = CutoutScenes(
        length=1, size=64, seed=2, **{k: options[k] for k in ("backgrounds", "stamps")}
    )
    assert example.object_mask.sum() > 2 * usual.object_mask.sum()


def test_with_a_network_scenes_are_those_it_recognises(folder, tmp_path, monkeypatch):
    asked = []

    def load(name, *, weights, num_classes):
        asked.append((name, weights))
        return dataclasses.replace(network(), variables=variables)

    variables = network().variables

    monkeypatch.setattr("lmjax.models.loading.load", load)
    options = {"per_stamp": 2, "network": "net=a/w.pth", "backgrounds": "grey"}
    made = prepare_cutout_scenes(tmp_path, stamps=folder / "stamps", length=4, **options)
    assert set(asked) == {("net", "a/w.pth")}
    assert made.builder_config.name == "grey4_each2_seed0_size256_net-a-w.pth"
    records = list(made.as_data_source("test"))
    assert sorted(record["label"] for record in records) == [MUSHROOM, MUSHROOM, LEMON, LEMON]
    for record in records:
        assert record["label"] in record["classes"]
        assert record["photograph"] == b"grey"
    with pytest.raises(ValueError, match=r"length must be at most 4: net=a/w.pth recognises"):
        prepare_cutout_scenes(tmp_path, stamps=folder / "stamps", length=5, **options)
    variables = jax.tree.map(lambda x: x + 1, variables)  # the file holds others by now
    with pytest.raises(ValueError, match=r"scenes that other weights of net=a/w\.pth recognised"):
        prepare_cutout_scenes(tmp_path, stamps=folder / "stamps", length=4, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be a whole number, 1 or more; got 0"),
        ({"per_stamp": 0}, "per_stamp must be"),
        ({"length": 10}, "length must be at most 9: per_stamp 3 of each of 3 stamps; got 10"),
        ({"size": 5}, "size must be"),
        ({"network": "resnet17"}, "resnet17"),
    ],
)
def test_bad_options_are_errors(folder, tmp_path, options, message):
    given = {"length": 3, "backgrounds": "grey", **options}
    with pytest.raises(ValueError, match=message):
        prepare_cutout_scenes(tmp_path, stamps=folder / "stamps", **given)
    assert not list(tmp_path.rglob("*.array_record*"))
