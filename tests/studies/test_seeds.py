"""Means over seeds of a training."""

import csv
import math

import numpy as np
import pytest
from scipy import stats

from lmjax import studies
from lmjax.studies import seeds
from tests.studies import fakes

RNG = np.random.default_rng(0)
VALUES = {(kind, seed): RNG.uniform(size=3) for kind in ("plain", "grey") for seed in range(4)}


def table(values=VALUES):
    """Three rows for each network; of the last seed one row less."""
    return [
        {
            "network": f"net=a-b/{kind}-{seed}",
            "removal": "layer",
            "fraction": i / 2,
            **{"images": 10 * seed, "removed": 1.5 + seed},
            **{"accuracy": value, "accuracy_low": value - 0.1, "accuracy_high": value + 0.1},
        }
        for (kind, seed), each in values.items()
        for i, value in enumerate(each[: 2 if seed == 3 else 3])
    ]


def interval(values):
    return stats.ttest_1samp(values, 0).confidence_interval(0.95)


def test_means_over_seeds():
    rows = seeds.over_seeds({"curves": table()})["curves"]
    assert [(row["network"], row["fraction"]) for row in rows] == [
        (f"net=a-b/{kind}", fraction) for kind in ("plain", "grey") for fraction in (0, 0.5, 1)
    ]
    for row in rows:
        i, count = int(2 * row["fraction"]), 3 if row["fraction"] == 1 else 4
        kind = row["network"].split("/")[1]
        values = [VALUES[kind, seed][i] for seed in range(count)]
        low, high = interval(values)
        np.testing.assert_allclose(
            [row["accuracy"], row["accuracy_low"], row["accuracy_high"]],
            [np.mean(values), low, high],
        )
        assert row["seeds"] == count
        assert row["images"] == np.mean(range(count)) * 10


def test_differences_are_of_the_same_seeds():
    rows = seeds.over_seeds({"curves": table()})["curves_between_kinds"]
    assert {(row["network"], row["against_network"]) for row in rows} == {
        ("net=a-b/grey", "net=a-b/plain")
    }
    gained = [VALUES["grey", seed][0] - VALUES["plain", seed][0] for seed in range(4)]
    low, high = interval(gained)
    found = rows[0]
    np.testing.assert_allclose(
        [found["accuracy"], found["accuracy_low"], found["accuracy_high"]],
        [np.mean(gained), low, high],
    )
    assert "images" not in found


def test_what_one_seed_does_not_have():
    values = {**VALUES, ("grey", 1): np.array([math.nan, 0, 0])}
    found = seeds.over_seeds({"curves": table(values)})
    assert math.isnan(found["curves"][3]["accuracy"])
    assert not math.isnan(found["curves"][4]["accuracy"])
    one = seeds.student("accuracy", np.array([0.5]))
    assert one["accuracy"] == 0.5
    assert math.isnan(one["accuracy_low"])


def test_tables_that_compare_networks_are_left_out():
    compared = [{**row, "against": "net=a-b/plain-0"} for row in table()]
    found = seeds.over_seeds({"curves": table(), "network_differences": compared, "texts": []})
    assert set(found) == {"curves", "curves_between_kinds"}


@pytest.mark.parametrize("names", [(), ("a",), ("a-0", "a-1", "b"), ("a-0", "b-0")])
def test_networks_without_seeds(names):
    with pytest.raises(ValueError, match=r"must be called NAME-SEED.*got"):
        seeds.check_names(names)


def test_files_of_a_run(tmp_path):
    networks = {f"{kind}-{seed}": fakes.network(seed) for kind in "ab" for seed in range(2)}
    study = studies.SegmentRemoval(
        removals=("grey", "black"), orders=("random",), fractions=(0, 0.5)
    )
    rows = studies.run(study, fakes.Source(4), networks=networks, out=tmp_path)
    written = {path.name for path in studies.write_seeds(tmp_path)}
    assert {"seeds_means.csv", "seeds_differences_between_kinds.csv"} <= written
    assert {name for name in written if name.endswith(".png")} == {"seeds_curves_grid_random.png"}
    with open(tmp_path / "seeds_curves.csv", newline="") as file:
        first = next(csv.DictReader(file))
    whole = fakes.pick(rows.to_pylist(), removal="grey", fraction=0)
    found = [[row["correct"] for row in fakes.pick(whole, network=f"a-{i}")] for i in range(2)]
    assert float(first["accuracy"]) == pytest.approx(np.mean(found))
    assert (first["network"], first["seeds"]) == ("a", "2")
