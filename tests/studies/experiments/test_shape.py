"""The study of mask-shape bias."""

import jax
import numpy as np
import pyarrow as pa
import pytest

import lmjax
from lmjax.evaluation import evaluate
from lmjax.studies.experiments.shape import MaskShape, grow
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from tests.studies import fakes

SMALL = MaskShape(removals=("layer", "black"), margins=(0, 3), least_images=1)
IMAGES = tuple(range(12))


@pytest.fixture(scope="module")
def rows():
    samples = [read_sample(fakes.Source(20), i) for i in IMAGES]
    return SMALL.rows(ImageBatch(samples, {"a": fakes.network()}, key=jax.random.key(0)))


def test_rows_are_those_of_a_plain_loop(rows):
    network = fakes.network()
    by_key = {(r["image"], r["removal"], r["margin"], r["hole"]): r for r in rows}
    assert len(by_key) == len(rows) == len(IMAGES) * 2 * 2 * 2
    y, x = np.mgrid[: fakes.SIZE, : fakes.SIZE]
    for index in (1, 5):
        item = fakes.Source(20)[index]
        image, mask = item["image"] / np.float32(255), item["object_mask"]
        distance = np.array([np.hypot(y - i, x - j) for i, j in np.argwhere(mask)]).min(axis=0)
        for margin in SMALL.margins:
            hole = distance <= margin
            half = fakes.SIZE // 2
            swapped = np.block(
                [[hole[half:, half:], hole[half:, :half]], [hole[:half, half:], hole[:half, :half]]]
            )
            for name, hidden in (("object", hole), ("swapped", swapped)):
                predictor = lmjax.Predictor(network, lmjax.Replace("black"))
                (logits,) = evaluate(predictor, image, ~hidden[None])
                row = by_key[index, "black", margin, name]
                assert row["prediction"] == logits.argmax()
                shares = np.exp(logits) / np.exp(logits).sum()
                assert row["probability"] == pytest.approx(shares.max(), abs=1e-5)
                assert row["hidden"] == pytest.approx(hidden.mean())


def test_objects_out_of_sight_are_errors():
    class Elsewhere(fakes.Source):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"object_mask": np.zeros((fakes.SIZE,) * 2, bool)}

    batch = ImageBatch(
        [read_sample(Elsewhere(3), 1)], {"a": fakes.network()}, key=jax.random.key(0)
    )
    with pytest.raises(ValueError, match="image fake/1: none of its object_mask is in the part"):
        SMALL.rows(batch)


def test_removals_that_cannot_be_made_are_errors_at_once():
    with pytest.raises(ValueError, match="removals cannot be segment_mean in this study"):
        MaskShape(removals=("layer", "segment_mean"))
    study = MaskShape(removals=("black", "token_dropping"))
    with pytest.raises(ValueError, match=r"removal token_dropping does not fit network a; "):
        study.check({"a": lmjax.models.load("resnet18_digits")})


def test_tight_masks_are_the_sources_own():
    class Tight(fakes.Source):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return item | {"tight_mask": item["object_mask"] & (np.arange(fakes.SIZE) % 2 == 0)}

    def hidden(study, source):
        batch = ImageBatch([read_sample(source, 3)], {"a": fakes.network()}, key=jax.random.key(0))
        return study.rows(batch)[0]["hidden"]

    tight = MaskShape(removals=("black",), margins=(0,), tight=True)
    loose = MaskShape(removals=("black",), margins=(0,))
    assert hidden(tight, Tight(9)) == hidden(loose, Tight(9)) / 2
    with pytest.raises(ValueError, match="fake/3 has no tight_mask"):
        hidden(tight, fakes.Source(9))


def test_growing_by_nothing_is_nothing():
    mask = np.random.default_rng(0).random((9, 7)) < 0.2
    np.testing.assert_array_equal(grow(mask, 0), mask)
    nothing = np.zeros((9, 7), bool)
    np.testing.assert_array_equal(grow(nothing, 4), nothing)


def answered(image, hole, correct, *, label=1, removal="layer", whole=True):
    return {
        "image": image,
        "network": "a",
        "label": label,
        "whole_prediction": label if whole else label + 1,
        "correct": correct,
        "removal": removal,
        "margin": 0,
        "hole": hole,
        "hidden": 0.25,
    }


def test_tables_count_images_that_are_classified_correctly():
    rows = [answered(i, "object", i < 2) for i in range(4)]
    rows += [answered(i, "swapped", True) for i in range(4)]
    rows += [answered(9, hole, True, label=3) for hole in ("object", "swapped")]
    rows += [answered(20, hole, False, whole=False) for hole in ("object", "swapped")]
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    (overall,) = tables["accuracies"]
    assert overall["images"] == 5
    assert overall["object"] == pytest.approx(3 / 5)
    assert overall["swapped"] == 1
    assert overall["ratio"] == pytest.approx(3 / 5)
    assert overall["ratio_low"] < overall["ratio"] < overall["ratio_high"]
    (of_class,) = tables["classes"]  # class 3 has only one image
    assert (of_class["label"], of_class["images"], of_class["ratio"]) == (1, 4, 0.5)


def test_a_ratio_to_nothing_is_not_a_number():
    rows = [answered(i, hole, False) for i in range(4) for hole in ("object", "swapped")]
    (overall,) = SMALL.tables(pa.Table.from_pylist(rows))["accuracies"]
    assert np.isnan(overall["ratio"])


def test_removals_are_compared_image_by_image():
    rows = []
    for removal, right in (("layer", {0, 1}), ("black", {0, 1, 2})):
        for i in range(4):
            rows += [answered(i, "object", i in right, removal=removal)]
            rows += [answered(i, "swapped", True, removal=removal)]
    (difference,) = SMALL.tables(pa.Table.from_pylist(rows))["differences"]
    assert (difference["removal"], difference["against"]) == ("black", "layer")
    assert difference["object"] == pytest.approx(1 / 4)
    assert difference["object_low"] >= 0  # never worse on any image


def test_no_image_classified_correctly_is_an_error():
    rows = [answered(0, hole, False, whole=False) for hole in ("object", "swapped")]
    with pytest.raises(ValueError, match="no image is classified correctly"):
        SMALL.tables(pa.Table.from_pylist(rows))


def test_figures_show_every_removal():
    rows = [
        answered(i, hole, i > 1, removal=removal) | {"margin": margin}
        for i in range(4)
        for hole in ("object", "swapped")
        for removal in SMALL.removals
        for margin in SMALL.margins
    ]
    ((name, figure),) = SMALL.figures(SMALL.tables(pa.Table.from_pylist(rows))).items()
    assert name == "a"
    assert [len(ax.lines) for ax in figure.axes] == [3, 3, 2]  # with chance


@pytest.mark.parametrize("margins", [(), (2, 0), (0, 0), (-1,)], ids=str)
def test_margins_out_of_range_are_errors(margins):
    with pytest.raises(ValueError, match=r"margins must be .* 0 or more"):
        MaskShape(margins=margins)
