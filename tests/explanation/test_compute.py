"""The explain command as a function: what it computes, what it writes, what it refuses."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import lmjax
from lmjax import explain as command
from lmjax import plots
from lmjax.data import DigitScenes
from lmjax.explanation.photograph import read_picture

FAST = {"samples": 40, "segments": "grid", "removal": ("layer", "black")}
FEW_SAMPLES = "ignore:40 samples for 64 segments:UserWarning"  # on purpose


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    with pytest.warns(UserWarning, match="fewer than 10 a segment"):
        explanation = command.explain(**FAST, output=folder / "a.png")
    return folder, explanation


@pytest.fixture(scope="module")
def classifier():
    return lmjax.models.load("resnet18_digits")


def test_writes_a_figure_arrays_and_a_record(written):
    folder, _ = written
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a.npz", "a.png"]
    with Image.open(folder / "a.png") as figure:
        assert min(figure.size) > 300
        assert np.asarray(figure.convert("RGB")).std() > 10
    record = json.loads((folder / "a.json").read_text())
    assert record["settings"]["seed"] == 0
    assert record["settings"]["removal"] == ["layer", "black"]
    assert record["versions"]["lmjax"] == lmjax.__version__
    assert set(record["results"]) == {"lime/layer", "lime/black"}
    assert record["results"]["lime/layer"]["variants"] == 40
    assert record["true_label"] == DigitScenes("test")[0].label


def test_arrays_are_those_of_the_library(written, classifier):
    folder, _ = written
    scene = DigitScenes("test")[0]
    image = classifier.preprocessing(scene.image)
    segments = lmjax.segments.grid(image)
    key, _ = jax.random.split(jax.random.key(0))
    predictor = lmjax.Predictor(classifier, lmjax.Replace("black"))
    with pytest.warns(UserWarning, match="fewer than 10"):
        expected = lmjax.attribution.lime(predictor, image, segments, key=key, num_samples=40)
    with np.load(folder / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["image"], image)
        np.testing.assert_array_equal(arrays["segments"], segments)
        np.testing.assert_array_equal(arrays["object_mask"], scene.object_mask)
        np.testing.assert_allclose(arrays["lime/black/scores"], expected.scores, atol=1e-6)
        heatmap = arrays["lime/layer/scores"][segments]
        np.testing.assert_array_equal(arrays["lime/layer/heatmap"], heatmap)


@pytest.mark.filterwarnings(FEW_SAMPLES)
def test_same_seed_same_result(written, tmp_path):
    folder, _ = written
    command.explain(**FAST, output=tmp_path / "b.png")
    with np.load(folder / "a.npz") as first, np.load(tmp_path / "b.npz") as second:
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.filterwarnings(FEW_SAMPLES)
def test_a_photograph_and_a_named_target(tmp_path):
    scene = DigitScenes("test")[3]
    Image.fromarray(scene.image).resize((200, 150)).save(tmp_path / "photo.jpg")
    explanation = command.explain(
        str(tmp_path / "photo.jpg"),
        **FAST | {"removal": ("grey",)},
        target="3",
        output=tmp_path / "c.svg",
    )
    result = explanation.results["lime", "grey"]
    assert result.attribution.target == 3
    assert result.numbers == {}
    assert "relevance" not in command.summary(explanation)
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")


def test_classes_by_name_and_number(classifier):
    assert command.find_class("7", classifier) == 7
    assert command.find_class(None, classifier) is None
    with pytest.raises(ValueError, match="target 'seven' is no class"):
        command.find_class("seven", classifier)


def test_removals_by_default_are_those_of_the_network():
    assert command._check_removals(None, "resnet18") == ("layer", "grey", "black")
    assert command._check_removals(None, "vit_b_16") == ("token_dropping", "grey", "black")


BAD = {
    "missing image": ({"image": "nowhere.png"}, FileNotFoundError, "nowhere.png is not a file"),
    "scene": ({"image": "scene:x"}, ValueError, "give a number after scene:"),
    "model": ({"model": "resnet5"}, ValueError, "no network 'resnet5'"),
    "weights": ({"weights": "no.safetensors"}, FileNotFoundError, "no.safetensors"),
    "segments": ({"segments": "snic"}, ValueError, "segments must be one of slic"),
    "removal": ({"removal": ("blak",)}, ValueError, "removal must be one of.*got 'blak'"),
    "other networks'": (
        {"model": "vit_b_16", "removal": ("grey", "layer")},
        ValueError,
        r"masking must be lmjax.TokenDropping\(\) in a transformer",
    ),
    "no removal": ({"removal": ()}, ValueError, "got none"),
    "target": ({"target": "10"}, ValueError, "target.*10"),
    "n_segments": ({"segments": "slic", "n_segments": 0}, ValueError, "n_segments must be 1"),
    "seed": ({"seed": 2**70}, ValueError, "seed must be from 0"),
    "classes": ({"num_classes": 3}, ValueError, "num_classes=10"),
    "samples": ({"samples": 0}, ValueError, "samples must be 2 or more for lime"),
    "method": ({"method": ("lim",)}, ValueError, "method must be one or more of.*got lim"),
    "no samples": ({"method": ("leave_one_in",)}, ValueError, "samples means nothing to leave_one"),
    "suffix": ({"output": "a.gif"}, ValueError, "output must end in .png"),
    "folder": ({"output": "none/a.png"}, FileNotFoundError, "output folder none does not exist"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings(FEW_SAMPLES, "ignore:0 samples:UserWarning")
def test_bad_input_names_the_argument_and_leaves_nothing(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message):
        command.explain(**FAST | {"output": "a.png"} | arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a picture", "truncated"])
def test_an_unreadable_image(content, tmp_path, classifier):
    path = tmp_path / "photo.png"
    if content == "truncated":
        Image.fromarray(DigitScenes("test")[0].image).save(path)
        content = path.read_bytes()[:5000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"photo\.png cannot be read"):
        read_picture(str(path), classifier)


def test_nothing_is_written_when_the_figure_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save", lambda *_, **__: 1 / 0)
    with pytest.warns(UserWarning, match="fewer"), pytest.raises(ZeroDivisionError):
        command.explain(**FAST, output=tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_the_image_is_not_overwritten(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(DigitScenes("test")[0].image).save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is the image itself"):
        command.explain(str(path), **FAST, output=path)
    assert path.read_bytes() == before


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a\.npz is a folder"):
        command.explain(**FAST, output=tmp_path / "a.png")
