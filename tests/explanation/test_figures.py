"""Figures of explanations: the whole photograph, what was shown, reasons, long names, formats."""

import dataclasses
import io
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import lmjax
from lmjax import plots
from lmjax.attribution import Attribution
from lmjax.explanation.images import load_image
from lmjax.explanation.render import meaningless
from tests.support.any_size_network import NAMES

FAST = {"segmenter": "grid", "num_samples": 40, "removal": ("layer", "black")}
pytestmark = pytest.mark.filterwarnings("ignore:40 samples for:UserWarning")


@pytest.fixture
def explain(photographs, any_size):
    return lambda **options: lmjax.explain(photographs[0], **FAST | {"model": any_size} | options)


@pytest.mark.parametrize("orientation", [1, 6])
def test_what_the_network_sees_is_found_in_the_whole_photograph(
    orientation, any_size, photographs, tmp_path
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(photographs[0]) as photograph:
        photograph.save(tmp_path / "turned.png", exif=exif)
    seen = load_image(tmp_path / "turned.png", any_size)
    assert seen.photograph.shape == ((54, 36, 3) if orientation == 6 else (36, 54, 3))
    top, left = seen.corner
    np.testing.assert_array_equal(seen.photograph[top : top + 32, left : left + 32], seen.pixels)


def test_heatmaps_lie_on_the_whole_photograph_within_the_frame(explain):
    explanation = explain()
    figure = explanation.figure()
    (top, left), panels = explanation.image.corner, [a for a in figure.axes if len(a.images) == 2]
    assert len(panels) == 2
    for ax in panels:
        under, heatmap = ax.images
        assert under.get_array().shape == (36, 54)
        assert heatmap.get_extent() == [left - 0.5, left + 31.5, top + 31.5, top - 0.5]
        assert sorted(ax.get_xlim()) == [-0.5, 53.5]
    assert "the network sees the frame" in figure.axes[0].get_title()


def test_a_note_says_how_to_read_what_is_there(explain):
    def foot(**options):
        texts = [text.get_text() for text in explain(**options).figure().texts]
        return " ".join(" ".join(texts).split())

    both = foot()
    assert "R²: how well a linear model" in both
    assert "Checks: the network is shown nothing there." in both
    painted = foot(removal=("black",))
    assert "R²" in painted
    assert "Checks" not in painted
    plain = {"method": ("lime", "leave_one_out"), "show_variants": 0}
    assert "Checks" not in foot(**plain)
    assert "R²" not in foot(method="leave_one_out", num_samples=None)


def test_notebooks_show_an_explanation_as_its_figure(explain):
    explanation = explain(removal=("grey",))
    contents = explanation._repr_png_()
    with Image.open(io.BytesIO(contents)) as picture:
        assert np.asarray(picture.convert("RGB")).std() > 10
    assert dataclasses.replace(explanation, results={})._repr_png_() is None


def test_without_a_crop_the_network_sees_the_whole(explain, any_size):
    explanation = explain(crop=False)
    assert explanation.image.pixels.shape == (36, 54, 3)
    assert explanation.image.photograph is None
    assert explanation["lime", "layer"].attribution.heatmap.shape == (36, 54)
    fixed = lmjax.black_box(
        lambda images: images.mean((1, 2)), preprocessing=any_size.preprocessing
    )
    object.__setattr__(fixed, "module", SimpleNamespace(image_size=32))
    with pytest.raises(ValueError, match=r"--no-crop.*takes 32 x 32 pixels only"):
        explain(model=fixed, crop=False, removal="black")


def test_variants_are_shown_as_the_network_was_given_them(explain, any_size):
    explanation = explain(show_variants=2)
    image = explanation.image.pixels
    assert len(explanation.variants) == 2
    for variant in explanation.variants:
        masks = variant.mask[None]
        black = lmjax.Replace("black")
        np.testing.assert_array_equal(variant.pictures["black"], black.paint(image, masks)[0])
        shown = variant.pictures["layer"]
        np.testing.assert_array_equal(np.isnan(shown).all(axis=-1), ~variant.mask)
        for name, removal in (("black", black), ("layer", lmjax.LayerMasking())):
            logits = lmjax.evaluate(lmjax.Predictor(any_size, removal), image, masks)[0]
            expected = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(variant.probabilities[name], expected, rtol=1e-4)
    one = [ax for ax in explanation.figure().axes if len(ax.images) == 1]
    assert len(one) == 1 + 2 * 3  # the image; hidden segments and two removals, twice
    assert explain(show_variants=0).variants == ()


def test_where_another_class_is_predicted_both_are_named(explain):
    least = explain(top_k=4).targets[-1]
    explanation = explain(target=least)
    (variant,), expected = explanation.variants, []
    for name in ("layer", "black"):
        probabilities = variant.probabilities[name]
        assert probabilities.argmax() != least
        expected.append((NAMES[probabilities.argmax()], NAMES[least]))
    axes = [ax for ax in explanation.figure().axes if len(ax.images) == 1][2:]
    titles = [" ".join(ax.get_title().split()) for ax in axes]
    for (predicted, target), title in zip(expected, titles, strict=True):
        assert title.startswith(predicted)
        assert f"%) {target} (" in title


def test_a_heatmap_that_means_nothing_is_grey_and_says_why(explain, any_size):
    constant = dataclasses.replace(any_size, weights=jnp.zeros((3, 4)))
    explanation = explain(model=constant)
    panels = [ax for ax in explanation.figure().axes if len(ax.images) == 2]
    reasons = [" ".join(text.get_text().split()) for ax in panels for text in ax.texts]
    assert reasons == ["no segment changes the output"] * 2
    assert "R²" not in explanation.summary()


def attribution(scores, **options):
    options = {"probability": 1.0, "predicted_class": 0, "predicted_probability": 1.0} | options
    segments = np.arange(len(scores))[None]
    return Attribution(np.array(scores), target=0, segments=segments, **options)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (attribution([0.9], num_variants=2), ""),
        (attribution([0.0], num_variants=2), "no segment changes the output"),
        (attribution([0.9, 0.9], num_variants=3), "no segment changes the output"),
        (attribution([0.1, 0.2], num_variants=3, r2=np.nan), "too few variants for its segments"),
        (attribution([1e-8, 2e-8], num_variants=9, r2=np.nan), "the output hardly changes"),
    ],
)
def test_why_scores_mean_nothing(found, reason):
    assert meaningless(found) == reason


@pytest.mark.parametrize("options", [{}, {"top_k": 4}, {"removal": "black"}, {"show_variants": 0}])
def test_long_names_are_never_cut(explain, options):
    figure = explain(**options | ({} if "top_k" in options else {"target": 0})).figure()
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    texts = [t for ax in figure.axes for t in (*ax.texts, ax.title, ax.yaxis.label)]
    for text in (*texts, *figure.texts):
        if text.get_text():
            box = text.get_window_extent()
            assert box.x0 >= -1, text
            assert box.y0 >= -1, text
            assert box.x1 <= width + 1, text
            assert box.y1 <= height + 1, text


@pytest.mark.parametrize(
    ("suffix", "start"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("jpg", b"\xff\xd8")]
)
def test_formats(explain, suffix, start, tmp_path):
    (figure, *_) = explain(output=tmp_path / f"a.{suffix}").files
    assert figure.read_bytes().startswith(start)


def test_a_removal_has_one_colour_and_the_networks_own_is_emphasised(explain):
    assert plots.removal_colour("of_others") == plots.removal_colour("of_others")
    names = [n for n in lmjax.removals.names() if n not in ("token_dropping", "masking")]
    colours = [plots.removal_colour(name) for name in names]
    assert colours.count(plots.removal_colour("layer")) == 1
    titles = [ax.title for ax in explain().figure().axes if len(ax.images) == 2]
    assert [title.get_color() for title in titles] == [
        plots.removal_colour("layer"),
        plots.removal_colour("black"),
    ]
    assert [title.get_weight() for title in titles] == ["bold", "normal"]


def test_photographs_that_packages_ship_are_taken_by_name(any_size):
    for name in ("china", "hopper"):
        seen = load_image(f"photograph:{name}", any_size)
        assert seen.name == f"photograph:{name}"
        assert seen.pixels.std() > 0.1
    with pytest.raises(
        ValueError, match="image must be one of photograph:astronaut, photograph:che"
    ):
        load_image("photograph:dog", any_size)
    with pytest.raises(
        IsADirectoryError, match=r"is a folder; give its photographs: \./\*\.jpg|jpg"
    ):
        load_image(".", any_size)
