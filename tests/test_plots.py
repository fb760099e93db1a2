"""Figures: what is cut, what covers what, and which colours say what."""

import io
import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from skimage.color import rgb2lab

from lmjax import plots, removals
from lmjax._utils.text import printable
from lmjax.plots.colours import _REMOVALS, OTHERS

LONG = "German short-haired pointer, explained by masking without any padding"
NETWORK = "tf_efficientnet_lite0=trained-for-a-long-time-with-grey-patches"


def line(label, removal=None, count=5):
    x = np.linspace(0, 1, count)
    return plots.Line(label, x, 1 - x / 2, 0.9 - x / 2, 1.1 - x / 2, removal)


def chart(*lines, title="random", **options):
    return plots.Chart(title, "fraction of segments removed", "accuracy", lines, **options)


def panel(*removals, series=("16 x 16 pixels", "32 x 32 pixels"), **options):
    values = np.linspace(0.2, 0.8, len(removals))
    shown = [plots.Dots(each, values, values - 0.1, values + 0.1) for each in series]
    return plots.DotPanel("", "cosine", [*removals], shown, removals=removals)


def matrix(names, title="alignment"):
    values = np.full((len(names), len(names)), 0.4)
    np.fill_diagonal(values, np.nan)
    return plots.Matrix(title, names, names, values.tolist())


FIGURES = {
    "charts": lambda: plots.charts(
        [[chart(line(LONG), line("b", "grey"), title=LONG)] * 2, [chart(line("c"))]], title=NETWORK
    ),
    "one chart": lambda: plots.charts([[chart(line(LONG, "layer"))]], title=f"{NETWORK} {LONG}"),
    "dots": lambda: plots.dots([panel(LONG, "layer"), panel(LONG, "layer")], title=NETWORK * 2),
    "matrices": lambda: plots.matrices(
        [[matrix([LONG, "grey"], LONG)], [matrix([LONG, "grey"])] * 2],
        title=NETWORK * 2,
        colour_label="mean",
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_and_no_letters_are_lost(name):
    figure = FIGURES[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
    shown = {each.get_text().replace("\n", " ") for each in figure.findobj(match=Text)}
    assert LONG in shown


@pytest.mark.parametrize("name", FIGURES)
def test_there_are_no_blank_cells(name):
    for ax in FIGURES[name]().axes:
        content = ax.lines or ax.images or ax.collections or ax.get_legend()
        assert content


def test_every_removal_has_a_colour_of_its_own():
    """Colours are 12 or more apart in CIELAB, where 2 can just be told apart."""
    colours = {name: plots.removal_colour(name) for name in (*removals.names(), *_REMOVALS)}
    assert colours.pop("masking") == colours["layer"]  # what it is in convolutional networks
    places = {name: rgb2lab(np.reshape(to_rgb(colour), (1, 3))) for name, colour in colours.items()}
    for one, other in itertools.combinations(places, 2):
        assert np.linalg.norm(places[one] - places[other]) > 12, (one, other)
    assert colours["black"] == "#000000"
    assert not {*colours.values()} & {*OTHERS}


def test_colours_of_other_removals_follow_from_their_names():
    assert plots.removal_colour("inpainted") == "#2b8eab"
    assert plots.removal_colour("inpainted") != plots.removal_colour("inpainted2")


def test_depths_are_lighter_the_fewer_blocks_are_masked():
    lightness = [sum(to_rgb(plots.removal_colour(f"layer@{d}"))) for d in (0, 2, 4, 8)]
    assert lightness == sorted(lightness, reverse=True)
    assert lightness[-1] > sum(to_rgb(plots.removal_colour("layer")))
    assert plots.removal_colour("layer@layer3.0") == plots.removal_colour("layer@0")


def test_a_removal_has_one_colour_in_all_kinds_of_figures():
    colour = plots.removal_colour("blur")
    chart_figure = plots.charts([[chart(line("a", "layer"), line("b", "blur"))]], title="")
    assert chart_figure.axes[0].lines[1].get_color() == colour
    dot_figure = plots.dots([panel("layer", "blur")], title="")
    assert colour in {each.get_color() for each in dot_figure.axes[0].lines}
    scored = plots.DotPanel("", "", ["x"], [plots.Dots("by blur", [1], [0], [2], "blur")])
    assert {each.get_color() for each in plots.dots([scored], title="").axes[0].lines} == {colour}


def test_layer_masking_is_thicker_and_on_top():
    figure = plots.charts([[chart(line("a", "layer"), line("b", "grey"))]], title="")
    layer, grey = figure.axes[0].lines[:2]
    assert layer.get_linewidth() > 1.5 * grey.get_linewidth()
    assert layer.get_zorder() > grey.get_zorder()
    labels = plots.dots([panel("layer", "grey")], title="").axes[0].get_yticklabels()
    assert [each.get_weight() for each in labels] == ["bold", "normal"]


@pytest.mark.parametrize("doubling", [False, True])
def test_error_bars_stand_side_by_side(doubling):
    x = np.array([16, 32, 64])
    lines = [plots.Line(name, x, x / 64, x / 80, x / 50) for name in "abc"]
    figure = plots.charts([[plots.Chart("", "x", "y", lines, doubling)]], title="")
    (ax,) = figure.axes
    for curve in ax.lines[:3]:
        np.testing.assert_array_equal(curve.get_xdata(), x)
    bars = [each.get_segments() for each in ax.collections]
    places = np.stack([[points[0][0] for points in segments] for segments in bars])
    assert places.shape == (3, 3)
    assert (np.diff(places, axis=0) > 0).all()
    assert (np.abs(places - x) < 0.2 * x).all()
    np.testing.assert_allclose(places[1], x)


def test_a_single_place_is_the_only_one_on_its_scale():
    lines = [plots.Line(name, [0], [0.5], [0.4], [0.6]) for name in ("a", "b")]
    figure = plots.charts([[plots.Chart("", "pixels", "y", lines)]], title="")
    (ax,) = figure.axes
    figure.draw_without_rendering()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0"]
    assert np.ptp(ax.get_xlim()) == 1


def test_curves_of_many_points_have_bands_at_their_places():
    figure = plots.charts([[chart(line("a", count=30), line("b", count=30))]], title="")
    (ax,) = figure.axes
    assert len(ax.collections) == 2
    for each in ax.lines:
        np.testing.assert_allclose(each.get_xdata(), np.linspace(0, 1, 30))


def test_scales_begin_at_zero_where_no_interval_reaches_below():
    for low, cut in ((-0.3, False), (0.01, True)):
        line = plots.Line("a", [1, 2], [0.02, 0.1], [low, 0.05], [0.3, 0.3])
        figure = plots.charts([[plots.Chart("t", "x", "y", [line])]], title="t")
        assert (figure.axes[0].get_ylim()[0] > -0.1) == cut


def test_a_heatmap_over_an_image_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"image must have the heatmap's size \(7, 7\)"):
        plots.heatmap(np.eye(7), image=np.ones((9, 7, 3)))


def test_images_under_heatmaps_are_grey_whatever_their_numbers():
    image = np.random.default_rng(0).random((7, 7, 3))
    drawn = [
        plots.heatmap(np.eye(7), image=each).images[0].get_array()
        for each in (image, np.rint(image * 255).astype(np.uint8))
    ]
    np.testing.assert_allclose(*drawn, atol=0.003)
    for wrong in (image[..., 0], image * 255, np.full((7, 7, 3), np.inf)):
        with pytest.raises(ValueError, match=r"image must be \[H, W, C\] with colours in \[0, 1\]"):
            plots.heatmap(np.eye(7), image=wrong)


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_the_scale_of_a_heatmap_is_that_of_its_finite_values(odd):
    values = np.arange(12.0).reshape(3, 4)
    values[0, 0] = odd
    assert plots.heatmap(values).images[0].get_clim() == (-11, 11)
    assert plots.heatmap(np.full((3, 4), odd)).images[0].get_clim() == (-1, 1)


def test_references_are_dotted_and_the_last_of_the_legend():
    with_chance = chart(line("a"), reference=("chance", 0.1))
    figure = plots.charts([[with_chance, chart(line("b"))]], title="")
    dotted = [each for each in figure.axes[0].lines if each.get_linestyle() == ":"]
    assert [each.get_ydata()[0] for each in dotted] == [0.1]
    (legend,) = figure.legends
    assert [each.get_text() for each in legend.get_texts()] == ["a", "b", "chance"]


def test_pairs_without_a_number_have_a_dash():
    figure = plots.matrices([[matrix(["a", "b"])]], title="")
    assert sorted(each.get_text() for each in figure.axes[0].texts) == ["-", "-", "0.40", "0.40"]


@pytest.mark.parametrize("format", plots.FORMATS)
def test_the_same_figure_gives_the_same_bytes(format):
    files = []
    for _ in range(2):
        file = io.BytesIO()
        plots.save(FIGURES["one chart"](), file, format=format)
        files.append(file.getvalue())
    assert files[0] == files[1]
    assert files[0].startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[format])


ODD = ["$x$ or $y", r"$\frac{$", "_hidden", "a\x1b[1mb\x00\udcff"]


def odd_figures(name):
    image, segments = np.zeros((8, 8, 3)), np.arange(64).reshape(8, 8) // 32
    heatmap = plots.Panel(name, np.ones((8, 8)))
    row = plots.Row(name, [heatmap], name)
    titles = {"title": name, "image_title": name}
    return [
        plots.explanation(image, segments, [heatmap], colour_label=name, **titles),
        plots.comparison(image, segments, [row, row], columns=[name], **titles),
        plots.charts(
            [[plots.Chart(name, name, name, [line(name)], reference=(name, 0.5))]], title=name
        ),
        plots.dots([panel(name, "b", series=(name, "c"))], title=name),
        plots.matrices([[matrix([name, "b"], name)]], title=name, colour_label=name),
    ]


@pytest.mark.parametrize("name", ODD)
def test_names_are_drawn_as_they_are(name):
    for figure in odd_figures(name):
        contents = io.BytesIO()
        plots.save(figure, contents, format="svg")
        ElementTree.fromstring(contents.getvalue())
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert not any("$" in text.get_text() and text.get_parse_math() for text in texts)
        assert any(printable(name).strip() in text.get_text() for text in texts)


def test_a_users_setting_does_not_make_names_markup():
    with rc_context({"text.usetex": True}):
        figures = odd_figures("100% $")
    assert not any(t.get_usetex() for figure in figures for t in figure.findobj(Text))


def test_a_name_that_begins_with_an_underscore_is_in_the_legend():
    (legend,) = plots.charts([[chart(line("_a"), line("b"))]], title="").legends
    assert [text.get_text().strip() for text in legend.get_texts()] == ["_a", "b"]
