"""Tables, figures and reports."""

import base64
import csv
import dataclasses
import html.parser
import io
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lmjax import plots, studies
from lmjax.metrics import class_entropy
from lmjax.studies import registry
from lmjax.studies.reports import examples, tables
from lmjax.studies.settings import from_settings
from lmjax.studies.statistics import Bootstrap, estimate, paired_differences, summaries
from tests.studies import fakes
from tests.support.browser import browser

NETWORKS = {"a <b>": fakes.network()}


@pytest.fixture(autouse=True)
def known():
    with fakes.registered(fakes.Brightness):
        yield


def run(out, **options):
    return studies.run(fakes.Brightness(), fakes.Source(6), models=NETWORKS, output=out, **options)


def test_rows_tables_and_figures_are_written(tmp_path):
    rows = run(tmp_path)
    files = studies.write(fakes.Brightness(), rows, tmp_path)
    assert [file.name for file in files] == ["rows.parquet", "means.csv", "means.png"]
    assert pq.read_table(tmp_path / "rows.parquet").equals(rows)
    with open(tmp_path / "means.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["colour"] for line in lines] == ["0", "1", "2"]
    assert float(lines[1]["mean"]) == np.mean(rows.column("mean").to_pylist()[1::3])
    assert (tmp_path / "means.png").read_bytes().startswith(b"\x89PNG")


def test_figures_are_written_in_several_formats(tmp_path):
    rows = run(tmp_path)
    files = studies.write(fakes.Brightness(), rows, tmp_path, formats=("pdf", "svg"))
    assert [file.name for file in files[2:]] == ["means.pdf", "means.svg"]
    assert files[2].read_bytes().startswith(b"%PDF")
    assert b"<svg" in files[3].read_bytes()
    assert not (tmp_path / "means.png").exists()
    for formats in (("jpg",), ()):
        with pytest.raises(ValueError, match="formats must be one or more of png, pdf, svg"):
            studies.write(fakes.Brightness(), rows, tmp_path, formats=formats)


class Page(html.parser.HTMLParser):
    """What a page refers to, and whether its tags close."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.ids, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href")]
        self.ids += [v for k, v in attributes if k == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_reports_hold_all_in_one_file(tmp_path):
    run(tmp_path / "one")
    with pytest.warns(UserWarning, match="1 of 6"):
        studies.run(
            fakes.Brightness(colours=(0,)),
            fakes.Source(6, broken=(2,)),
            models=NETWORKS,
            output=tmp_path / "two",
        )
    path = studies.report([tmp_path / "one", tmp_path / "two"], tmp_path / "report.html")
    page = Page()
    page.feed(path.read_text())
    assert page.open == []
    assert {each[1:] for each in page.sources if each.startswith("#")} <= set(page.ids)
    assert len([each for each in page.sources if not each.startswith("#")]) == 2
    for source in [each for each in page.sources if not each.startswith("#")]:
        image = re.fullmatch("data:image/png;base64,(.*)", source).group(1)
        assert base64.b64decode(image).startswith(b"\x89PNG")
    text = " ".join(page.text)
    for expected in ("Brightness", "a <b>", "fake/1", "5 of 6", "truncated", "grey levels"):
        assert expected in text


def test_reports_list_all_software_that_took_part(tmp_path, monkeypatch):
    run(tmp_path, images=2, images_per_shard=2)
    monkeypatch.setattr("lmjax.studies.runner.version", lambda name: "9.9.9")
    run(tmp_path, images_per_shard=2)
    text = studies.report([tmp_path], tmp_path / "report.html").read_text()
    assert f"numpy {np.__version__}" in text
    assert "numpy 9.9.9" in text


def test_what_cannot_be_reported_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no folder of a study"):
        studies.report([tmp_path], tmp_path / "report.html")
    run(tmp_path)
    monkeypatch.setattr(registry, "names", lambda: ("removal",))
    with pytest.raises(ValueError, match="not known here"):
        studies.report([tmp_path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


class Broken(fakes.Brightness):
    """Cannot make its tables."""

    name: ClassVar[str] = "broken"

    def tables(self, rows):
        raise KeyError("no <such> column")


def test_a_run_that_cannot_be_reported_costs_no_other(tmp_path):
    run(tmp_path / "good", images=2)
    (tmp_path / "empty").mkdir()
    with fakes.registered(Broken):
        studies.run(Broken(), fakes.Source(2), models=NETWORKS, output=tmp_path / "bad")
        folders = [tmp_path / name for name in ("empty", "good", "bad")]
        with (
            pytest.warns(
                UserWarning, match="empty could not be reported: ValueError: .* no folder"
            ),
            pytest.warns(UserWarning, match="bad could not be reported: KeyError"),
        ):
            text = studies.report(folders, tmp_path / "report.html").read_text()
        with pytest.raises(KeyError):
            studies.report([tmp_path / "bad"], tmp_path / "other.html")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert {each[1:] for each in page.sources if each.startswith("#")} <= set(page.ids)
    assert {"run0", "run1", "run2"} <= set(page.ids)
    text = " ".join(page.text)
    assert "no <such> column" in text
    assert "2 of 2 images" in text
    assert not (tmp_path / "other.html").exists()


def test_bootstrap_against_a_plain_loop():
    rng = np.random.default_rng(3)
    values = rng.random((20, 2))
    means = Bootstrap(20, seed=5).means(values)
    draws = np.random.default_rng(5).integers(20, size=(1000, 20))
    np.testing.assert_allclose(means[0], values.mean(axis=0))
    for i in (0, 17, 999):
        np.testing.assert_allclose(means[1 + i], values[draws[i]].mean(axis=0), atol=1e-12)
    found = estimate("mean", means[:, 0])
    resampled = [values[draw, 0].mean() for draw in draws]
    np.testing.assert_allclose(found["mean_low"], np.quantile(resampled, 0.025))
    np.testing.assert_allclose(found["mean_high"], np.quantile(resampled, 0.975))


def test_entropies_against_a_jackknife_that_leaves_one_out():
    predictions = np.random.default_rng(3).integers(4, size=(20, 2))
    entropies = Bootstrap(20, seed=5).entropies(predictions)
    draws = np.random.default_rng(5).integers(20, size=(1000, 20))
    for found, column in zip(entropies.T, predictions.T, strict=True):
        entropy = class_entropy(column)
        without = np.array([class_entropy(np.delete(column, i)) for i in range(20)])
        effects = 19 * (without.mean() - without)  # pseudo-values, less their mean
        assert found[0] == pytest.approx(entropy)
        np.testing.assert_allclose(found[1:], entropy + effects[draws].mean(axis=1), atol=1e-12)


def test_entropies_of_one_class_and_of_one_image_are_0():
    np.testing.assert_allclose(Bootstrap(5).entropies(np.full((5, 1), 7)), 0)
    assert estimate("x", Bootstrap(1).entropies(np.array([[3]]))[:, 0])["x"] == 0


def test_values_that_are_not_known_are_left_out():
    values = np.random.default_rng(3).random((20, 2))
    known, holes = values[:18], np.where(np.arange(20)[:, None] < 18, values, np.nan)
    means = Bootstrap(20, seed=5).means(holes)
    np.testing.assert_allclose(means[0], known.mean(axis=0))
    draws = np.random.default_rng(5).integers(20, size=(1000, 20))
    np.testing.assert_allclose(means[18], np.nanmean(holes[draws[17]], axis=0))
    groups = [({"removal": name}, {"x": holes[:, i]}) for i, name in enumerate(("grey", "blur"))]
    groups[1][1]["x"][0] = np.nan
    table, (difference,) = summaries(groups), paired_differences(groups, of_images=True)
    assert [row["x_images"] for row in table] == [18, 17]
    assert difference["x_images"] == 17
    assert difference["x"] == pytest.approx((values[1:18, 1] - values[1:18, 0]).mean())
    assert "y_images" not in summaries([({}, {"y": values[:, 0]})])[0]


@pytest.mark.parametrize(
    "statistic",
    [
        Bootstrap(1).means(np.array([0.5])),
        Bootstrap(1).entropies(np.array([[3]]))[:, 0] + 0.5,
        Bootstrap(4).means(np.array([0.5, *[np.nan] * 3])),  # one that is known
        Bootstrap(2).pair_means(np.array([[1, 0.5], [0.5, 1]])),  # one pair
    ],
)
def test_one_image_has_no_interval(statistic):
    found = estimate("x", statistic)
    assert found["x"] == 0.5
    assert np.isnan([found["x_low"], found["x_high"]]).all()
    page = tables.table([found, {"x": np.nan, "x_low": np.nan, "x_high": np.nan}])
    assert re.findall('class="number">(.*)</td>', page) == ["0.500", "-"]


def test_one_image_is_drawn_and_reported_without_intervals(tmp_path):
    study = studies.SegmentRemoval(removals=("grey", "black"), orders=("random",), grid_size=16)
    rows = studies.run(study, fakes.Source(1), models=NETWORKS, output=tmp_path)
    figure = study.figures(study.tables(rows))["a <b> grid"]
    assert all(np.isfinite(line.get_ydata()).all() for ax in figure.axes for line in ax.lines)
    assert len(studies.write(study, rows, tmp_path)) == 5
    page = studies.report([tmp_path], tmp_path / "report.html", source=fakes.Source(1)).read_text()
    assert 'class="interval"' not in page
    assert ">nan" not in page


@pytest.mark.parametrize(("classes", "images"), [(10, 60), (300, 128)])
def test_intervals_of_entropies_cover_what_as_many_images_have(classes, images):
    """400 simulations gave 0.97 and 0.96 (a difference) with 10 classes, 0.99 and 0.95 with 300.

    Percentiles of entropies of resamples gave 0.82 and 0.96, and 0.00 and 0.53.
    """
    rng = np.random.default_rng(0)
    chances = [
        np.cumsum(p / p.sum()) for p in (np.arange(1, 1 + classes) ** -k for k in (0.3, 1.2))
    ]

    def draw():
        """Returns predictions `[images, 2]` under two removals, half of them drawn together."""
        place, other = rng.random((2, images))
        together = np.where(rng.random(images) < 0.5, place, other)
        return np.stack([np.searchsorted(*each) for each in zip(chances, (place, together))], 1)

    expected = np.mean([class_entropy(draw().T) for _ in range(500)], axis=0)
    covered = np.zeros(2)
    for i in range(100):
        first, second = Bootstrap(images, seed=i).entropies(draw()).T
        for j, (statistic, truth) in enumerate(
            [(first, expected[0]), (first - second, expected[0] - expected[1])]
        ):
            found = estimate("x", statistic)
            covered[j] += found["x_low"] <= truth <= found["x_high"]
            assert found["x_low"] <= found["x"] <= found["x_high"]
    assert (covered >= 85).all(), covered


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for i in range(200):
        found = estimate("x", Bootstrap(40, seed=i).means(rng.normal(1.0, 2.0, 40)))
        inside += found["x_low"] <= 1 <= found["x_high"]
    assert 0.88 <= inside / 200 <= 0.985


def test_the_study_of_the_documentation_runs(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "howto" / "own-study.md").read_text()
    (snippet,) = (s for s in re.findall(r"```py\n(.*?)```", text, re.S) if "class Halves" in s)
    names = {"__name__": "halves"}
    exec(snippet, names)
    assert studies.get("halves") is names["Halves"]
    registry.unregister("halves")
    study = names["Halves"](removal="black")
    rows = studies.run(study, fakes.Source(6), models={"a": fakes.network()}, output=tmp_path)
    assert rows.num_rows == 12
    studies.write(study, rows, tmp_path)
    with open(tmp_path / "accuracies.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["shown"] for line in lines] == ["left", "right"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OddNames(fakes.Brightness):
    """Tables and figures whose names and cells come from outside."""

    name: ClassVar[str] = "odd_names"
    title: ClassVar[str] = "<script>$x$ \x1b[1m"

    def tables(self, rows):
        return {"means": [{"network": "=cmd()", "mean": -0.5, "colour": 1}]}

    def figures(self, tables):
        def figure(name):
            line = plots.Line(name, [0, 1], [0, 1])
            return plots.charts([[plots.Chart(name, name, name, [line])]], title=name)

        return {name: figure(name) for name in ("a b $", "a:b $", "<b>&\x1b")}


def test_names_lose_no_figure_and_are_no_markup(tmp_path):
    with fakes.registered(OddNames):
        rows = studies.run(OddNames(), fakes.Source(2), models=NETWORKS, output=tmp_path)
        files = studies.write(OddNames(), rows, tmp_path)
        page = studies.report([tmp_path], tmp_path / "report.html").read_text()
    figures = {file.name for file in files if file.suffix == ".png"}
    assert len(figures) == 3
    assert all(re.fullmatch("[A-Za-z0-9._-]+", name) for name in figures)
    with open(tmp_path / "means.csv", newline="") as file:
        assert [*csv.DictReader(file)] == [{"network": "'=cmd()", "mean": "-0.5", "colour": "1"}]
    assert "<script>" not in page
    assert "<b>" not in page
    assert "\x1b" not in page


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnequalRows(OddNames):
    """One table has rows of different columns, and one none."""

    name: ClassVar[str] = "unequal_rows"
    title: ClassVar[str] = "Unequal rows"

    def tables(self, rows):
        unequal = [{"network": "a", "mean": 1.5}, {"margin": 2, "network": "b"}]
        return {"unequal": unequal, "empty": []}


def test_rows_of_different_columns_stay_in_their_columns(tmp_path):
    with fakes.registered(UnequalRows):
        rows = studies.run(UnequalRows(), fakes.Source(2), models=NETWORKS, output=tmp_path)
        studies.write(UnequalRows(), rows, tmp_path)
        page = studies.report([tmp_path], tmp_path / "report.html").read_text()
    with open(tmp_path / "unequal.csv", newline="") as file:
        assert [*csv.DictReader(file)] == [
            {"network": "a", "mean": "1.5", "margin": ""},
            {"network": "b", "mean": "", "margin": "2"},
        ]
    assert (tmp_path / "empty.csv").read_text().strip() == ""
    assert "margin" in page


def test_no_file_of_something_else_becomes_a_report(tmp_path):
    run(tmp_path)
    manifest, page = tmp_path / "manifest.json", tmp_path / "page.html"
    before = manifest.read_bytes()
    with pytest.raises(ValueError, match=r"output must end in \.html, \.htm; got .*manifest\.json"):
        studies.report([tmp_path], manifest)
    assert manifest.read_bytes() == before
    page.write_text("<p>my page")
    with pytest.raises(ValueError, match="exists and is not a report; it was left as it is"):
        studies.report([tmp_path], page)
    assert page.read_text() == "<p>my page"
    page.unlink()
    for _ in range(2):  # a report is replaced
        assert studies.report([tmp_path], page).read_bytes().startswith(b"<!DOCTYPE html>")
    before = page.read_bytes()
    with pytest.raises(ValueError, match="runs must be one or more folders"):
        studies.report([], page)
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": ["a"]}, r"settings\.unit cannot be \['a'\]"),
        ({"colours": 3}, r"settings\.colours cannot be 3"),
        ({"seed": None}, r"settings\.seed cannot be None"),
        ({"hue": 1}, r"settings\.hue is no setting of this study"),
    ],
)
def test_settings_of_other_types_are_damage(changes, message):
    assert from_settings(fakes.Brightness, {"seconds": 1, "colours": [0, 2]}).colours == (0, 2)
    with pytest.raises(ValueError, match=message):
        from_settings(fakes.Brightness, changes)


def report_of(out, study, source, **options):
    studies.run(study, source, models=NETWORKS, output=out)
    return studies.report([out], out.parent / "report.html", **options).read_text()


def test_reports_say_what_is_asked_and_show_images_under_each_removal(tmp_path):
    study = studies.MaskShape(removals=("layer", "black"), margins=(0,))
    page = Page()
    page.feed(report_of(tmp_path / "run", study, fakes.Source(4)))
    text = " ".join(page.text)
    assert study.about.question in text
    assert study.about.reading in text
    assert "lmjax study shape --removals layer black --margins 0" in text
    assert "cannot be opened by its version alone" in text
    page = Page()
    found = studies.report([tmp_path / "run"], tmp_path / "report.html", source=fakes.Source(4))
    page.feed(found.read_text())
    pictures = [each for each in page.sources if each.startswith("data:image/jpeg")]
    assert len(pictures) == 3 * 3  # whole, layer, black
    black = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[2].partition(",")[2]))))
    hidden = fakes.Source(4)[0]["object_mask"]
    assert np.median(black[hidden]) < 10
    assert np.median(black[~hidden]) > 50


def test_the_same_run_gives_the_same_report(tmp_path):
    run(tmp_path / "run", images=2)
    pages = [
        studies.report([tmp_path / "run"], tmp_path / f"{i}.html", source=fakes.Source(6))
        for i in range(2)
    ]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_source_of_another_version_is_refused(tmp_path):
    run(tmp_path / "run", images=2)
    other = fakes.Source(6)
    other.version = "fake/2"
    with pytest.raises(ValueError, match="source is fake/2, and the runs are of fake/1"):
        studies.report([tmp_path / "run"], tmp_path / "report.html", source=other)


def test_runs_of_a_source_given_as_text_find_it_again(tmp_path, monkeypatch):
    opened = []

    def opener(text, *, length=None):
        opened.append(text)
        return fakes.Source(length or 4)

    monkeypatch.setattr("lmjax.studies.job.open_source", opener)
    monkeypatch.setattr("lmjax.data.open_source", opener, raising=False)
    page = report_of(tmp_path / "run", fakes.Brightness(), "fake")
    assert opened == ["fake", "fake"]
    assert page.count("data:image/jpeg") == 3
    assert "--source fake" in page


def test_digit_scenes_are_found_by_their_version():
    manifest = {"identity": {"source": "digit_scenes/test/3/1"}, "images": 5}
    found = examples._source(manifest, None)
    assert found.version == "digit_scenes/test/3/1"
    assert len(found) == 5
    for source, reason in (
        ("folder:nowhere", "cannot be opened"),
        ("digit-scenes,seed=4", "is digit_scenes/test/4/1 by now, and was digit_scenes/test/3/1"),
    ):
        with pytest.raises(examples.Missing, match=reason):
            examples._source({**manifest, "source": source}, None)


def test_headings_can_be_read():
    about = studies.MaskShape.about
    page = tables.table(
        [
            {"network": "a", "removal": "layer", "object": 0.5, "least_images": 3},
            {"network": "a", "removal": "black", "object": 0.25, "least_images": 4},
        ],
        about,
    )
    assert "In all rows: Network: a" in page
    for heading in ("Removal", "Accuracy without the object ↓", "Least images"):
        assert f">{heading}</th>" in page
    assert "layer masking" in page


def test_headings_name_the_removals_and_numbers_of_columns():
    names = ("r_oms_25", "gain_own", "gain_layer@2", "top_unchanged_blur", "gain_something")
    page = tables.table([dict.fromkeys(names, 0.5)], studies.RemovalContest.about)
    assert re.findall(">([^<]+)</th>", page) == [
        "R-OMS, about 25 segments ↑",
        "Relevance gain, segments removed as explained ↑",
        "Relevance gain under layer masking, depth 2 ↑",
        "Unchanged without the top segments, under blur ↓",
        "Gain something",
    ]
    own = studies.About(
        **{"question": "?", "method": ".", "reading": "."},
        **{"higher": ("gain_*",), "lower": ("gain_grey",), "columns": {"loss": "loss {nats}"}},
    )
    page = tables.table([{"gain_grey": 0.5, "gain_black": 0.5, "loss": 0.5}], own)
    assert re.findall(">([^<]+)</th>", page) == ["Gain grey ↓", "Gain black ↑", "Loss {nats}"]


@pytest.mark.parametrize("name", [name for name in registry.names() if name != "brightness"])
def test_every_study_says_what_it_asks(name):
    about = registry.get(name).about
    assert about.question.endswith("?")
    assert about.method.endswith(".")
    assert about.reading.endswith(".")
    assert {*about.higher, *about.lower}
    assert not {*about.higher} & {*about.lower}


def test_a_browser_shows_a_report_without_a_network(tmp_path):
    run(tmp_path / "run", images=2)
    page = studies.report([tmp_path / "run"], tmp_path / "r.html", source=fakes.Source(6))
    with browser(tmp_path / "profile") as opened:
        opened.open(page, size=(390, 800), touch=True, dark=True)
        assert opened.run("document.documentElement.scrollWidth") <= 390
        assert opened.run("[...document.images].every((image) => image.naturalWidth > 0)")
        assert opened.run("document.images.length") == 3
        colour = opened.run("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", colour)[:3])) < 60
        assert opened.errors == []
        assert opened.requests == []
