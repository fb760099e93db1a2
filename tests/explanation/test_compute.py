"""`lmjax.explain`: what it computes, what it writes, what it refuses."""

import dataclasses
import inspect
import json

import jax
import numpy as np
import pytest
from PIL import Image

import lmjax
from lmjax import plots
from lmjax.attribution import methods
from lmjax.data import DigitScenes
from lmjax.explanation import ExplanationConfig
from lmjax.explanation.classes import find_class
from lmjax.explanation.images import load_image
from lmjax.explanation.removals import removals_for
from tests.support import small_digits

pytestmark = pytest.mark.usefixtures("small_network")

FAST = {
    **{"model": "resnet18_digits", "num_samples": 40, "segmenter": "grid"},
    "removal": ("layer", "black"),
}
FEW_SAMPLES = "ignore:40 samples for 64 segments:UserWarning"  # on purpose


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    with pytest.warns(UserWarning, match="fewer than 10 a segment"):
        explanation = lmjax.explain(**FAST, output=folder / "a.png")
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
def test_a_photograph_and_a_named_target(tmp_path):
    scene = DigitScenes("test")[3]
    Image.fromarray(scene.image).resize((200, 150)).save(tmp_path / "photo.jpg")
    explanation = lmjax.explain(
        str(tmp_path / "photo.jpg"),
        **FAST | {"removal": ("grey",)},
        target="3",
        output=tmp_path / "c.svg",
    )
    result = explanation.results["lime", "grey"]
    assert result.attribution.target == 3
    assert result.metrics == {}
    assert "relevance" not in explanation.summary()
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")


@pytest.mark.filterwarnings(FEW_SAMPLES)
def test_arrays_and_files_of_an_image_are_explained_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = DigitScenes("test")[3].image
    Image.fromarray(pixels).save("photo.png")
    options = FAST | {"removal": "black", "target": 3}
    explained = {
        "photo.png": lmjax.explain("photo.png", **options),
        "uint8": lmjax.explain(pixels, **options),
        "float32": lmjax.explain(pixels.astype(np.float32) / 255, **options),
    }
    expected = explained["photo.png"]["lime", "black"].attribution.scores
    for explanation in explained.values():
        np.testing.assert_array_equal(explanation["lime", "black"].attribution.scores, expected)
    assert [each.image.name for each in explained.values()] == ["photo.png", "array", "array"]
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]  # nothing is written


@pytest.mark.filterwarnings(FEW_SAMPLES)
def test_the_same_settings_give_what_is_written_at_once_when_saved_later(written, tmp_path):
    folder, _ = written
    config = ExplanationConfig(**FAST)
    explanation = lmjax.explain(config=config, method="lime", seed=1)
    assert explanation.files == ()
    assert explanation.config == ExplanationConfig(**FAST, seed=1)
    explanation = lmjax.explain(config=config)
    files = explanation.save(tmp_path / "a.png")
    assert [file.name for file in files] == ["a.png", "a.npz", "a.json"]
    with np.load(folder / "a.npz") as first, np.load(tmp_path / "a.npz") as second:
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert (folder / "a.png").read_bytes() == (tmp_path / "a.png").read_bytes()


@pytest.mark.filterwarnings(FEW_SAMPLES)
def test_a_classifier_takes_the_place_of_a_networks_name(written, classifier):
    _, by_name = written
    explanation = lmjax.explain(**FAST | {"model": classifier})
    for pair, result in by_name.results.items():
        np.testing.assert_array_equal(
            explanation[pair].attribution.scores, result.attribution.scores
        )
    with pytest.raises(ValueError, match="weights is for a model by its name"):
        lmjax.explain(model=classifier, weights="a.safetensors")


def test_an_explanation_prints_what_it_is(written):
    _, explanation = written
    assert repr(explanation) == "Explanation of scene:0 for class 8: lime/layer, lime/black"


def test_settings_are_the_signature():
    fields = dataclasses.fields(ExplanationConfig)
    parameters = inspect.signature(lmjax.explain).parameters
    assert list(parameters) == ["image", "config", "output", *(field.name for field in fields)]
    assert [parameters[field.name].default for field in fields] == [f.default for f in fields]


@pytest.fixture
def _of_others():
    """A method and a segmenter that another package registers."""

    def bright(predictor, image, segments, *, target=None):
        """Scores segments by their brightness."""
        whole = lmjax.attribution.leave_one_out(predictor, image, segments, target=target)
        means = [image[segments == label].mean() for label in range(segments.max() + 1)]
        return dataclasses.replace(whole, scores=np.array(means, np.float32))

    def halves(image):
        return np.broadcast_to(np.arange(image.shape[1]) * 2 // image.shape[1], image.shape[:2])

    methods.register("bright", bright, description="Scores segments by their brightness.")
    lmjax.segments.register("halves", halves, description="Two halves.")
    yield
    methods._REGISTRY.unregister("bright")
    lmjax.segments._REGISTRY.unregister("halves")


@pytest.mark.usefixtures("_of_others")
def test_methods_of_others_without_an_objective():
    with pytest.raises(ValueError, match="objective has no effect on method bright"):
        ExplanationConfig(method=("lime", "bright"), objective="logit")


@pytest.mark.filterwarnings(FEW_SAMPLES)
def test_the_objective_is_what_every_method_explains(classifier, tmp_path):
    explanation = lmjax.explain(
        **FAST | {"method": ("lime", "gradcam"), "removal": ("grey",)},
        objective="margin",
        output=tmp_path / "a.png",
    )
    key, _ = jax.random.split(jax.random.key(0))
    grey = lmjax.Predictor(classifier, lmjax.Replace("grey"))
    expected = lmjax.attribution.lime(
        grey,
        explanation.image.pixels,
        explanation.segments,
        key=key,
        num_samples=40,
        objective="margin",
    )
    found = explanation["lime", "grey"].attribution
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.record.settings["objective"] == "margin"
    assert explanation["gradcam", "whole"].attribution.record.settings["objective"] == "margin"
    assert json.loads((tmp_path / "a.json").read_text())["settings"]["objective"] == "margin"
    labels = [each.get_ylabel() for each in explanation.figure().axes]
    assert any(label.startswith("effect of a segment on the margin of") for label in labels)


@pytest.mark.usefixtures("_of_others")
def test_methods_and_segmenters_of_others_are_taken_by_name(tmp_path):
    explanation = lmjax.explain(
        **{"model": "resnet18_digits", "method": "bright", "segmenter": "halves"},
        removal="grey",
        output=tmp_path / "a.png",
    )
    attribution = explanation["bright", "grey"].attribution
    pixels = explanation.image.pixels
    expected = [pixels[:, :64].mean(), pixels[:, 64:].mean()]
    np.testing.assert_allclose(attribution.scores, expected, rtol=1e-5)
    assert "grey" in explanation.summary()
    assert list(json.loads((tmp_path / "a.json").read_text())["results"]) == ["bright/grey"]


def test_fills_are_names_like_others(any_size):
    fills = ["ring", "histogram", "samples", "biharmonic"]  # plain, of a key, of files, not JAX
    found = lmjax.explain(
        "photograph:chelsea",
        model=any_size,
        method="leave_one_out",
        removal=fills,
        segmenter="grid",
    )
    scores = np.stack([found["leave_one_out", name].attribution.scores for name in fills])
    assert np.isfinite(scores).all()
    assert len(np.unique(scores.round(9), axis=0)) == len(fills)


def test_classes_by_name_and_number(classifier):
    assert find_class("7", classifier) == 7
    assert find_class(None, classifier) is None
    with pytest.raises(ValueError, match="target 'seven' is no class"):
        find_class("seven", classifier)


def test_removals_by_default_are_those_of_the_network(classifier):
    assert removals_for(None, "resnet18") == ("layer", "grey", "black")
    assert removals_for(None, "vit_b_16") == ("token_dropping", "grey", "black")
    assert removals_for(None, classifier) == ("layer", "grey", "black")
    assert removals_for(None, lmjax.black_box(np.sum)) == ("grey", "black")
    assert ExplanationConfig(removal=("gray", "grey")).removal == ("grey",)


def test_functions_that_are_not_jax_are_explained(classifier, tmp_path):
    def network(images):
        return np.stack([images[:, :64].sum((1, 2, 3)), images[:, 64:].sum((1, 2, 3))], 1) / 1e3

    box = lmjax.black_box(network, preprocessing=classifier.preprocessing)
    options = {"method": "leave_one_out", "segmenter": "grid", "target": 0}
    explanation = lmjax.explain(model=box, **options, output=tmp_path / "a.png")
    assert explanation.removals == ("grey", "black")
    scores = explanation["leave_one_out", "black"].attribution.scores.reshape(8, 8)
    assert scores[:4].mean() > 0 > scores[4:].mean()
    assert json.loads((tmp_path / "a.json").read_text())["weights_sha256"] is None
    with pytest.raises(ValueError, match="removal must be one that paints"):
        lmjax.explain(model=box, **options, removal="layer")


def test_methods_with_a_budget_evaluate_no_more_than_it():
    options = FAST | {"num_samples": None, "budget": 140, "removal": ("grey",)}
    with (
        pytest.warns(UserWarning, match="140 samples for 64 segments"),
        pytest.warns(UserWarning, match="budget 140 does not bound leave_one_out, which evaluate"),
    ):
        found = lmjax.explain(method=("lime", "kernelshap", "leave_one_out"), **options)
    spent = {name: result.attribution.num_variants for (name, _), result in found.results.items()}
    assert spent == {"lime": 140, "kernelshap": 140, "leave_one_out": 65}


BAD = {
    "missing image": ({"image": "nowhere.png"}, FileNotFoundError, "nowhere.png is not a file"),
    "scene": ({"image": "scene:x"}, ValueError, "give a number after scene:"),
    "model": (
        {"model": "resnet5"},
        ValueError,
        "must be one of .*'resnet5'; did you mean resnet50",
    ),
    "weights": ({"weights": "no.safetensors"}, FileNotFoundError, "no.safetensors"),
    "segmenter": ({"segmenter": "snic"}, ValueError, "segmenter must be one of slic"),
    "removal": ({"removal": ("blak",)}, ValueError, "removal must be one of.*got 'blak'"),
    "other networks'": (
        {"model": "vit_b_16", "removal": ("grey", "layer")},
        ValueError,
        "removal layer does not go through a transformer; take token_dropping, or one that paints",
    ),
    "no removal": ({"removal": ()}, ValueError, "got none"),
    "target": ({"target": "10"}, ValueError, "target.*10"),
    "idle n_segments": (
        {"segmenter": "grid", "n_segments": 5},
        ValueError,
        "n_segments has no effect on segmenter grid; leave it out, or take slic_near",
    ),
    "an address": ({"image": "http://a.b/c.jpg"}, ValueError, "image http://a.b/c.jpg is an addr"),
    "n_segments": (
        {"segmenter": "slic", "n_segments": 0},
        ValueError,
        "n_segments must be a whole number, 1",
    ),
    "seed": ({"seed": 2**70}, ValueError, "seed must be a whole number from 0 to 4294967295"),
    "classes": ({"num_classes": 3}, ValueError, "num_classes=10"),
    "num_samples": ({"num_samples": 0}, ValueError, "num_samples must be 2 or more for lime"),
    "method": (
        {"method": ("lim",)},
        ValueError,
        "method must be one of .*did you mean lime",
    ),
    "no samples": (
        {"method": ("leave_one_in",)},
        ValueError,
        "num_samples has no effect on leave_one",
    ),
    "budget": (
        {"num_samples": None, "method": ("lime", "kernelshap"), "budget": 100},
        ValueError,
        "budget must be at least 134 for kernelshap, with 64 segments; got 100",
    ),
    "budget and samples": ({"budget": 100}, ValueError, "num_samples and budget both say"),
    "no budget": (
        {"num_samples": None, "method": ("leave_one_in",), "budget": 100},
        ValueError,
        "budget has no effect on leave_one_in",
    ),
    "objective": (
        {"objective": "entropy"},
        ValueError,
        "objective must be one of probability, logit, margin.*got 'entropy'",
    ),
    "suffix": ({"output": "a.gif"}, ValueError, "output must end in .png"),
    "engine": ({"engine": "fast"}, ValueError, "engine must be one of auto, dense"),
    "batch size": ({"batch_size": 0}, ValueError, "batch_size must be a whole number, 1 or more"),
    "array": ({"image": np.ones((2, 2, 3), np.int64)}, ValueError, "uint8 array.*got int64"),
    "colours": ({"image": np.full((2, 2, 3), 255.0)}, ValueError, r"display colours in \[0, 1\]"),
    "option": ({"segment": "slic"}, TypeError, "no option 'segment'.*did you mean segmenter"),
    "folder": ({"output": "none/a.png"}, FileNotFoundError, "output folder none does not exist"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings(FEW_SAMPLES, "ignore:0 samples:UserWarning")
def test_bad_input_names_the_argument_and_leaves_nothing(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message):
        lmjax.explain(**FAST | {"output": "a.png"} | arguments)
    assert not list(tmp_path.iterdir())


def test_a_file_of_weights_says_how_many_classes_there_are(tmp_path):
    file = str(small_digits.write(tmp_path / "three.safetensors", 0, num_classes=3))
    options = {**FAST, "method": "leave_one_out", "num_samples": None, "show_variants": 0}
    found = lmjax.explain("scene:0", weights=file, target=2, **options)
    assert found.classifier.class_names is None
    assert found.targets == (2,)
    with pytest.raises(ValueError, match="num_classes=3"):  # an explicit number is kept to
        lmjax.explain("scene:0", weights=file, num_classes=10, **options)


@pytest.mark.parametrize("content", [b"", b"not a picture", "truncated"])
def test_an_unreadable_image(content, tmp_path, classifier):
    path = tmp_path / "photo.png"
    if content == "truncated":
        Image.fromarray(DigitScenes("test")[0].image).save(path)
        content = path.read_bytes()[:5000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"photo\.png cannot be read"):
        load_image(str(path), classifier)


def test_nothing_is_written_when_the_figure_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save", lambda *_, **__: 1 / 0)
    with pytest.warns(UserWarning, match="fewer"), pytest.raises(ZeroDivisionError):
        lmjax.explain(**FAST, output=tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_the_image_is_not_overwritten(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(DigitScenes("test")[0].image).save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is the image itself"):
        lmjax.explain(str(path), **FAST, output=path)
    assert path.read_bytes() == before


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a\.npz is a folder"):
        lmjax.explain(**FAST, output=tmp_path / "a.png")


@pytest.mark.parametrize("model", [lambda image, masks: masks, 3])
def test_a_model_is_a_name_or_a_classifier(model):
    with pytest.raises(ValueError, match="model must be the name of a network, or a classifier"):
        lmjax.explain(np.zeros((8, 8, 3), np.uint8), model=model)
