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
KINDS = {kind: [f"net=a-b/{kind}-{seed}" for seed in range(4)] for kind in ("plain", "grey")}


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


def test_figures_have_a_line_for_each_kind_and_chance():
    rows = [row | {"classes": 10 + i % 2} for i, row in enumerate(table())]
    tables = seeds.over_seeds({"curves": rows}, KINDS)
    assert tables["curves"][0]["classes"] == 10.5
    figure = seeds.figures(tables)["curves"]
    (ax,) = figure.axes
    kinds, (chance,) = ax.lines[:2], ax.lines[2:]
    for line, kind in zip(kinds, KINDS, strict=True):
        expected = [row["accuracy"] for row in tables["curves"] if row["network"] == kind]
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert chance.get_ydata()[0] == pytest.approx(1 / 10.5)
    assert ax.get_title() == "layer masking"


def test_means_over_seeds():
    rows = seeds.over_seeds({"curves": table()}, KINDS)["curves"]
    assert [(row["network"], row["fraction"]) for row in rows] == [
        (kind, fraction) for kind in ("plain", "grey") for fraction in (0, 0.5, 1)
    ]
    for row in rows:
        i, count = int(2 * row["fraction"]), 3 if row["fraction"] == 1 else 4
        values = [VALUES[row["network"], seed][i] for seed in range(count)]
        low, high = interval(values)
        np.testing.assert_allclose(
            [row["accuracy"], row["accuracy_low"], row["accuracy_high"]],
            [np.mean(values), low, high],
        )
        assert row["seeds"] == count
        assert row["images"] == np.mean(range(count)) * 10


def test_differences_are_of_the_same_seeds():
    rows = seeds.over_seeds({"curves": table()}, KINDS)["curves_between_kinds"]
    assert {(row["network"], row["against_network"]) for row in rows} == {("grey", "plain")}
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
    found = seeds.over_seeds({"curves": table(values)}, KINDS)
    assert math.isnan(found["curves"][3]["accuracy"])
    assert not math.isnan(found["curves"][4]["accuracy"])
    one = seeds.student("accuracy", np.array([0.5]))
    assert one["accuracy"] == 0.5
    assert math.isnan(one["accuracy_low"])


def test_a_network_without_rows_costs_the_others_nothing():
    rows = [row for row in table() if row["network"] != KINDS["grey"][0]]
    found = seeds.over_seeds({"curves": rows}, KINDS)
    counts = {row["network"]: row["seeds"] for row in found["curves"] if row["fraction"] == 0}
    assert counts == {kind: len(names) - (kind == "grey") for kind, names in KINDS.items()}


def test_tables_that_compare_networks_are_left_out():
    first = "net=a-b/plain-0"
    compared = [{**row, "against": first} for row in table() if row["network"] != first]
    explained = [{**row, "explained": row["network"]} for row in table()]
    tables = {"curves": table(), "network_differences": compared, "ablation": explained}
    found = seeds.over_seeds({**tables, "texts": []}, KINDS)
    assert set(found) == {"curves", "curves_between_kinds"}


def test_networks_may_be_called_like_removals():
    kinds = {"a": ["layer", "grey"], "b": ["lime", "b"]}
    curves = [
        {"network": network, "removal": removal, "x": 1.0, "x_low": 0.5, "x_high": 1.5}
        for network in (*kinds["a"], *kinds["b"])
        for removal in ("layer", "grey", "black")
    ]
    differences = [{**row, "against": "layer"} for row in curves if row["removal"] != "layer"]
    networks = [{**row, "against": "layer"} for row in curves if row["network"] != "layer"]
    tables = {"curves": curves, "differences": differences, "network_differences": networks}
    found = seeds.over_seeds(tables, kinds)
    assert {name for name in found if "kinds" not in name} == {"curves", "differences"}
    assert [(row["network"], row["removal"], row["seeds"]) for row in found["differences"]] == [
        (kind, removal, 2) for kind in kinds for removal in ("grey", "black")
    ]


def test_images_that_are_known_are_counts():
    rows = [row | {"accuracy_images": i} for i, row in enumerate(table())]
    found = seeds.over_seeds({"curves": rows}, KINDS)["curves"]
    assert [row["seeds"] for row in found] == [4, 4, 3] * 2
    assert found[0]["accuracy_images"] == np.mean([0, 3, 6, 9])


def test_seeds_are_what_they_are_declared_to_be_whatever_their_names():
    """Pairs go by the order in a kind; networks that are in none are left out."""
    kinds = {"grey": KINDS["plain"][2:0:-1], "other": KINDS["grey"][:2]}
    found = seeds.over_seeds({"curves": table()}, kinds)
    first = found["curves"][0]
    assert (first["network"], first["seeds"]) == ("grey", 2)
    assert first["accuracy"] == pytest.approx(np.mean([VALUES["plain", i][0] for i in (2, 1)]))
    values = [VALUES["grey", i][0] - VALUES["plain", j][0] for i, j in ((0, 2), (1, 1))]
    gained = found["curves_between_kinds"][0]
    found = [gained["accuracy"], gained["accuracy_low"], gained["accuracy_high"]]
    np.testing.assert_allclose(found, [np.mean(values), *interval(values)])


@pytest.mark.parametrize(
    "kinds",
    [
        {},
        {"a": ["a-0"]},
        {"a": ["a-0", "a-1"], "b": ["b"]},
        {"a": ["a-0", "a-0"]},
        {"a": ["a-0", "c"]},
    ],
    ids=str,
)
def test_kinds_that_are_none(kinds):
    with pytest.raises(ValueError, match=r"kinds must name two or more.*networks are a-0, a-1, b"):
        seeds.check_kinds(kinds, ("a-0", "a-1", "b"))


def test_files_of_a_run(tmp_path):
    networks = {f"{kind}-{seed}": fakes.network(seed) for kind in "ab" for seed in range(2)}
    study = studies.SegmentRemoval(
        removals=("grey", "black"), orders=("random",), fractions=(0, 0.5)
    )
    rows = studies.run(study, fakes.Source(4), models=networks, output=tmp_path)
    kinds = {kind: [f"{kind}-0", f"{kind}-1"] for kind in "ab"}
    written = {path.name for path in studies.write_seeds(tmp_path, kinds=kinds)}
    assert {"seeds_means.csv", "seeds_differences_between_kinds.csv"} <= written
    assert {name for name in written if name.endswith(".png")} == {"seeds_curves_grid_random.png"}
    with open(tmp_path / "seeds_curves.csv", newline="") as file:
        first = next(csv.DictReader(file))
    whole = fakes.pick(rows.to_pylist(), removal="grey", fraction=0)
    found = [[row["correct"] for row in fakes.pick(whole, network=f"a-{i}")] for i in range(2)]
    assert float(first["accuracy"]) == pytest.approx(np.mean(found))
    assert (first["network"], first["seeds"]) == ("a", "2")
