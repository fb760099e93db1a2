"""Methods and removals on a small network: the grid, the metrics, the table, what may fail."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

import lmjax
from lmjax.attribution.methods import WHOLE
from lmjax.explanation import compute
from lmjax.explanation.images import InputImage
from lmjax.explanation.metrics import HEADINGS
from tests.support.small_classifier import SmallClassifier, small_classifier

FAST = {
    **{"model": "resnet18_digits", "num_samples": 40, "segmenter": "grid"},
    "removal": ("layer", "black"),
}
ASKED = [(m, r) for m in ("hsic", "leave_one_out") for r in ("layer", "black")]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network(SmallClassifier):
    class_names = ("ant", "bee", "cat", "dog")

    @property
    def variables(self):
        return {"weights": self.weights}


@pytest.fixture(scope="module")
def network():
    return Network(small_classifier((48, 32, 3)).weights)


@pytest.fixture(scope="module", autouse=True)
def _small(network):
    """`lmjax.explain` on this network, and on an image of 6 squares."""
    image = np.asarray(jax.random.uniform(jax.random.key(1), (48, 32, 3)))
    mask = np.zeros((48, 32), bool)
    mask[10:30, 5:20] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "load", lambda *_, **__: network)
        patch.setattr(compute, "load_image", lambda *_: InputImage("small", image, 1, mask))
        yield


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A method that samples and one that does not, with metrics."""
    output = tmp_path_factory.mktemp("compared") / "a.png"
    explanation = lmjax.explain(
        method=("hsic", "leave_one_out"), metrics=True, **FAST, output=output
    )
    return explanation, json.loads(explanation.files[2].read_text())["results"]


def test_every_method_runs_under_every_removal_asked_for(compared):
    explanation, results = compared
    assert list(explanation.results) == ASKED
    assert list(results) == ["/".join(pair) for pair in ASKED]
    assert [results[name]["variants"] for name in results] == [41, 41, 7, 7]
    with np.load(explanation.files[1]) as arrays:
        assert arrays["hsic/black/standard_error"].shape == (6,)
        assert "leave_one_out/black/standard_error" not in arrays
        assert arrays["leave_one_out/layer/heatmap"].shape == (48, 32)


def test_the_figure_has_a_row_for_each_method(compared):
    explanation, _ = compared
    figure = explanation.figure()
    # Image, segments, which of them are hidden in a variant, and that under both removals.
    assert sum(len(ax.images) == 1 for ax in figure.axes) == 5
    panels = [ax for ax in figure.axes if len(ax.images) == 2]  # a heatmap over the image
    assert len(panels) == 4
    titles = [text.get_text() for ax in panels for text in ax.texts]
    assert titles == ["HSIC\n41 variants", "leave one out\n7 variants"]
    limits = [ax.images[-1].get_clim() for ax in panels]
    for row, (method, _) in zip((limits[:2], limits[2:]), ASKED[::2]):
        found = [explanation.results[method, r].attribution.scores for r in ("layer", "black")]
        assert row[0] == row[1]
        assert row[0][1] == pytest.approx(np.abs(found).max())
    assert limits[0][0] == 0  # HSIC has no sign
    assert limits[2][0] == -limits[2][1]
    with Image.open(explanation.files[0]) as image:
        assert np.asarray(image.convert("RGB")).std() > 10


def test_metrics_are_those_of_the_library(compared, network):
    explanation, results = compared
    attribution = explanation.results["hsic", "layer"].attribution
    given = explanation.image.pixels, attribution.heatmap
    removals = {
        "deletion_black": lmjax.Replace("black"),
        "insertion_blur": lmjax.Replace("rise_blur"),
        "deletion": lmjax.LayerMasking(),
        "insertion": lmjax.LayerMasking(),
    }
    with np.load(explanation.files[1]) as arrays:
        for name, removal in removals.items():
            metric = getattr(lmjax.metrics, name.split("_")[0])
            curve = metric(lmjax.Predictor(network, removal), *given, target=attribution.target)
            assert results["hsic/layer"][name] == pytest.approx(curve.normalised_auc, abs=1e-5)
            np.testing.assert_allclose(arrays[f"hsic/layer/{name}"], curve.values, atol=1e-5)
    mask = explanation.image.object_mask
    expected = {
        "relevance_rank_accuracy": lmjax.metrics.relevance_rank_accuracy(given[1], mask),
        "pointing_game": lmjax.metrics.pointing_game(given[1], mask, tolerance=0),
        "alignment": lmjax.metrics.alignment(attribution.scores, explanation.segments, mask),
    }
    assert {name: results["hsic/layer"][name] for name in expected} == pytest.approx(expected)


def test_scores_of_pixels_align_by_their_mean_over_segments(tmp_path):
    explanation = lmjax.explain(
        method=("occlusion",), segmenter="grid", removal=("black",), output=tmp_path / "b.png"
    )
    result = explanation.results["occlusion", "black"]
    heatmap, segments = result.attribution.heatmap, explanation.segments
    means = [heatmap[segment == segments].mean() for segment in range(6)]
    expected = lmjax.metrics.alignment(means, segments, explanation.image.object_mask)
    assert result.metrics["alignment"] == pytest.approx(expected)


def test_the_table_shows_every_number(compared):
    explanation, results = compared
    first, second, *rows = explanation.summary().splitlines()
    assert len({len(line) for line in rows}) == 1
    assert "deletion" in first
    assert second.split()[:2] == ["method", "removal"]
    for row, numbers in zip(rows, results.values()):
        for name in HEADINGS:
            assert f" {numbers[name]:.2f}" in row
        assert f" {numbers['variants']} " in row


def test_what_was_done_is_kept_when_a_later_method_fails(tmp_path, monkeypatch):
    attribute = compute.attribute

    def fails_at_rise(name, *arguments, **options):
        if name == "rise":
            raise ValueError("no more memory")
        return attribute(name, *arguments, **options)

    monkeypatch.setattr(compute, "attribute", fails_at_rise)
    with (
        pytest.warns(UserWarning, match="wrote the results before the error"),
        pytest.raises(ValueError, match="no more memory"),
    ):
        lmjax.explain(method=("hsic", "rise"), **FAST, output=tmp_path / "e.png")
    assert list(json.loads((tmp_path / "e.json").read_text())["results"]) == [
        "hsic/layer",
        "hsic/black",
    ]
    assert (tmp_path / "e.png").exists()
    assert (tmp_path / "e.npz").exists()


@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_methods_that_remove_nothing_or_must_paint(tmp_path):
    explanation = lmjax.explain(
        method=("lime", "gradient", "meaningful_perturbation"),
        metrics=True,
        **FAST,
        output=tmp_path / "f.png",
    )
    assert list(explanation.results) == [
        ("lime", "layer"),
        ("lime", "black"),
        ("gradient", WHOLE),
        ("meaningful_perturbation", "black"),
    ]
    curves = explanation.results["gradient", WHOLE].curves
    assert set(curves) == {"deletion_black", "insertion_blur"}
    assert " - " in explanation.summary()
    with pytest.raises(ValueError, match="removal must hold one that takes soft masks for method"):
        lmjax.explain(
            method=("meaningful_perturbation",), removal=("layer",), output=tmp_path / "g.png"
        )
