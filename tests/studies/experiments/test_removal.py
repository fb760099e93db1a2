"""The removal study against a plain loop over evaluate, and its tables against its rows."""

import dataclasses
import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pyarrow as pa
import pytest

import lmjax
from lmjax.metrics import bootstrap_mean, class_entropy
from lmjax.plots import removal_colour
from lmjax.removals import title as removal_title
from lmjax.studies.experiments.removal import SegmentRemoval
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from lmjax.studies.settings import row_settings
from tests.studies import fakes
from tests.studies.fakes import pick

SMALL = SegmentRemoval(
    removals=("layer", "black", "segment_mean", "gaussian_noise"),
    fractions=(0.0, 0.4, 1.0),
    grid_size=8,
)
IMAGES = (0, 1, 2, 3)


def rows_of(study, images=IMAGES, networks=None, source=None):
    source = fakes.Source(20) if source is None else source
    networks = {"a": fakes.network()} if networks is None else networks
    samples = [read_sample(source, i) for i in images]
    return study.rows(ImageBatch(samples, networks, key=jax.random.key(study.seed)))


@pytest.fixture(scope="module")
def rows():
    return rows_of(SMALL)


def test_every_combination_has_a_row(rows):
    assert len(rows) == 4 * 4 * 3 * 3
    columns = ("image", "removal", "order", "fraction")
    assert len({tuple(row[c] for c in columns) for row in rows}) == len(rows)
    assert {row["network"] for row in rows} == {"a"}


def test_rows_do_not_depend_on_the_division_into_blocks(rows):
    def by_row(rows):
        keys = ("image", "removal", "order", "fraction")
        return sorted(rows, key=lambda row: [str(row[key]) for key in keys])

    alone = [row for i in (3, 1) for row in rows_of(SMALL, [i])]
    chosen = [row for row in rows if row["image"] in (1, 3)]
    for one, other in zip(by_row(chosen), by_row(alone), strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
        assert one | {"probability": 0} == other | {"probability": 0}


def test_rows_equal_a_plain_loop_over_images(rows):
    """Most salient first, by the object's share of each square, under black."""
    predictor = lmjax.Predictor(fakes.network(), lmjax.Replace("black"))
    source = fakes.Source(20)
    for row in pick(rows, removal="black", order="most_salient", fraction=0.4):
        item = source[row["image"]]
        squares = item["object_mask"].reshape(4, 8, 4, 8).mean(axis=(1, 3)).ravel()
        assert row["removed"] == 6
        assert row["visible"] == pytest.approx(10 / 16)
        # Ties are broken at random: all that is salient is gone, or all that is gone is salient.
        salient = np.flatnonzero(squares > 0)
        assert len(salient) <= 6
        image = item["image"] / np.float32(255)
        rest = itertools.combinations(np.flatnonzero(squares == 0), 6 - len(salient))
        keep = np.array([~np.isin(np.arange(16), [*salient, *others]) for others in rest])
        visible = keep.reshape(-1, 4, 4).repeat(8, axis=1).repeat(8, axis=2)
        found = jax.nn.softmax(predictor(image, visible)).max(axis=1)
        assert np.isclose(found, row["probability"], atol=1e-6).any()


def test_orders_are_what_they_say(rows):
    study = dataclasses.replace(SMALL, removals=("black",), fractions=(0.25, 0.5, 0.75))
    source = fakes.Source(20)
    batch = ImageBatch([read_sample(source, 5)], {"a": fakes.network()}, key=jax.random.key(0))
    segments = batch.segments("a", "grid", size=8)
    kept, _, described = study.variants(batch, "a", segments)
    share = source[5]["object_mask"].reshape(4, 8, 4, 8).mean(axis=(1, 3)).ravel()
    gone = {}
    for about, keep in zip(described, kept):
        gone.setdefault(about["order"], []).append(~keep[:16])
    for masks in gone.values():
        assert [mask.sum() for mask in masks] == [4, 8, 12]
        assert all((small <= large).all() for small, large in itertools.pairwise(masks))  # nested
    for mask in gone["most_salient"]:
        assert share[mask].min() >= share[~mask].max()
    for mask in gone["least_salient"]:
        assert share[mask].max() <= share[~mask].min()


def test_ends_are_the_whole_image_and_nothing(rows):
    network, source = fakes.network(), fakes.Source(20)
    for row in pick(rows, fraction=0.0):
        image = source[row["image"]]["image"] / np.float32(255)
        logits = network.apply(network.normalise(image)[None])
        assert row["prediction"] == int(logits.argmax())
        assert row["unchanged"]
        assert row["visible"] == 1
    for order in SMALL.orders:
        nothing = pick(rows, fraction=1.0, removal="layer", order=order)
        assert {row["visible"] for row in nothing} == {0}
        assert len({row["probability"] for row in nothing}) == 1  # no image is left to tell apart


def test_what_is_known_is_not_asked_again():
    source, networks = fakes.Source(20), {"a": fakes.network()}
    study = dataclasses.replace(SMALL, removals=("black", "grey"))
    batch = ImageBatch([read_sample(source, i) for i in IMAGES], networks, key=jax.random.key(0))
    study.rows(batch)
    kept, image_of, _ = study.variants(batch, "a", batch.segments("a", "grid", size=8))
    asked = {(i, keep.tobytes()) for i, keep in zip(image_of, kept) if not keep.all()}
    # Of each image: whole once, with nothing visible once, and 0.4 removed in three orders.
    assert len(asked) <= 4 * (1 + 3)
    assert batch.evaluations == 4 + 2 * len(asked)


def test_noise_is_the_images_own(rows):
    noise = pick(rows, removal="gaussian_noise", fraction=1.0)
    assert len({row["probability"] for row in noise}) == len(IMAGES)
    again = pick(rows_of(SMALL, [3]), removal="gaussian_noise", fraction=1.0)
    expected = pick(noise, image=3)
    assert [row["prediction"] for row in again] == [row["prediction"] for row in expected]


@pytest.mark.parametrize("segmenter", ["slic", "quickshift"])
def test_segments_of_differing_numbers(segmenter):
    study = SegmentRemoval(
        removals=("layer",), segmenters=(segmenter,), orders=("random",), n_segments=9
    )
    rows = rows_of(study, networks={"a": fakes.network(), "b": fakes.network(1)})
    assert {row["network"] for row in rows} == {"a", "b"}
    for row in rows:
        image = fakes.Source(20)[row["image"]]["image"] / np.float32(255)
        options = {"n_segments": 9} if segmenter == "slic" else {}
        count = getattr(lmjax.segments, segmenter)(image, **options).max() + 1
        assert row["removed"] == int(row["fraction"] * count + 0.5)
        assert (row["visible"] == 0) == (row["removed"] == count)
    shown = [row["visible"] for row in pick(rows, network="b", image=2)]
    assert shown == sorted(shown, reverse=True)


def test_gradients_of_a_named_network_order_segments():
    networks = {"a": fakes.network(), "b": fakes.network(1)}
    options = {"removals": ("black",), "fractions": (0.5,), "grid_size": 8}
    by_b = SegmentRemoval(saliency="b", orders=("most_salient",), **options)
    batch = ImageBatch([read_sample(fakes.Source(9), 8)], networks, key=jax.random.key(0))
    kept, _, _ = by_b.variants(batch, "a", batch.segments("a", "grid", size=8))
    image = batch.images("a")[0]
    heatmap = lmjax.attribution.gradient(lmjax.Predictor(networks["b"]), image).heatmap
    mean = heatmap.reshape(4, 8, 4, 8).mean(axis=(1, 3)).ravel()
    keep = kept[0][:16]
    assert mean[~keep].min() >= mean[keep].max()


def test_tables_are_those_of_the_metrics(rows):
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    assert len(tables["curves"]) == 4 * 3 * 3
    assert len(tables["means"]) == 4 * 3
    assert len(tables["differences"]) == 3 * 3
    (curve,) = pick(tables["curves"], removal="black", order="random", fraction=0.4)
    chosen = pick(rows, removal="black", order="random", fraction=0.4)
    predictions = np.array([row["prediction"] for row in chosen])
    correct = np.array([row["correct"] for row in chosen])
    assert curve["accuracy"] == correct.mean()
    assert curve["entropy"] == pytest.approx(class_entropy(predictions))
    assert curve["images"] == len(IMAGES)
    unchanged = np.array([row["unchanged"] for row in chosen])
    expected = bootstrap_mean(unchanged.astype(float), key=jax.random.key(0), num_resamples=4000)
    assert curve["unchanged_low"] == pytest.approx(expected.low, abs=0.26)
    assert curve["unchanged_low"] <= curve["unchanged"] <= curve["unchanged_high"]


def test_differences_are_paired(rows):
    table = pa.Table.from_pylist(
        [*rows, *(row | {"removal": "twin"} for row in rows if row["removal"] == "layer")]
    )
    tables = SMALL.tables(table)
    for row in pick(tables["differences"], removal="twin"):
        assert row["against"] == "layer"
        assert row["accuracy_low"] == row["accuracy"] == row["accuracy_high"] == 0
    (difference,) = pick(tables["differences"], removal="black", order="random")
    means = {row["removal"]: row for row in pick(tables["means"], order="random")}
    gained = means["black"]["unchanged"] - means["layer"]["unchanged"]
    assert difference["unchanged"] == pytest.approx(gained)


def test_class_similarity_where_a_matrix_is_given(rows, tmp_path):
    np.save(tmp_path / "same.npy", np.eye(10))
    study = dataclasses.replace(SMALL, similarity=str(tmp_path / "same.npy"))
    for row in study.tables(pa.Table.from_pylist(rows))["curves"]:
        assert row["similarity"] == pytest.approx(row["accuracy"])
    assert row_settings(study) == row_settings(SMALL)


def test_figures_show_every_curve(rows):
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    ((name, figure),) = SMALL.figures(tables).items()
    assert name == "a grid"
    assert len(figure.axes) == 3 * 3
    titles = [removal_title(name) for name in SMALL.removals]
    for ax in figure.axes:
        drawn = [each for each in ax.lines if each.get_linestyle() != ":"]
        assert [each.get_color() for each in drawn] == [*map(removal_colour, SMALL.removals)]
    for accuracy in figure.axes[:3]:
        (chance,) = (each for each in accuracy.lines if each.get_linestyle() == ":")
        assert chance.get_ydata()[0] == 0.1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*titles, "chance"]


def test_figures_show_layer_masking_first_and_tables_what_was_named_first(rows):
    study = dataclasses.replace(SMALL, removals=("black", "layer"))
    of_study = [row for name in study.removals for row in rows if row["removal"] == name]
    tables = study.tables(pa.Table.from_pylist(of_study))
    assert tables["differences"][0]["against"] == "black"
    ((_, figure),) = study.figures(tables).items()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["layer masking", "black"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"removals": ("blak",)}, "removals must be one of"),
        ({"removals": ()}, "removals must be one or more"),
        ({"removals": ("black", "black")}, "each once"),
        ({"segmenters": ("voronoi",)}, "segmenters must be"),
        ({"orders": ("sorted",)}, "orders must be"),
        ({"fractions": (0.5, 0.2)}, "fractions must rise"),
        ({"fractions": (0.5, 1.2)}, "fractions must rise"),
        ({"fractions": (0.5, float("nan"))}, "fractions must rise"),
        ({"grid_size": 0}, "grid_size must be"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SegmentRemoval(**options)


def test_similarity_must_be_a_square_matrix(tmp_path):
    np.save(tmp_path / "oblong.npy", np.ones((3, 4)))
    np.savez(tmp_path / "several.npz", np.eye(3))
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, message in (
        ("none.npy", "No such file"),
        ("oblong.npy", r"\(3, 4\)"),
        ("several.npz", "that can be read"),
        ("empty.npy", "that can be read"),
    ):
        study = SegmentRemoval(similarity=str(tmp_path / name))
        with pytest.raises(ValueError, match=f"similarity must be .*{message}"):
            study.check({"a": fakes.network()})


def test_networks_are_compared_on_the_same_images():
    samples = [read_sample(fakes.Source(4), i) for i in range(3)]
    networks = {"a": fakes.network(), "b": fakes.network(seed=1)}
    study = dataclasses.replace(
        SMALL, orders=("random",), removals=("black",), segmenters=("grid",)
    )
    rows = study.rows(ImageBatch(samples, networks, key=jax.random.key(0)))
    tables = study.tables(pa.Table.from_pylist(rows))
    (difference,), (a, b) = tables["network_differences"], tables["means"]
    assert (difference["network"], difference["against"]) == ("b", "a")
    assert difference["accuracy"] == pytest.approx(b["accuracy"] - a["accuracy"])


def test_saliency_must_be_known():
    study = SegmentRemoval(saliency="resnet9")
    with pytest.raises(ValueError, match="saliency must be"):
        study.check({"a": fakes.network()})


class Heatmaps(fakes.Source):
    """With saliency, but for index 2."""

    def __getitem__(self, index):
        saliency = np.random.default_rng(index).random((fakes.SIZE, fakes.SIZE), np.float32)
        return super().__getitem__(index) | {"saliency": None if index == 2 else saliency}


def test_the_sources_own_saliency_orders_segments():
    options = {"removals": ("black",), "fractions": (0.25, 0.5), "grid_size": 8}
    source, study = Heatmaps(4), SegmentRemoval(saliency="source", **options)
    samples = [read_sample(source, i) for i in (0, 3)]
    batch = ImageBatch(samples, {"a": fakes.network()}, key=jax.random.key(0))
    kept, image_of, described = study.variants(batch, "a", batch.segments("a", "grid", size=8))
    for i, about, keep in zip(image_of, described, kept):
        saliency = source[(0, 3)[i]]["saliency"]
        mean = saliency.reshape(4, 8, 4, 8).mean(axis=(1, 3)).ravel()
        gone = ~keep[:16]
        if about["order"] == "most_salient":
            assert mean[gone].min() > mean[~gone].max()
        elif about["order"] == "least_salient":
            assert mean[gone].max() < mean[~gone].min()


def test_images_without_saliency_are_left_out(tmp_path):
    study = SegmentRemoval(saliency="source", removals=("black",), fractions=(0.5,), grid_size=8)
    networks = {"a": fakes.network()}
    with pytest.warns(UserWarning, match="1 of 4 images .* image fake/2 has no saliency, which"):
        rows = lmjax.studies.run(study, Heatmaps(4), models=networks, output=tmp_path / "some")
    assert set(rows.column("image").to_pylist()) == {0, 1, 3}
    with pytest.raises(ValueError, match=r"none of the first 4 images .*no saliency, which"):
        lmjax.studies.run(study, fakes.Source(4), models=networks, output=tmp_path / "none")


def test_images_without_masks_say_what_else_orders_segments():
    sample = dataclasses.replace(read_sample(fakes.Source(1), 0), object_mask=None)
    batch = ImageBatch([sample], {"a": fakes.network()}, key=jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"fake/0 has no object_mask.* orders=random, saliency=source"
    ):
        SMALL.rows(batch)


def test_similarity_must_have_all_classes(tmp_path):
    np.save(tmp_path / "few.npy", np.eye(9))
    study = SegmentRemoval(similarity=str(tmp_path / "few.npy"))
    network = SimpleNamespace(module=SimpleNamespace(num_classes=10))
    with pytest.raises(ValueError, match="similarity has 9 classes, but network a has 10"):
        study.check({"a": network})
