"""The page of an explanation, opened in a real browser without a network."""

import json
import re

import numpy as np
import pytest

import lmjax
from lmjax.explanation import ExplanationConfig, compute, page
from tests.support.browser import browser

METHODS, REMOVALS = ("kernelshap", "rise"), ("layer", "grey")
OPTIONS = {"segmenter": "slic", "n_segments": 16, "num_samples": 340, "removal": REMOVALS}
NAME = "<script>alert(1)</script> $x$ &.png"


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def explained(tmp_path_factory, any_size):
    """An explanation of a file with a bad name, whose page lies beside it."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("explained")
    blocks = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    file = folder / NAME.replace("/", "\\")
    Image.fromarray(blocks).resize((60, 60), Image.Resampling.NEAREST).save(file)
    return lmjax.explain(
        file, model=any_size, method=METHODS, html=True, output=folder / "a.png", **OPTIONS
    )


@pytest.fixture
def shown(opened, explained):
    opened.open(explained.files[3])
    opened.wait("document.documentElement.dataset.ready")
    yield opened
    assert opened.errors == []
    assert opened.requests == []


def data_of(path):
    text = path.read_text()
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


def middle(segments, label):
    """A point well inside a segment, in shares of the picture."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(segments == label)
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return (column + 0.5) / segments.shape[1], (row + 0.5) / segments.shape[0]


def as_shown(value, *, sign=False):
    """A number as the page writes it, three digits."""
    if abs(value) < 1e-4:
        return None
    text = np.format_float_positional(abs(value), 3, fractional=False, trim="-")
    return ("\u2212" if value < 0 else "+" if sign else "") + text


def choose(opened, group, name):
    opened.click(f"#{group} input[value='{name}']")


def test_hovering_shows_the_numbers_of_the_arrays(shown, explained):
    arrays = np.load(explained.files[1])
    seen = 0
    for removal in REMOVALS:
        choose(shown, "removals", removal)
        scores = arrays[f"kernelshap/{removal}/scores"]
        errors = arrays[f"kernelshap/{removal}/standard_error"]
        for label in (0, len(scores) - 1):
            shown.hover("#map", *middle(explained.segments, label))
            assert shown.text("#readout h2") == f"Segment {label}"
            value, error = as_shown(scores[label], sign=True), as_shown(errors[label])
            if value and error:
                assert shown.text("#value") == f"{value} ± {error} standard error"
                seen += 1
    assert seen >= 2


def test_answers_are_those_of_the_network(shown, explained):
    arrays, label = np.load(explained.files[1]), 1
    keep = np.arange(arrays["segments"].max() + 1) != label
    family = lmjax.Coalitions(arrays["segments"], keep[None])
    for removal in REMOVALS:
        predictor = lmjax.Predictor(explained.classifier, removal)
        logits = lmjax.evaluate(predictor, arrays["image"], family)[0]
        expected = np.exp(logits - np.logaddexp.reduce(logits))
        shared = data_of(explained.files[3])["shown"][removal]
        found = shared["hiddenAnswers"][label]
        np.testing.assert_allclose(found["of"], expected[list(explained.targets)], atol=1e-4)
        assert found["top"][0][0] == expected.argmax()
        whole = shared["shownAnswers"][str(REMOVALS.index(removal))][-1]["of"][0]
        first = next(iter(explained.results.values())).attribution
        np.testing.assert_allclose(whole, first.probability, atol=1e-4)


def test_partners_are_interactions_or_a_reason(shown, explained):
    name = "kernelshap"
    attribution = explained[name, "grey"].attribution
    expected = lmjax.attribution.interactions(
        lmjax.Predictor(explained.classifier, "grey"),
        explained.image.pixels,
        explained.segments,
        key=lmjax.explanation.compute._keys(explained.config)[0],
        previous=attribution,
    )
    (found,) = (
        each
        for each in data_of(explained.files[3])["maps"]
        if (each["method"], each["removal"]) == (name, "grey")
    )
    above = np.triu_indices(len(expected.scores), 1)
    np.testing.assert_allclose(found["partners"]["pairs"], expected.pairs[above], rtol=1e-4)
    choose(shown, "methods", name)
    choose(shown, "removals", "grey")
    shown.hover("#map", *middle(explained.segments, 2))
    row = np.abs(expected.pairs[2])
    assert shown.text("#partners li button") == f"segment {row.argmax()}"


def pixels_of(opened, canvas):
    return np.array(
        opened.run(
            f"(() => {{ const c = document.querySelector('{canvas}');"
            "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; })()"
        )
    )


def test_switching_changes_the_map_and_the_picture(shown, explained):
    before = pixels_of(shown, "#map")
    choose(shown, "methods", "rise")
    assert "RISE" in shown.text("#map-title")
    assert (pixels_of(shown, "#map") != before).any()
    shown.hover("#map", 0.5, 0.5)
    heatmap = explained["rise", "layer"].attribution.heatmap
    row, column = heatmap.shape[0] // 2, heatmap.shape[1] // 2
    assert shown.text("#readout h2") == f"Row {row}, column {column}"
    value = float(shown.text("#value").replace("\u2212", "-"))
    expected = heatmap[row, column] - heatmap.mean()
    assert value == pytest.approx(expected, abs=float(np.ptp(heatmap) / 1e4 + 5e-3 * abs(expected)))
    choose(shown, "methods", "kernelshap")
    shown.hover("#map", *middle(explained.segments, 0))
    layer = pixels_of(shown, "#seen")
    choose(shown, "removals", "grey")
    shown.hover("#map", *middle(explained.segments, 0))
    assert (pixels_of(shown, "#seen") != layer).any()


def test_a_threshold_shows_the_segments_above_it(shown, explained):
    scores = explained["kernelshap", "layer"].attribution.scores
    third = np.sort(scores)[::-1][2]
    shown.run(
        "(() => { const s = document.querySelector('#threshold'); s.value = 3;"
        "s.dispatchEvent(new Event('input')); })()"
    )
    text = shown.text("#threshold-text")
    assert f"3 of {len(scores)}" in text
    assert as_shown(third) in text
    seen = pixels_of(shown, "#seen").reshape(-1, 4)
    side = int(len(seen) ** 0.5)
    checked = np.isin(seen[:, :3], (204, 255)).all(axis=1).reshape(side, side)
    for label, score in enumerate(scores):
        x, y = middle(explained.segments, label)
        assert checked[int(y * side), int(x * side)] == (score < third), label
    assert shown.text("#answer .number").endswith("%")


def test_keys_move_and_hold(shown, explained):
    shown.run("document.querySelector('#map').focus()")
    shown.press("ArrowLeft")
    first = shown.text("#readout h2")
    assert first.startswith("Segment")
    shown.press("Enter")
    shown.run("document.activeElement.blur()")
    assert shown.text("#readout h2") == first
    shown.run("document.querySelector('#map').focus()")
    shown.press("Escape")
    assert shown.text("#readout h2") == "No segment chosen"
    shown.run("document.querySelector('#table-card').open = true")
    shown.wait("document.querySelector('[data-key=row-1]')")
    shown.run("document.querySelector('[data-key=row-1]').focus()")
    shown.run("document.activeElement.click()")
    assert shown.text("#readout h2") == "Segment 1"
    assert shown.run("document.activeElement.dataset.key") == "row-1"


def test_names_stay_text(shown, explained):
    assert NAME.replace("/", "\\") in shown.text("h1")
    assert "<script>alert" not in explained.files[3].read_text()


def test_a_phone_needs_no_scrolling_aside(opened, explained):
    opened.open(explained.files[3], size=(390, 800), touch=True, dark=True)
    opened.wait("document.documentElement.dataset.ready")
    assert opened.run("document.documentElement.scrollWidth") <= 390
    light = opened.run("getComputedStyle(document.body).color")
    assert sum(map(int, re.findall(r"\d+", light)[:3])) > 3 * 180
    assert opened.errors == []


def test_pictures_are_those_of_the_removal(any_size):
    """Fills depend on the mask: what a browser cannot make of two pictures is stored."""
    found = lmjax.explain(
        "photograph:chelsea", model=any_size, removal=("blur", "ring"), n_segments=4, num_samples=40
    )
    evaluators = lmjax.explanation.compute._evaluators(found)
    maps = page.maps_of(found)
    for removal, complete in (("blur", True), ("ring", False)):
        asked = page.asked_of(found, maps, removal)
        shown = page.pictures_of(found, evaluators[removal].predictor, asked)
        assert shown["complete"] == complete
        assert bool(shown["hidden"]) == (not complete)


def test_a_page_of_something_else_stays(tmp_path, any_size):
    other = tmp_path / "a.html"
    other.write_text("<p>mine")
    with pytest.raises(ValueError, match="is not a page of an explanation"):
        lmjax.explain("scene:0", model=any_size, html=True, output=tmp_path / "a.png")
    assert [each.name for each in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(ValueError, match=r"output must end in \.html, \.htm"):
        page.check_page(tmp_path / "a.txt")
    assert not ExplanationConfig().html


def test_the_page_of_an_earlier_explanation_goes(tmp_path, any_size):
    image = np.full((40, 40, 3), 0.2)
    options = {"model": any_size, "method": "leave_one_out", "segmenter": "grid"}
    output, old = tmp_path / "a.png", tmp_path / "a.html"
    lmjax.explain(image, **options, html=True, output=output)
    lmjax.explain(image, **options).save(output)
    assert old.exists()  # it may be of this explanation
    others = tmp_path / "b.html", tmp_path / "a.htm"
    for other in others:
        other.write_bytes(old.read_bytes())
    lmjax.explain(image, **options, removal="black", output=output)
    assert not old.exists()
    assert all(other.exists() for other in others)
    old.write_text("<p>mine")
    lmjax.explain(image, **options, output=output)
    assert old.read_text() == "<p>mine"


def test_a_page_that_cannot_be_made_leaves_no_old_one(tmp_path, any_size, monkeypatch):
    image = np.full((40, 40, 3), 0.2)
    options = {"model": any_size, "method": "leave_one_out", "segmenter": "grid", "html": True}
    lmjax.explain(image, **options, output=tmp_path / "a.png")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compute, "write_page_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lmjax.explain(image, **options, removal="black", output=tmp_path / "a.png")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.json", "a.npz", "a.png"]
