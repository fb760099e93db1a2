"""The study of baselines, and maps of many images."""

import collections
import itertools

import jax
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from skimage.metrics import structural_similarity

import lmjax
from lmjax import metrics
from lmjax.masks.segments import grid
from lmjax.studies.experiments.baselines import BaselineDependence
from lmjax.studies.heatmaps import Occlusion, Rise, _calls, path
from lmjax.studies.images import ImageBatch, SampledBatch
from lmjax.studies.samples import read_sample
from tests.studies import fakes

SHAPE = (fakes.SIZE, fakes.SIZE)
SMALL = BaselineDependence(
    removals=("layer", "grey", "black"),
    scorers=("layer", "grey", "black"),
    rise_masks=(6, 12, 40),
    rise_grids=(4, 3),
    rise_keeps=(0.5, 0.25),
    windows=(16,),
    strides=(0.5, 1.0),
    metrics=("morf", "insertion"),
    steps=4,
    region=8,
)
SAMPLES = [read_sample(fakes.Source(9), i) for i in (2, 5)]
MAPS = 3 + 2  # settings of RISE and of occlusion


def batch(samples=SAMPLES):
    return ImageBatch(samples, {"a": fakes.network()}, key=jax.random.key(0))


@pytest.fixture(scope="module")
def asked():
    shown = batch()
    return shown, SMALL.rows(shown)


def test_heatmaps_of_rise_are_means_over_the_first_masks():
    setting = Rise(3, 0.4, (1, 4, 9, 20))
    family = setting.family((10, 8), jax.random.key(2))
    masks, values = np.asarray(family.masks()), np.random.default_rng(0).random((20, 2))
    maps = setting.heatmaps(family, values, 1.0)
    assert set(maps) == {(0, 1), (0, 4), (0, 9), (0, 20), (1, 2), (4, 8), (9, 18)}
    for (start, stop), found in maps.items():
        for y, x in itertools.product(range(10), range(8)):
            shown = masks[start:stop, y, x]
            chosen = values[start:stop][shown] if shown.any() else values[start:stop]
            np.testing.assert_allclose(found[:, y, x], chosen.mean(axis=0), atol=1e-5)


def test_heatmaps_are_those_of_the_public_functions():
    network, image = fakes.network(), batch().images("a")[0]
    predictor = lmjax.Predictor(network, lmjax.Replace("black"))
    logits = lmjax.evaluate(predictor, image, np.ones((1, *SHAPE), bool))
    target = int(logits.argmax())

    def values(family):
        answers = lmjax.evaluate(predictor, image, family)
        return np.asarray(jax.nn.softmax(answers))[:, [target]].astype(np.float64)

    setting, key = Rise(4, 0.5, (30,)), jax.random.key(4)
    family = setting.family(SHAPE, key)
    expected = lmjax.attribution.rise(
        predictor, image, key=key, num_samples=30, grid=4, soft=False
    ).heatmap
    found = setting.heatmaps(family, values(family), 1.0)[0, 30]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)

    setting = Occlusion(12, 5)
    family = setting.family(SHAPE, key)
    whole = float(jax.nn.softmax(logits[0])[target])
    expected = lmjax.attribution.occlusion(predictor, image, size=12, stride=5).heatmap
    ((found,),) = setting.heatmaps(family, values(family), whole).values()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_scores_are_those_of_the_public_metrics():
    network, image = fakes.network(), batch().images("a")[0]
    predictor = lmjax.Predictor(network, lmjax.Replace("black"))
    heatmap = np.random.default_rng(1).random(SHAPE)
    curves = {
        "deletion": metrics.deletion(predictor, image, heatmap, step=64),
        "insertion": metrics.insertion(predictor, image, heatmap, step=64),
        "morf": metrics.region_perturbation(predictor, image, heatmap, size=8),
        "lerf": metrics.region_perturbation(predictor, image, heatmap, size=8, order="lerf"),
    }
    regions = grid(image, size=8)
    ends = {}
    for name, curve in curves.items():
        found = path(name, heatmap, steps=16, regions=regions)
        assert len(found.family) == 15
        logits = lmjax.evaluate(predictor, image, found.family)
        answers = np.asarray(jax.nn.softmax(logits))[:, curve.target]
        ends[name] = curve.values[[0, -1]][:: -1 if name == "insertion" else 1]
        score = found.score(answers, *ends[name])
        assert score == pytest.approx(curve.normalised_auc, abs=1e-5), name
    np.testing.assert_allclose(ends["deletion"], ends["insertion"], atol=1e-6)


def test_nothing_is_asked_twice(asked):
    shown, _ = asked
    windows = 9 + 4  # 3 x 3 and 2 x 2
    maps = len(SMALL.removals) * (3 * 40 + windows)
    scores = len(SMALL.scorers) * (MAPS * len(SMALL.removals) * 2 * 3 + 1)
    assert shown.evaluations == len(SAMPLES) * (1 + maps + scores)


def test_rows_have_every_pair(asked):
    _, rows = asked
    assert collections.Counter(row["kind"] for row in rows) == {
        "removals": 2 * MAPS * 3,
        "settings": 2 * 3 * (3 + 1),
        "masks": 2 * 3 * 3 * (2 + 2),
        "scores": 2 * MAPS * 3 * 3 * 2,
    }
    assert len({tuple(row) for row in rows}) == 1  # the same columns


def test_similarities_against_scipy_and_skimage(asked):
    _, rows = asked
    (row,) = (
        row
        for row in rows
        if (row["image"], row["kind"], row["generator"]) == (5, "removals", "occlusion")
        and (row["setting"], row["removal"], row["against"])
        == ("window 16, stride 8", "layer", "black")
    )
    image, maps = batch().images("a")[1], []
    for removal in (lmjax.LayerMasking(), lmjax.Replace("black")):
        predictor = lmjax.Predictor(fakes.network(), removal)
        maps.append(lmjax.attribution.occlusion(predictor, image, size=16, stride=8).heatmap)
    assert row["spearman"] == pytest.approx(stats.spearmanr(*map(np.ravel, maps))[0], abs=0.01)
    stretched = [(each - each.min()) / np.ptp(each) for each in maps]
    expected = structural_similarity(*stretched, data_range=1.0)
    assert row["ssim"] == pytest.approx(expected, abs=1e-3)
    k = round(0.1 * maps[0].size)
    tops = [set(np.argsort(-each.ravel(), kind="stable")[:k]) for each in maps]
    assert row["top"] == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]), abs=0.05)


def test_removals_that_are_one_give_one_answer(asked):
    """The network reads hidden pixels as zeros, which is what grey is once normalised."""
    _, rows = asked
    for row in rows:
        if (row["kind"], row["removal"], row["against"]) == ("removals", "layer", "grey"):
            assert row["spearman"] == pytest.approx(1, abs=1e-3)
            assert row["ssim"] == pytest.approx(1, abs=1e-3)
            assert row["top"] == pytest.approx(1, abs=0.05)
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    for row in tables["ranking_pairs"]:
        if {row["scorer"], row["against"]} == {"layer", "grey"}:
            assert row["tau"] == pytest.approx(1, abs=0.02)
    for row in tables["settings_differences"]:
        if row["removal"] == "grey":
            assert row["spearman"] == pytest.approx(0, abs=1e-3)
    alike = {(row["generator"], row["removal"]): row["spearman"] for row in tables["removals"]}
    for generator in SMALL.generators:
        assert alike[generator, "layer"] > alike[generator, "black"]


def test_rankings_against_scipy(asked):
    _, rows = asked
    scores = {}
    for row in rows:
        if (row["kind"], row["metric"]) == ("scores", "morf"):
            own = scores.setdefault((row["image"], row["scorer"]), {})
            own[row["generator"], row["setting"], row["removal"]] = row["score"]
    expected = []
    for image in (2, 5):
        first, second = scores[image, "layer"], scores[image, "black"]
        assert len(first) == MAPS * 3
        pair = [(first[key], second[key]) for key in sorted(first)]
        expected.append(stats.kendalltau(*zip(*pair)).statistic)
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    key = ("morf", "layer", "black")
    (found,) = (
        row
        for row in tables["ranking_pairs"]
        if (row["metric"], row["scorer"], row["against"]) == key
    )
    assert found["tau"] == pytest.approx(np.mean(expected))
    assert found["images"] == 2


def test_rows_do_not_depend_on_the_block(asked):
    _, rows = asked
    alone = SMALL.rows(batch(SAMPLES[1:]))
    together = [row for row in rows if row["image"] == 5]
    names = ("kind", "generator", "setting", "removal", "against", "masks", "scorer", "metric")
    for one, other in zip(alone, together, strict=True):
        assert [one[name] for name in names] == [other[name] for name in names]
        for name in ("spearman", "ssim", "score"):
            assert one[name] == (other[name] and pytest.approx(other[name], abs=2e-3)), name


def test_figures_show_every_table(asked):
    _, rows = asked
    figures = SMALL.figures(SMALL.tables(pa.Table.from_pylist(rows)))
    kinds = ("settings", "removals", "convergence", "rankings", "scores")
    assert list(figures) == [f"a {kind}" for kind in kinds]


def test_what_is_not_asked_for_is_not_shown():
    study = BaselineDependence(
        removals=("black",),
        generators=("occlusion",),
        windows=(16,),
        strides=(1.0, 0.5),
        metrics=(),
    )
    shown = batch(SAMPLES[:1])
    rows = study.rows(shown)
    assert shown.evaluations == 1 + 4 + 9
    tables = study.tables(pa.Table.from_pylist(rows))
    assert list(tables) == ["settings", "setting_pairs"]
    assert list(study.figures(tables)) == ["a settings"]


def test_one_removal_with_one_setting_has_tables():
    study = BaselineDependence(
        removals=("black",),
        scorers=("grey", "black"),
        generators=("occlusion",),
        windows=(16,),
        strides=(1.0,),
        steps=3,
    )
    tables = study.tables(pa.Table.from_pylist(study.rows(batch(SAMPLES[:1]))))
    assert tables["scores"]
    assert list(study.figures(tables))


def test_calls_hold_all_rows_once():
    calls = list(_calls([1300, 10, 512, 3], most=1024))
    sizes = [sum(rows.stop - rows.start for _, rows in call) for call in calls]
    assert max(sizes) <= 1024
    seen = [(n, row) for call in calls for n, rows in call for row in range(rows.start, rows.stop)]
    assert seen == [(n, i) for n, length in enumerate([1300, 10, 512, 3]) for i in range(length)]


def test_costs_are_told_from_a_part():
    shown = SampledBatch(SAMPLES, {"a": fakes.network()}, key=jax.random.key(0))
    masks = np.random.default_rng(0).random((600, *SHAPE)) < 0.5
    image_of = np.arange(600) % 2
    logits = shown.logits("a", "black", masks, image_of)
    assert logits.shape == (600, 10)
    assert shown.evaluations == 600
    assert shown.seconds_spared > 0
    first = batch().logits("a", "black", masks[:1], image_of[:1])
    np.testing.assert_allclose(logits[:1], first, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"removals": ()}, "removals must be"),
        ({"scorers": ("purple",)}, "scorers must be"),
        ({"generators": ("lime",)}, "generators must be"),
        ({"metrics": ("irof",)}, "metrics must be"),
        ({"rise_masks": (20, 10)}, "rise_masks must be .* rising"),
        ({"rise_grids": (7, 7)}, "rise_grids must be .* each once"),
        ({"rise_keeps": (1.0,)}, "rise_keeps must be .* above 0 and below 1"),
        ({"windows": (0,)}, "windows must be"),
        ({"strides": (1.5,)}, "strides must be .* above 0 and at most 1"),
        ({"top": 0.0}, "top must be"),
        ({"steps": 1}, "steps must be"),
        ({"region": 0}, "region must be"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        BaselineDependence(**options)


def test_removals_that_score_must_fit_the_networks():
    study = BaselineDependence(removals=("grey",), scorers=("grey", "token_dropping"))
    with pytest.raises(ValueError, match="token_dropping does not fit network a; take masking"):
        study.check({"a": lmjax.models.load("resnet18_digits")})
