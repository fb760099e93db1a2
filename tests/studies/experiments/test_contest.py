"""The contest of removals."""

import json

import jax
import numpy as np
import pyarrow as pa
import pytest

import lmjax
from lmjax.evaluation import evaluate
from lmjax.studies import measurements, seeds
from lmjax.studies.experiments.contest import RemovalContest
from lmjax.studies.experiments.lime_quality import LimeQuality
from lmjax.studies.experiments.shape import MaskShape
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from tests.studies import fakes

SMALL = RemovalContest(
    removals=("layer", "black"),
    n_segments=(4, 16, 1000),  # 32 x 32 pixels are too few for the last
    segmenter="grid",
    fractions=(0, 0.25, 1),
    margins=(0, 3),
    num_samples=24,
    grid_size=8,
    top=3,
    judges=("own", "black"),
    steps=4,
)
IMAGES = tuple(range(6))


def batch_of(images, source=None):
    samples = [read_sample(source or fakes.Source(20), i) for i in images]
    return ImageBatch(samples, {"a": fakes.network()}, key=jax.random.key(0))


@pytest.fixture(scope="module")
def rows():
    return SMALL.rows(batch_of(IMAGES))


def table_of(rows, measured=()):
    """Rows as those of images that are all classified correctly."""
    rows = [row | {"label": row["whole_prediction"]} for row in rows]
    return pa.Table.from_pylist(rows).replace_schema_metadata({b"measured": json.dumps(measured)})


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def black(image, masks):
    predictor = lmjax.Predictor(fakes.network(), lmjax.Replace("black"))
    return softmax(evaluate(predictor, image, masks))


def test_random_rows_follow_the_class_of_the_whole_image(rows):
    chosen = fakes.pick(rows, part="random", removal="black")
    assert {row["n_segments"] for row in chosen} == {4, 16}
    assert len(chosen) == len(IMAGES) * 2 * 3
    for row in chosen:
        image = fakes.Source(20)[row["image"]]["image"] / np.float32(255)
        whole, none = black(image, np.stack([np.ones((32, 32), bool), np.eye(32) > 2]))
        if row["fraction"] in (0, 1):
            wanted = (whole if row["fraction"] == 0 else none)[whole.argmax()]
            assert row["kept"] == pytest.approx(wanted, abs=1e-5)
        else:
            assert row["removed"] == {4: 1, 16: 4}[row["n_segments"]]
            assert row["visible"] == 0.75


def test_removals_lose_the_same_segments(rows):
    """A network that sees neither the order nor the removal would give the same rows."""
    shown = {
        removal: [row["visible"] for row in fakes.pick(rows, part="random", removal=removal)]
        for removal in SMALL.removals
    }
    assert shown["layer"] == shown["black"]


def test_shape_and_lime_are_those_of_their_studies(rows):
    shape = MaskShape(removals=SMALL.removals, margins=SMALL.margins)
    wanted = shape.rows(batch_of(IMAGES))
    found = fakes.pick(rows, part="shape")
    assert [{name: row[name] for name in wanted[0]} for row in found] == wanted
    lime = LimeQuality(
        removals=SMALL.removals,
        evaluated_under=("own",),
        num_samples=24,
        grid_size=8,
        top=3,
        ks=(1,),
    )
    for row in lime.rows(batch_of(IMAGES)):
        about = {name: row[name] for name in ("image", "removal", "alignment", "iou")}
        assert len(fakes.pick(rows, part="lime", **about)) == len(SMALL.judges)


def unchanged_area(predictor, image, scores, segments):
    """Oracle: squares of one size go one by one; trapezoids of whether the class is the same."""
    order = np.argsort(-scores, kind="stable")
    masks = np.stack([~np.isin(segments, order[: 4 * k]) for k in range(5)])  # 16 squares, 4 steps
    classes = np.asarray(evaluate(predictor, image, masks)).argmax(axis=1)
    same = classes == classes[0]
    return (same[1:] + same[:-1].astype(float)).mean() / 2


def test_gains_are_those_of_the_metric(rows):
    batch = batch_of(IMAGES)
    scores = LimeQuality(removals=SMALL.removals, num_samples=24, grid_size=8).explain(
        batch, "a", SMALL.removals
    )
    segments = batch.segments("a", "grid", size=8)
    predictor = lmjax.Predictor(fakes.network(), lmjax.Replace("black"))
    for i, (r, removal) in ((0, (0, "layer")), (3, (1, "black"))):
        image = batch.images("a")[i]
        wanted = lmjax.metrics.symmetric_relevance_gain(
            predictor, image, scores[i][r], segments[i], steps=4
        )
        (row,) = fakes.pick(rows, part="lime", image=i, removal=removal, judge="black")
        assert row["gain"] == pytest.approx(wanted, abs=1e-5)
        assert row["top_unchanged"] == pytest.approx(
            unchanged_area(predictor, image, scores[i][r], segments[i])
        )
    for row in fakes.pick(rows, part="lime", removal="black", judge="own"):
        (judged,) = fakes.pick(
            rows, part="lime", removal="black", judge="black", image=row["image"]
        )
        assert row["gain"] == judged["gain"]


def measured(network="a", factor=1.0):
    """Costs of both removals."""
    return [
        {
            **{"network": network, "removal": removal, "variants": 64, "device": "abacus"},
            **{"milliseconds": ms, "milliseconds_low": ms / 2, "milliseconds_high": 2 * ms},
            "first_call_seconds": 1.5 * factor,
        }
        for removal, ms in (("layer", 4.0 * factor), ("black", 3.0 * factor))
    ]


def test_one_row_for_each_removal_and_paired_differences(rows):
    tables = SMALL.tables(table_of(rows, measured()))
    layer, other = tables["removals"]
    assert (layer["removal"], layer["milliseconds"], other["milliseconds"]) == ("layer", 4, 3)
    chosen = fakes.pick(rows, part="random", removal="black", n_segments=16)
    by_image = np.array([row["kept"] for row in chosen]).reshape(len(IMAGES), 3)
    # Squares of one size: pixels removed are 0, a quarter and all.
    areas = (by_image[:, 0] + by_image[:, 1]) / 8 + (by_image[:, 1] + by_image[:, 2]) * 3 / 8
    assert other["r_oms_16"] == pytest.approx(areas.mean())
    assert other["r_oms"] == pytest.approx((other["r_oms_4"] + other["r_oms_16"]) / 2)
    assert {layer["rank"], other["rank"]} == {1, 2}
    assert (layer["rank"] == 1) == (layer["r_oms"] > other["r_oms"])
    assert other["unchanged"] == pytest.approx(
        np.mean([row["unchanged"] for row in fakes.pick(rows, part="random", removal="black")])
    )
    (difference,) = tables["differences"]
    assert (difference["removal"], difference["against"]) == ("black", "layer")
    for name in ("r_oms", "entropy", "object_removed", "alignment", "gain_black"):
        assert difference[name] == pytest.approx(other[name] - layer[name])
        assert difference[f"{name}_low"] <= difference[name] <= difference[f"{name}_high"]
    figures = SMALL.figures(tables)
    assert set(figures) == {"a cost", "a survival"}
    assert [ax.get_xscale() for ax in figures["a cost"].axes] == ["log"] * 3


@pytest.mark.parametrize("lost", [("layer", "black"), ("black",)], ids=str)
def test_an_image_whose_alignment_is_not_known_costs_itself_alone(rows, lost):
    holes = [
        row | {"alignment": np.nan}
        if row["part"] == "lime" and row["image"] == 2 and row["removal"] in lost
        else row
        for row in rows
    ]
    table = SMALL.tables(table_of(holes))
    for row in table["removals"]:
        known = [
            each["alignment"]
            for each in fakes.pick(rows, part="lime", removal=row["removal"], judge="own")
            if each["image"] != 2
        ]
        assert row["alignment"] == pytest.approx(np.mean(known))
        assert row["alignment_low"] < row["alignment"] < row["alignment_high"]
    layer, other = table["removals"]
    (difference,) = table["differences"]
    assert difference["alignment"] == pytest.approx(other["alignment"] - layer["alignment"])
    assert difference["alignment_low"] <= difference["alignment"] <= difference["alignment_high"]
    whole = SMALL.tables(table_of(rows))["removals"]
    assert [row["iou"] for row in table["removals"]] == [row["iou"] for row in whole]


def test_where_no_segment_is_removed_there_is_neither_area_nor_rank():
    study = RemovalContest(
        removals=SMALL.removals,
        parts=("random",),
        n_segments=(4,),
        segmenter="grid",
        fractions=(0, 0.01),
    )
    table = study.tables(table_of(study.rows(batch_of(IMAGES))))["removals"]
    assert [row["rank"] for row in table] == [None, None]
    assert all(np.isnan(row["r_oms"]) for row in table)


def test_images_that_are_not_classified_correctly_cost_the_parts_that_need_them_alone(rows):
    wrong = [row | {"label": 1 - row["whole_prediction"]} for row in rows]
    table = pa.Table.from_pylist(wrong).replace_schema_metadata({b"measured": b"[]"})
    tables = SMALL.tables(table)
    assert {row["rank"] for row in tables["removals"]} == {1, 2}
    assert "shape" not in tables
    assert not {"object_removed", "alignment"} & set(tables["removals"][0])
    assert set(SMALL.figures(tables)) == {"a survival"}
    shape = table.filter(pa.compute.equal(table.column("part"), "shape"))
    with pytest.raises(ValueError, match="no image is classified correctly"):
        SMALL.tables(shape)


def test_a_network_that_recognises_nothing_has_rows_as_wide_as_others(rows):
    """Its results without the object are NaN: columns stay those of the others."""
    right = [row | {"network": "a", "label": row["whole_prediction"]} for row in rows]
    wrong = [row | {"network": "b", "label": 1 - row["whole_prediction"]} for row in rows]
    tables = SMALL.tables(pa.Table.from_pylist([*right, *wrong]))
    for name in ("removals", "differences"):
        assert len({tuple(row) for row in tables[name]}) == 1
    assert [np.isnan(row["alignment"]) for row in tables["removals"]] == [False] * 2 + [True] * 2
    both = seeds.over_seeds(tables, {"k": ["a", "b"]})["removals"]
    assert all(np.isnan(row["alignment"]) for row in both)
    assert all(np.isfinite(row["r_oms"]) for row in both)


def test_rows_of_an_earlier_version_leave_out_what_they_did_not_have(rows):
    """A run that goes on has shards of both."""
    old = [{k: v for k, v in row.items() if k != "top_unchanged"} for row in rows]
    some = [row | {"top_unchanged": None} if row["image"] < 3 else row for row in rows]
    for each in (old, some):
        table = SMALL.tables(table_of(each))["removals"]
        assert "gain_own" in table[0]
        assert not [name for name in table[0] if name.startswith("top_unchanged")]


def test_networks_that_differ_in_their_seed_have_one_row_for_each_removal(rows):
    both = [row | {"network": name} for name in ("b0", "b1") for row in rows]
    tables = SMALL.tables(table_of(both, measured("b0") + measured("b1", 2)))
    table = seeds.over_seeds(tables, {"b": ["b0", "b1"]})["removals"]
    assert [(row["removal"], row["seeds"]) for row in table] == [("layer", 2), ("black", 2)]
    assert table[0]["milliseconds"] == 6
    assert table[0]["first_call_seconds"] == 2.25


def test_a_run_measures_once_and_rows_do_not_hold_times(tmp_path, monkeypatch):
    study = RemovalContest(
        removals=("black",), parts=("random",), n_segments=(4,), segmenter="grid", grid_size=8
    )
    source, networks = fakes.Source(3), {"a": fakes.network()}
    found = lmjax.studies.run(study, source, models=networks, output=tmp_path)
    (cost,) = measurements.measurements(found)
    assert cost["removal"] == "black"
    assert cost["milliseconds"] > 0
    assert not [name for name in found.column_names if "seconds" in name]
    monkeypatch.setattr(RemovalContest, "measure", lambda *_: pytest.fail("measured again"))
    again = lmjax.studies.run(study, source, models=networks, output=tmp_path)
    assert measurements.measurements(again) == [cost]
    assert study.tables(again)["costs"] == [cost]
    report = lmjax.studies.report([tmp_path], tmp_path / "report.html").read_text()
    assert "Seconds of the first call" in report


def test_removals_take_turns_when_they_are_measured(monkeypatch):
    asked = []

    def note(batch, network, removal, *_):
        asked.append(removal)

    monkeypatch.setattr(ImageBatch, "logits", note)
    batch = batch_of([0])
    costs = SMALL.measure(batch)
    assert [cost["removal"] for cost in costs] == list(SMALL.removals) * len(batch.networks)
    assert asked == list(SMALL.removals) * 6 * len(batch.networks)


def test_a_broken_first_image_is_not_measured_on(tmp_path):
    study = RemovalContest(
        removals=("black",), parts=("random",), n_segments=(4,), segmenter="grid", grid_size=8
    )
    source, networks = fakes.Source(2, broken=(0,)), {"a": fakes.network()}
    with pytest.warns(UserWarning, match="1 of 2 images could not be evaluated"):
        found = lmjax.studies.run(study, source, models=networks, output=tmp_path)
    assert [cost["removal"] for cost in measurements.measurements(found)] == ["black"]


def test_images_without_masks_take_part_in_random_removal_only():
    class Unmasked(fakes.Source):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"object_mask": None}

    with pytest.raises(ValueError, match=r"fake/2 has no object_mask, .*--parts random"):
        SMALL.rows(batch_of([2], Unmasked(4)))
    random = RemovalContest(
        removals=("black",), parts=("random",), n_segments=(4,), segmenter="grid"
    )
    rows = random.rows(batch_of([2], Unmasked(4)))
    tables = random.tables(pa.Table.from_pylist(rows))
    assert set(tables) == {"removals", "curves"}
    assert "milliseconds" not in tables["removals"][0]
    assert set(random.figures(tables)) == {"a survival"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"removals": ("layer", "segment_mean")}, "segment_mean in this study"),
        ({"parts": ("object",)}, "parts must be one or more of random, shape, lime"),
        ({"n_segments": (100, 25)}, "n_segments must be one or more whole numbers"),
        ({"fractions": (0.5,)}, "fractions must be two or more"),
        ({"fractions": (0.5, 0.2)}, "fractions must rise"),
        ({"judges": ("own", "gold")}, "judges, unless 'own', must be one of"),
        ({"steps": 0}, "steps must be a whole number"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        RemovalContest(**settings)


def test_segment_means_take_part_where_masks_are_of_segments():
    study = RemovalContest(removals=("layer", "segment_mean"), parts=("random", "lime"))
    assert study.removals[1] == "segment_mean"
