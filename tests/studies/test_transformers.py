"""Studies of vision transformers beside other networks: segments, and shares that are shown."""

import dataclasses

import jax
import numpy as np
import pyarrow as pa
import pytest

import lmjax
from lmjax import studies
from lmjax.masking.patches import whole_patches
from lmjax.masks import ImageCoalitions
from lmjax.studies.figures import note_of_shares
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from tests.studies import fakes
from tests.studies.fakes import pick
from tests.support.small_transformer import small_transformer

REMOVALS = {"removals": ("masking", "grey")}
FAST = REMOVALS | {"orders": ("random",), "fractions": (0.0, 0.5)}
BASELINES = {
    **{"scorers": ("grey",), "metrics": (), "rise_masks": (20,), "rise_grids": (4,)},
    **{"rise_keeps": (0.5,), "windows": (8,), "strides": (1.0,)},
}
LIME = {"num_samples": 24, "ks": (1, 2), "snap_to_patches": False}


def network(patch_size):
    return small_transformer(patch_size, image_size=fakes.SIZE, num_classes=10)


def batch(images=3, **networks):
    samples = [read_sample(fakes.Source(9), i) for i in range(images)]
    return ImageBatch(samples, networks, key=jax.random.key(0))


def test_networks_that_see_images_alike_have_segments_of_the_largest_patches():
    shown = batch(a=network(8), b=network(16), c=fakes.network())
    for name, options in (("slic", {"n_segments": 9}), ("grid", {"size": 4}), ("grid", {})):
        found = shown.segments("a", name, **options)
        for each in found:
            np.testing.assert_array_equal(each, lmjax.segments.snap(each, 16))
        np.testing.assert_array_equal(found, shown.segments("c", name, **options))
    plain = shown.segments("a", "grid", snap_to_patches=False, size=4)
    assert plain.max() + 1 == (fakes.SIZE // 4) ** 2
    np.testing.assert_array_equal(found[0], lmjax.segments.grid(shown.images("a")[0], size=16))


def test_networks_that_see_images_otherwise_keep_their_own():
    cropped = dataclasses.replace(fakes.AS_IT_IS, crop=fakes.SIZE)
    other = dataclasses.replace(fakes.network(), preprocessing=cropped)
    found = batch(a=network(16), b=other).segments("b", "grid", size=8)
    np.testing.assert_array_equal(found[0], lmjax.segments.grid(np.zeros((32, 32, 3)), size=8))


def test_patches_that_do_not_fit_into_one_another_are_an_error():
    networks = {"a": network(16), "b": small_transformer(10, image_size=40)}
    for study in (studies.SegmentRemoval(**REMOVALS), studies.LimeQuality(**REMOVALS)):
        with pytest.raises(ValueError, match=r"network b has patches of 10 pixels, another .* 16"):
            study.check(networks)
        dataclasses.replace(study, snap_to_patches=False, **_without_judges(study)).check(networks)


def _without_judges(study):
    return {"evaluated_under": ("own",)} if isinstance(study, studies.LimeQuality) else {}


@pytest.mark.parametrize("patch_size", [8, 16])
def test_shares_are_those_of_whole_patches_under_token_dropping_alone(patch_size):
    shown = batch(a=network(patch_size))
    segments = shown.segments("a", "slic", snap_to_patches=False, n_segments=9)
    keep = np.random.default_rng(0).random((150, segments.max() + 1)) < 0.5
    image_of = np.arange(150) % 3
    masks = np.stack([row[segments[i]] for row, i in zip(keep, image_of)])
    expected = {"masking": whole_patches(masks, patch_size), "grey": masks, "gaussian_noise": masks}
    for removal, visible in expected.items():
        for given in (masks, ImageCoalitions(segments, keep)):
            found = shown.shares_shown("a", removal, given, image_of)
            np.testing.assert_allclose(found, visible.mean(axis=(1, 2)))


def removal_rows(patch_size, **options):
    study = studies.SegmentRemoval(**FAST, **options)
    return study, study.rows(batch(a=network(patch_size)))


def test_removal_study_shows_what_its_masks_show():
    for options in ({}, {"grid_size": 8}, {"segmenters": ("slic",), "n_segments": 9}):
        study, rows = removal_rows(16, **options)
        assert all(row["shown"] == pytest.approx(row["visible"]) for row in rows)
        assert {row["removed"] for row in pick(rows, fraction=0.5)} <= {1, 2}
        tables = study.tables(pa.Table.from_pylist(rows))
        (figure,) = study.figures(tables).values()
        assert "masks show" not in figure.get_suptitle()


def test_removal_study_tells_what_small_patches_show_of_large_tokens():
    """Random squares of 8 pixels, half of them removed, and tokens of 16."""
    study, rows = removal_rows(16, grid_size=8, snap_to_patches=False)
    half = pick(rows, fraction=0.5)
    assert all(row["visible"] == 0.5 for row in half)
    assert all(row["shown"] == 0.5 for row in pick(half, removal="grey"))
    assert max(row["shown"] for row in pick(half, removal="masking")) <= 0.25
    tables = study.tables(pa.Table.from_pylist(rows))
    curve = pick(tables["curves"], removal="masking", fraction=0.5)[0]
    dropped = pick(half, removal="masking")
    assert curve["shown"] == pytest.approx(np.mean([row["shown"] for row in dropped]))
    (figure,) = study.figures(tables).values()
    assert "masking shows" in figure.get_suptitle()
    assert figure.get_suptitle().count("where masks show 50%") == 1


@pytest.mark.parametrize(
    "study",
    [
        studies.MaskShape(**REMOVALS, margins=(1,), least_images=1),
        studies.LimeQuality(**REMOVALS, **LIME, grid_size=8, evaluated_under=("own", "masking")),
        studies.Consistency(**REMOVALS, **LIME, grid_size=8, redrawn=()),
        studies.FeatureLinearity(**REMOVALS, sizes=(8,), patches=4),
        studies.Concordance(**REMOVALS, shares=(0.8, 0.5)),
        studies.BaselineDependence(**REMOVALS, **BASELINES),
    ],
    ids=lambda study: study.name,
)
def test_rows_tables_and_figures_have_the_share_that_is_shown(study):
    shown = batch(4, a=network(16))
    rows = [row for row in study.rows(shown) if row.get("removal") in REMOVALS["removals"]]
    rows = [row for row in rows if row.get("shown") is not None]
    visible = {
        removal: np.mean([row.get("visible", 1 - row.get("hidden", 0)) for row in of_removal])
        for removal in REMOVALS["removals"]
        if (of_removal := pick(rows, removal=removal))
    }
    means = {name: np.mean([r["shown"] for r in pick(rows, removal=name)]) for name in visible}
    if study.name == "baselines":
        assert list(means) == ["masking"]
    elif study.name != "lime":  # there the removal is that of the explanation
        assert means["grey"] == pytest.approx(visible["grey"])
    assert means["masking"] < 0.9 * visible["masking"]
    every = pa.Table.from_pylist(
        [
            row | {"label": row["whole_prediction"]} if "label" in row else row
            for row in study.rows(shown)
        ]
    )  # correctly classified, which some tables are of
    tables = study.tables(every)
    assert any("shown" in row for table in tables.values() for row in table)
    titles = [figure.get_suptitle() for figure in study.figures(tables).values()]
    assert any("masking shows" in title for title in titles)
    # rows of runs before there was such a column have tables and figures too
    study.figures(study.tables(every.drop_columns(["shown"])))


def test_notes_name_each_removal_once():
    rows = [
        {"removal": "token_dropping", "visible": 0.5, "shown": 0.2},
        {"removal": "token_dropping", "visible": 0.5, "shown": 0.3},
        {"removal": "grey", "visible": 0.5, "shown": 0.5},
    ]
    assert note_of_shares(rows) == "\ntoken dropping shows 20% where masks show 50%"
    assert note_of_shares(rows[2:]) == ""
    assert note_of_shares([{"removal": "grey", "visible": 0.5}]) == ""
    assert note_of_shares([{"removal": "grey", "hidden": 0.5, "shown": 0.2}]).endswith("show 50%")
