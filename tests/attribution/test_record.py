"""Results: what they record, and how they are kept, shown and put into tables."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

import lmjax
from lmjax import attribution, metrics, objectives
from lmjax.attribution import Attribution
from lmjax.masks import segments
from lmjax.metrics import Curve
from tests.support.small_classifier import small_classifier

CLASSIFIER = small_classifier((12, 12, 3), num_classes=5)
IMAGE = np.random.default_rng(0).random((12, 12, 3), np.float32)
SQUARES = segments.grid(IMAGE, size=4)
GREY = lmjax.Predictor(CLASSIFIER, "grey")
KEY = jax.random.key(7)


def lime(**options):
    given = {"key": KEY, "num_samples": 100, **options}
    return attribution.lime(GREY, IMAGE, SQUARES, **given)


def rise(**options):
    return attribution.rise(GREY, IMAGE, key=KEY, grid=3, **options)


def deletion(**options):
    heatmap = np.random.default_rng(3).random((12, 12))
    return metrics.deletion(GREY, IMAGE, heatmap, step=24, **options)


def assert_same(one, other):
    """Equal bits, and equal in all that is static."""
    for field in dataclasses.fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name == "record":
            assert dataclasses.asdict(first) == dataclasses.asdict(second)
        elif field.name == "samples" and first is not None:
            assert (first.draws, first.count, first.settings) == (
                second.draws,
                second.count,
                second.settings,
            )
            jax.tree.map(np.testing.assert_array_equal, first, second)
        else:
            np.testing.assert_array_equal(first, second)


def test_a_result_records_how_it_was_made():
    record = lime(target=3, objective="logit", keep_probability=0.4).record
    assert (record.method, record.removal) == ("lime", "Replace('grey')")
    assert record.network.startswith("SmallClassifier")
    assert record.settings["target"] == 3
    assert record.settings["objective"] == "logit"
    assert record.settings["keep_probability"] == 0.4
    assert record.settings["num_samples"] == 100
    assert record.settings["segments"] == "int32[12, 12] from 0 to 8"
    assert record.key == tuple(jax.random.key_data(KEY).tolist())
    assert record.versions["lmjax"] == lmjax.__version__
    json.dumps(dataclasses.asdict(record))
    curve = deletion(objective=objectives.margin(1)).record
    assert (curve.method, curve.key) == ("deletion", None)
    assert curve.settings["step"] == 24


def test_a_predictor_that_is_a_function_is_recorded_as_the_network():
    def mean(image, masks):
        return jnp.where(masks[..., None], image, 0.0).mean(axis=(1, 2))

    record = attribution.leave_one_out(lmjax.Evaluator(mean), IMAGE, SQUARES).record
    assert record.network.endswith("mean")
    assert record.removal == ""


def test_records_do_not_tell_pytrees_apart():
    one, other = (attribution.smoothgrad(GREY, IMAGE, key=jax.random.key(i)) for i in (0, 1))
    assert dataclasses.asdict(one.record) != dataclasses.asdict(other.record)
    both = jax.tree.map(np.add, one, other)
    np.testing.assert_allclose(both.scores, one.scores + other.scores)


RESULTS = {
    "lime": lime,
    "several targets": lambda: lime(target=(0, 3)),
    "an objective": lambda: lime(objective=objectives.entropy()),
    "rise": lambda: rise(num_samples=40),
    "gradient": lambda: attribution.gradient(GREY, IMAGE),
    "curve": deletion,
    "curves": lambda: deletion(target=(1, 2)),
}


@pytest.mark.parametrize("name", RESULTS)
def test_files_hold_everything(name, tmp_path):
    result = RESULTS[name]()
    path = result.save(tmp_path / "result.npz")
    assert_same(type(result).load(path), result)
    result.save(path)  # over its own
    assert [each.name for each in tmp_path.iterdir()] == ["result.npz"]
    with np.load(path, allow_pickle=False) as file:  # NumPy alone reads it
        json.loads(file["header"].tobytes())


@pytest.mark.parametrize("method", [lime, rise])
def test_a_method_goes_on_from_a_file(method, tmp_path):
    stored = Attribution.load(method(num_samples=96).save(tmp_path / "a.npz"))
    longer = method(num_samples=160, previous=stored)
    assert_same(longer, method(num_samples=160, previous=method(num_samples=96)))


def test_other_files_are_refused(tmp_path):
    path, other = tmp_path / "a.npz", tmp_path / "b.npz"
    lime().save(path)
    with pytest.raises(ValueError, match="holds 'attribution'; expected 'curve'"):
        Curve.load(path)
    with pytest.raises(ValueError, match="path must end in"):
        lime().save(tmp_path / "a.pkl")
    np.savez(other, heatmap=np.zeros(3))
    with pytest.raises(ValueError, match=r"b\.npz is not a whole file of this type: attribution"):
        Attribution.load(other)
    with pytest.raises(ValueError, match=r"b\.npz is not a whole file of this type"):
        lime().save(other)  # nor is somebody's file overwritten
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        other.write_bytes(content[:cut])
        with pytest.raises(ValueError, match="not a whole file of this type"):
            Attribution.load(other)
    with pytest.raises(FileNotFoundError):
        Attribution.load(tmp_path / "none.npz")


def test_flipped_bits_are_seen_or_change_nothing(tmp_path):
    result, path = lime(), tmp_path / "a.npz"
    content = result.save(path).read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for place in rng.integers(len(content), size=200):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            assert_same(Attribution.load(path), result)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 150
    assert all(re.search("not a whole file|has format|holds", each) for each in messages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99, this version of lmjax reads 1; read it with the version"),
        ({"num_variants": None, "record": None}, None),
        ({"target": ...}, "not a whole file of this type: attribution .'target'"),
    ],
)
def test_headers_are_checked(change, message, tmp_path):
    path = lime().save(tmp_path / "a.npz")
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").tobytes()) | change
    text = json.dumps({name: value for name, value in header.items() if value is not ...})
    np.savez(path, header=np.frombuffer(text.encode(), np.uint8), **arrays)
    if message is None:
        assert Attribution.load(path).record is None
        return
    with pytest.raises(ValueError, match=message):
        Attribution.load(path)


@pytest.mark.parametrize("name", ["lime", "curve"])
def test_files_with_other_arrays_are_refused(name, tmp_path):
    result = RESULTS[name]()
    path = result.save(tmp_path / "a.npz")
    with np.load(path) as file:
        arrays = dict(file)
    first = next(each for each in arrays if each != "header")
    fewer = {each: array for each, array in arrays.items() if each != first}
    for other in (fewer, arrays | {"more": np.zeros(3)}):
        np.savez(path, **other)
        with pytest.raises(ValueError, match="not a whole file of this type"):
            type(result).load(path)


def test_tables_have_a_row_for_each_segment_and_join():
    one, two = lime(target=(0, 3)), lime(objective=objectives.entropy())
    table = pandas.concat([one.to_pandas(), two.to_pandas()], ignore_index=True)
    assert len(table) == 2 * 9 + 9
    row = table[(table.target == 3) & (table.segment == 5)].iloc[0]
    assert row.score == one.scores[1, 5]
    assert row.standard_error == one.standard_error[1, 5]
    assert (row.method, row.removal) == ("lime", "Replace('grey')")
    pixels = rise(num_samples=40).to_pandas()
    assert len(pixels) == 144
    last = pixels.iloc[-1]
    assert (last.row, last.column) == (11, 11)
    curve = deletion(target=(1, 2))
    steps = curve.to_pandas()
    np.testing.assert_array_equal(steps[steps.target == 2].value, curve.values[1])
    np.testing.assert_array_equal(steps[steps.target == 2].fraction, curve.fractions)


def test_results_are_drawn_and_shown_in_notebooks():
    found, curve = lime(), deletion()
    ax = found.plot(image=IMAGE)
    assert len(ax.images) == 2
    np.testing.assert_array_equal(ax.images[1].get_array(), found.heatmap)
    low, high = ax.images[1].get_clim()
    assert -low == high == np.abs(found.heatmap).max()
    assert found.plot(ax=ax) is ax
    (line,) = curve.plot().lines
    np.testing.assert_array_equal(line.get_ydata(), curve.values)
    for result in (found, curve):
        text = result._repr_html_()
        assert "data:image/png;base64," in text
        assert len(repr(result)) < 300
    several = lime(target=(0, 3))
    assert "png" not in several._repr_html_()
    with pytest.raises(ValueError, match=r"has 2 targets; draw one with lmjax\.plots\.heatmap"):
        several.plot()
    with pytest.raises(ValueError, match=r"has 2 targets; draw one with lmjax\.plots\.curve"):
        deletion(target=(0, 1)).plot()


@pytest.mark.parametrize(
    "options", [{"num_samples": 2**9}, {"index": "STII", "target": (0, 2), "num_samples": 200}]
)
def test_interactions_are_kept_as_attributions_are(options, tmp_path):
    found = attribution.interactions(GREY, IMAGE, SQUARES, key=KEY, **options)
    assert found.record.method == "interactions"
    path = found.save(tmp_path / "pairs.npz")
    again = attribution.Interactions.load(path)
    assert_same(found, again)
    if found.samples is not None:
        rest = {**options, "num_samples": 300}
        more = attribution.interactions(GREY, IMAGE, SQUARES, key=KEY, previous=again, **rest)
        assert more.num_variants > found.num_variants
    with pytest.raises(ValueError, match="attribution"):
        Attribution.load(path)
    with pytest.raises(ValueError, match=r"pairs\.npz"):
        lime().save(path)


def test_interactions_as_a_table_and_as_pictures():
    found = attribution.interactions(GREY, IMAGE, SQUARES, key=KEY, target=(0, 2))
    count = found.scores.shape[-1]
    table = found.to_pandas()
    assert len(table) == 2 * count * (count + 1) // 2
    row = table[(table.target == 2) & (table["first"] == 1) & (table["second"] == 4)]
    assert row.score.item() == found.pairs[1, 1, 4]
    single = table[(table.target == 0) & (table["first"] == 3) & (table["second"] == 3)]
    assert single.score.item() == found.scores[0, 3]
    with pytest.raises(ValueError, match="2 targets"):
        found.plot()
    alone = attribution.interactions(GREY, IMAGE, SQUARES, key=KEY, target=0)
    for options, expected in (({}, alone.heatmap), ({"segment": 2}, alone.partners(2))):
        drawn = alone.plot(image=IMAGE, **options)
        np.testing.assert_array_equal(drawn.images[-1].get_array(), expected)
    assert "<img" in alone._repr_html_()
