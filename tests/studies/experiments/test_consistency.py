"""The study of consistency: sets compared one by one, and ablation against a plain loop."""

import dataclasses
import itertools

import jax
import numpy as np
import pyarrow as pa
import pytest

import lmjax
from lmjax import plots
from lmjax.evaluation import evaluate
from lmjax.metrics import spearman, top_k_jaccard
from lmjax.studies.experiments.consistency import Consistency, _chance, _jaccards
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from tests.studies import fakes
from tests.studies.fakes import pick

SMALL = Consistency(
    removals=("layer", "black", "grey"),
    redrawn=("layer",),
    grid_size=8,
    num_samples=48,
    ks=(1, 5, 20),
)
IMAGES = (0, 1)
SQUARES = lmjax.segments.grid(np.zeros((fakes.SIZE, fakes.SIZE, 3)), size=8)
NETWORKS = ("a", "b")


def batch_of(images=IMAGES, source=None, networks=None):
    source = fakes.Source(20) if source is None else source
    networks = networks or {"a": fakes.network(), "b": fakes.network(1)}
    return ImageBatch([read_sample(source, i) for i in images], networks, key=jax.random.key(0))


@pytest.fixture(scope="module")
def rows():
    return SMALL.rows(batch_of())


@pytest.fixture(scope="module")
def scores():
    """By network and number of the matrix: scores by image and removal."""
    batch = batch_of()
    return {
        (network, draw): SMALL.explain(batch, network, SMALL.removals, draw=draw)
        for network in NETWORKS
        for draw in (0, 1)
    }


def test_every_combination_has_a_row(rows):
    agreement, ablation = (pick(rows, part=part) for part in ("agreement", "ablation"))
    assert len(agreement) + len(ablation) == len(rows)
    columns = ("image", "network", "first", "second", "redrawn", "k")
    assert len(agreement) == 2 * 2 * (3 + 3) * 3
    assert len({tuple(row[c] for c in columns) for row in agreement}) == len(agreement)
    columns = ("image", "network", "explained", "removal", "k")
    assert len(ablation) == 2 * 2 * 3 * 3 * 3
    assert len({tuple(row[c] for c in columns) for row in ablation}) == len(ablation)
    assert len({tuple(row) for row in rows}) == 1  # one set of columns


def test_agreement_is_that_of_the_metrics(rows, scores):
    for row in pick(rows, part="agreement"):
        i = IMAGES.index(row["image"])
        first = scores[row["network"], 0][i][SMALL.removals.index(row["first"])]
        of_second = scores[row["network"], int(row["redrawn"])][i]
        second = of_second[SMALL.removals.index(row["second"])]
        expected = top_k_jaccard(first, second, k=min(row["k"], 16))
        assert row["jaccard"] == pytest.approx(expected)
        assert row["spearman"] == pytest.approx(spearman(first, second))
    assert {row["jaccard"] for row in rows if row["k"] == 20 and row["part"] == "agreement"} == {1}


def test_matrices_are_independent(scores):
    for network in NETWORKS:
        for first, second in zip(scores[network, 0], scores[network, 1], strict=True):
            assert np.abs(first - second).max() > 1e-3


def test_jaccard_of_every_k_at_once():
    rng = np.random.default_rng(0)
    first, second = rng.integers(6, size=(2, 30)).astype(float)  # with equal scores
    ks = tuple(range(1, 40))
    expected = [top_k_jaccard(first, second, k=min(k, 30)) for k in ks]
    assert _jaccards(first, second, ks) == pytest.approx(expected)


def test_chance_is_the_mean_over_all_pairs_of_sets():
    for k in (1, 2, 4):
        sets = [set(each) for each in itertools.combinations(range(5), k)]
        found = [len(a & b) / len(a | b) for a, b in itertools.product(sets, sets)]
        assert _chance(5, (k,)) == pytest.approx([np.mean(found)])
    assert _chance(5, (5, 9)) == pytest.approx([1, 1])


def test_ablation_is_that_of_a_plain_loop(rows, scores):
    networks = {"a": fakes.network(), "b": fakes.network(1)}
    for network, explained in itertools.product(NETWORKS, NETWORKS):
        predictor = lmjax.Predictor(networks[network], lmjax.Replace("black"))
        for i, index in enumerate(IMAGES):
            item = fakes.Source(20)[index]
            image = item["image"] / np.float32(255)
            ranked = np.argsort(-scores[explained, 0][i][1])
            masks = np.stack([~np.isin(SQUARES, ranked[:k]) for k in (0, 1, 5, 20)])
            predictions = evaluate(predictor, image, masks).argmax(axis=1)
            chosen = pick(rows, image=index, network=network, explained=explained, removal="black")
            assert [row["prediction"] for row in chosen] == predictions[1:].tolist()
            for row in chosen:
                assert row["whole_prediction"] == predictions[0]
                assert row["unchanged"] == (row["prediction"] == predictions[0])
                assert row["correct"] == (row["prediction"] == index % 10)
                assert row["visible"] == pytest.approx(1 - row["removed"] / 16)


def test_the_random_order_is_the_images_own(rows):
    """The same for all networks and removals: under black and grey, a network sees the same."""
    twice = {"a": fakes.network(), "b": fakes.network()}
    of_twins = SMALL.rows(batch_of(networks=twice))
    for k in SMALL.ks:
        one, other = (
            [row["probability"] for row in pick(of_twins, network=n, explained="random", k=k)]
            for n in NETWORKS
        )
        assert one == pytest.approx(other, abs=1e-6)
    alone = pick(rows, network="a", explained="random")
    again = pick(of_twins, network="a", explained="random")
    assert [row["prediction"] for row in alone] == [row["prediction"] for row in again]


def test_a_network_that_reads_one_square_has_one_explanation():
    square = SQUARES == 6

    class Bright(fakes.Source):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            image = np.where(square[..., None], 255, item["image"]).astype(np.uint8)
            return item | {"image": image, "label": 3}

    def reading(where):
        weights = np.zeros((fakes.SIZE, fakes.SIZE, 3, 10), np.float32)
        weights[where, :, 3] = 0.01
        return dataclasses.replace(fakes.network(), weights=jax.numpy.asarray(weights))

    networks = {"a": reading(square), "b": reading(square | (SQUARES == 7))}
    study = dataclasses.replace(SMALL, ks=(1,))
    rows = study.rows(batch_of(source=Bright(20), networks=networks))
    assert {row["jaccard"] for row in pick(rows, part="agreement", network="a")} == {1}
    for row in pick(rows, part="ablation", network="a", explained="a"):
        assert not row["correct"]
        assert not row["unchanged"]


def test_what_is_known_is_not_asked_again():
    study = dataclasses.replace(SMALL, num_samples=2, ks=(16, 20))
    batch = batch_of()
    study.rows(batch)
    # Of each image and network: whole once, a coalition for each explanation, nothing visible.
    assert batch.evaluations <= 2 * 2 * (1 + 3 + 1 + 3)


def test_rows_do_not_depend_on_the_division_into_blocks(rows):
    alone, together = SMALL.rows(batch_of((1,))), pick(rows, image=1)
    floats = ("probability", "spearman")
    for one, other in zip(alone, together, strict=True):
        for name in floats:
            assert one[name] == pytest.approx(other[name], abs=1e-5)
        assert one | dict.fromkeys(floats) == other | dict.fromkeys(floats)


def test_tables_average_pairs_and_are_paired(rows):
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    agreement = pick(rows, part="agreement", network="a", redrawn=False)

    def mean(rows, name):
        return pytest.approx(np.mean([row[name] for row in rows]))

    (pair,) = pick(tables["pairs"], network="a", first="layer", second="grey", redrawn=False)
    assert pair["jaccard"] == mean(pick(agreement, first="layer", second="grey"), "jaccard")
    assert pair["images"] == len(IMAGES)
    sets = {row["set"]: row for row in pick(tables["agreement"], network="a", redrawn=False)}
    assert list(sets) == ["layer masking and baselines", "baselines"]
    for name, of_set, pairs in (
        ("layer masking and baselines", pick(agreement, first="layer"), 2),
        ("baselines", pick(agreement, first="black"), 1),
    ):
        assert sets[name]["jaccard"] == mean(of_set, "jaccard")
        assert sets[name]["spearman"] == mean(of_set, "spearman")
        assert sets[name]["pairs"] == pairs
    (difference,) = pick(tables["agreement_differences"], network="a", redrawn=False)
    assert (difference["set"], difference["against"]) == tuple(reversed(sets))
    gained = sets["baselines"]["jaccard"] - sets["layer masking and baselines"]["jaccard"]
    assert difference["jaccard"] == pytest.approx(gained)
    again = [row["set"] for row in pick(tables["agreement"], network="a", redrawn=True)]
    assert again == ["layer masking again", "layer masking and baselines"]
    (curve,) = pick(tables["agreement_curves"], network="a", set="baselines", k=5)
    assert curve["jaccard"] == mean(pick(agreement, first="black", k=5), "jaccard")
    assert curve["chance"] == pytest.approx(_chance(16, (5,))[0])

    ablation = pick(rows, part="ablation", network="b", removal="grey")
    found = pick(tables["ablation"], network="b", removal="grey")
    assert [row["explained"] for row in found] == ["a", "b", "random"]
    means = {row["explained"]: row["unchanged"] for row in found}
    for explained, value in means.items():
        assert value == mean(pick(ablation, explained=explained), "unchanged")
    differences = pick(tables["ablation_differences"], network="b", removal="grey")
    assert [(row["explained"], row["against"]) for row in differences] == [
        ("a", "b"),
        ("random", "b"),
    ]
    assert differences[1]["unchanged"] == pytest.approx(means["random"] - means["b"])
    (curve,) = pick(tables["ablation_curves"], network="b", removal="grey", explained="a", k=5)
    assert curve["accuracy"] == mean(pick(ablation, explained="a", k=5), "correct")


def test_figures_show_every_set_pair_and_removal(rows):
    figures = SMALL.figures(SMALL.tables(pa.Table.from_pylist(rows)))
    assert list(figures) == [f"{n} {what}" for n in NETWORKS for what in _FIGURES]
    same, redrawn = figures["a agreement"].axes
    assert len(same.lines) == len(redrawn.lines) == 3
    for ax in (same, redrawn):  # which share an axis
        assert ax.get_ylim()[1] >= max(line.get_ydata().max() for line in ax.lines)
    labels = [text.get_text() for text in figures["a agreement"].legends[0].get_texts()]
    assert "layer masking again" in labels
    assert plots.removal_colour("layer") in {line.get_color() for line in redrawn.lines}
    for ax in figures["a pairs"].axes:
        numbers = [text for text in ax.texts if text.get_text() != "-"]
        assert len(numbers) == 3 * 2 + 1  # of the diagonal, what was redrawn
    assert [len(ax.lines) for ax in figures["a ablation"].axes] == [3, 3, 3]


def test_charts_of_four_removals_are_two_by_two(rows):
    fourth = [row | {"removal": "blur"} for row in rows if row["removal"] == "black"]
    study = dataclasses.replace(SMALL, removals=(*SMALL.removals, "blur"))
    tables = study.tables(pa.Table.from_pylist([*rows, *fourth]))
    axes = study.figures(tables)["a ablation"].axes
    assert [ax.get_title() for ax in axes] == ["layer masking", "black", "grey", "blur"]
    assert axes[0].get_position().y0 > axes[2].get_position().y0
    assert axes[0].get_position().x0 == axes[2].get_position().x0


_FIGURES = ("agreement", "pairs", "ablation")


def test_one_removal_has_no_pairs():
    study = dataclasses.replace(SMALL, removals=("grey",))  # layer, redrawn, is not among them
    rows = study.rows(batch_of(networks={"a": fakes.network()}))
    tables = study.tables(pa.Table.from_pylist(rows))
    assert list(tables) == ["ablation", "ablation_differences", "ablation_curves"]
    assert list(study.figures(tables)) == ["a ablation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"removals": ("blak",)}, "removals must be one of"),
        ({"removals": ("black", "black")}, "each once"),
        ({"redrawn": ("padding",)}, "redrawn must be one of"),
        ({"num_samples": 0}, "num_samples must be a whole number, 2 or more"),
        ({"ks": (3, 3)}, "ks must be .* 1 or more, rising"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Consistency(**options)


def test_networks_must_see_images_alike():
    smaller = dataclasses.replace(
        fakes.network(1), preprocessing=dataclasses.replace(fakes.AS_IT_IS, crop=16)
    )
    with pytest.raises(ValueError, match="networks must resize and crop images alike"):
        SMALL.check({"a": fakes.network(), "b": smaller})
    with pytest.raises(ValueError, match="must not be called 'random'"):
        SMALL.check({"random": fakes.network()})
