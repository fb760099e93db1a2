"""The study of concordance."""

import dataclasses
import itertools

import jax
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lmjax import studies
from lmjax.studies.experiments.concordance import Concordance, shrink
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from lmjax.studies.statistics import Bootstrap
from tests.studies import fakes, linear_network

SMALL = Concordance(removals=("layer", "black"), shares=(0.75, 0.25))


def test_images_are_shrunk_whole_into_the_corner():
    images = np.random.default_rng(0).random((2, 30, 20, 3), np.float32)
    shrunk, shape = shrink(images, 0.4)
    assert shape == (12, 8)
    for before, after in zip(images, shrunk):
        for channel in range(3):
            expected = Image.fromarray(before[..., channel]).resize((8, 12), Image.BILINEAR)
            np.testing.assert_allclose(after[:12, :8, channel], expected, atol=1e-5)
        rest = np.ones((30, 20), bool)
        rest[:12, :8] = False
        mean = after[:12, :8].mean(axis=(0, 1))
        np.testing.assert_allclose(after[rest], np.broadcast_to(mean, (rest.sum(), 3)), atol=1e-6)


def test_rows_are_those_of_a_plain_loop():
    network = linear_network.network()
    samples = [read_sample(fakes.Source(9), i) for i in (2, 5)]
    batch = ImageBatch(samples, {"a": network}, key=jax.random.key(0))
    rows = {(r["image"], r["removal"], r["share"]): r["features"] for r in SMALL.rows(batch)}
    assert len(rows) == 2 * (1 + 2 * 2)
    assert batch.evaluations == len(rows)
    image = samples[1].image.astype(np.float32) / 255
    small = np.stack(
        [np.array(Image.fromarray(image[..., c]).resize((8, 8), Image.BILINEAR)) for c in range(3)],
        axis=-1,
    )
    canvas = np.zeros_like(image)
    canvas[:8, :8] = small

    def features(image):
        cells = ((image - 0.5) / 0.5).reshape(4, 8, 4, 8, 3).sum(axis=(1, 3))
        return cells.ravel()

    np.testing.assert_allclose(rows[5, "none", 1.0], features(image), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(rows[5, "black", 0.25], features(canvas), rtol=1e-4, atol=1e-3)
    alone = np.zeros((4, 4, 3))
    alone[0, 0] = ((small - 0.5) / 0.5).sum(axis=(0, 1))
    np.testing.assert_allclose(rows[5, "layer", 0.25], alone.ravel(), rtol=1e-4, atol=1e-3)


class Plain(fakes.Source):
    """Images of one colour each."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        colour = item["image"][0, 0]
        return item | {"image": np.broadcast_to(colour, item["image"].shape)}


def test_averages_over_what_is_visible_do_not_change(tmp_path):
    network = linear_network.network(average=True, total=True)
    rows = studies.run(SMALL, Plain(7), models={"a": network}, output=tmp_path, images_per_shard=3)
    assert rows.schema.field("features").type == pa.list_(pa.float32())
    tables = SMALL.tables(rows)
    by_key = {(row["removal"], row["share"]): row for row in tables["changes"]}
    for share in SMALL.shares:
        unchanged, changed = by_key["layer", share], by_key["black", share]
        assert unchanged["change"] == pytest.approx(0, abs=1e-5)
        assert unchanged["correlation"] == pytest.approx(1, abs=1e-5)
        assert changed["change"] > 0.01
        assert unchanged["images"] == 7
    for row in tables["differences"]:
        change = by_key["black", row["share"]]["change"] - by_key["layer", row["share"]]["change"]
        assert (row["removal"], row["against"]) == ("black", "layer")
        assert row["change"] == pytest.approx(change)
    again = dataclasses.replace(SMALL)
    other = studies.run(
        again, Plain(7), models={"a": network}, output=tmp_path / "b", images_per_shard=16
    )
    for one, two in zip(SMALL.tables(other)["changes"], tables["changes"], strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    ((name, figure),) = SMALL.figures(tables).items()
    assert name == "a"
    assert [len(ax.lines) for ax in figure.axes] == [2, 2, 2]


def test_statistics_against_loops_over_pairs():
    rng = np.random.default_rng(4)
    count, found = 6, []
    features = {key: rng.normal(size=(count, 5)) for key in (("none", 1.0), ("layer", 0.5))}
    for (removal, share), each in features.items():
        found += [
            {"image": i, "network": "a", "removal": removal, "share": share, "features": x}
            for i, x in enumerate(each)
        ]
    (row,) = Concordance().tables(pa.Table.from_pylist(found))["changes"]
    unit = {key: x / np.linalg.norm(x, axis=1, keepdims=True) for key, x in features.items()}
    whole, shrunk = (unit[key] @ unit[key].T for key in features)

    def statistics(images):
        pairs = [(i, j) for i, j in itertools.permutations(images, 2) if i != j]
        c, s = np.array([whole[pair] for pair in pairs]), np.array([shrunk[pair] for pair in pairs])
        return np.abs(s - c).mean(), np.corrcoef(s, c)[0, 1], s.mean()

    names = ("change", "correlation", "similarity")
    np.testing.assert_allclose([row[name] for name in names], statistics(range(count)))
    draws = np.random.default_rng(0).integers(count, size=(1000, count))
    drawn = np.array([statistics(draw) for draw in draws if len(set(draw)) > 2])
    assert len(drawn) > 950
    for i, name in enumerate(names[::2]):
        low, high = np.quantile(drawn[:, 2 * i], [0.025, 0.975])
        assert row[f"{name}_low"] == pytest.approx(low, abs=0.02)
        assert row[f"{name}_high"] == pytest.approx(high, abs=0.02)


def test_means_over_pairs_against_a_loop():
    values = np.random.default_rng(0).random((5, 5))
    values = values + values.T
    means = Bootstrap(5, seed=3).pair_means(values)
    draws = np.random.default_rng(3).integers(5, size=(1000, 5))
    for i in (0, 4, 999):
        pairs = [values[a, b] for a, b in itertools.permutations(draws[i], 2) if a != b]
        np.testing.assert_allclose(means[1 + i], np.mean(pairs))
    assert np.isnan(Bootstrap(1).pair_means(np.ones((1, 1)))).all()


@pytest.mark.parametrize(
    "shares", [(), (1.0, 0.5), (0.2, 0.5), (0.5, 0.5), (0.5, 0.0), (0.5, float("nan"))], ids=str
)
def test_shares_out_of_range_are_errors(shares):
    with pytest.raises(ValueError, match="shares must fall"):
        Concordance(shares=shares)
