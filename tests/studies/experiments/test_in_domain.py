"""The study of in-domain judges."""

import collections
import dataclasses

import jax
import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr

import lmjax
from lmjax.attribution import methods
from lmjax.masks import segments
from lmjax.models import Preprocessing
from lmjax.studies.experiments.in_domain import InDomainJudges
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from tests.studies import fakes

SMALL = InDomainJudges(
    removals=("black", "gaussian_noise"),
    methods=("lime", "occlusion", "gradient"),
    grid_size=8,
    num_samples=160,
    sizes=(0.2, 0.5),
    draws=6,
    most=0.5,
)
NETWORKS = {"plain": fakes.network(), "tuned": fakes.network(1)}


def batch_of(images):
    samples = [read_sample(fakes.Source(20), i) for i in images]
    return ImageBatch(samples, NETWORKS, key=jax.random.key(0))


@pytest.fixture(scope="module")
def rows():
    return SMALL.rows(batch_of((3, 5, 6, 7)))


def test_scores_are_those_of_the_metrics(rows):
    batch = batch_of([5])  # rows do not depend on the batch
    (image,), key = batch.images("tuned"), batch.keys[0]
    predictor = lmjax.Predictor(NETWORKS["tuned"], "black")
    squares = segments.grid(image, size=8)
    found = methods.attribute(
        "lime", predictor, image, squares, key=jax.random.fold_in(key, 0), num_samples=160
    )
    heatmap, target = found.heatmap, found.predicted_class
    (row,) = fakes.pick(rows, image=5, network="tuned", removal="black", method="lime")
    patches = segments.grid(image, size=8)  # 4 x 4 of 32 x 32 pixels
    wanted = lmjax.metrics.idsds(predictor, image, heatmap, target=target, segments=patches)
    assert row["idsds"] == pytest.approx(wanted, abs=1e-6)
    fidelity = lmjax.metrics.f_fidelity(
        predictor,
        image,
        heatmap,
        target=target,
        segments=squares,
        key=jax.random.fold_in(key, 3),
        sizes=(0.2, 0.5),
        num_samples=6,
        most=0.5,
    )
    assert row["ffid_plus"] == pytest.approx(fidelity.plus.mean(), abs=1e-6)
    assert row["ffid_minus"] == pytest.approx(fidelity.minus.mean(), abs=1e-6)
    assert row["target"] == target


def test_maps_of_another_network_are_judged():
    batch = batch_of([5])
    study = InDomainJudges(
        removals=("black",), methods=("occlusion",), grid_size=8, explained="plain"
    )
    rows = study.rows(batch)
    (image,), plain = batch.images("plain"), lmjax.Predictor(NETWORKS["plain"], "black")
    found = lmjax.attribution.occlusion(plain, image)
    judge = lmjax.Predictor(NETWORKS["tuned"], "black")
    wanted = lmjax.metrics.idsds(judge, image, found.heatmap, target=found.predicted_class)
    (row,) = fakes.pick(rows, network="tuned")
    assert row["idsds"] == pytest.approx(wanted, abs=1e-6)


def test_tables_rank_methods_and_compare_judges(rows):
    table = pa.Table.from_pylist(rows)
    tables = SMALL.tables(table)
    assert len(tables["scores"]) == 2 * 2 * 3
    means = {}
    for row in tables["scores"]:
        chosen = fakes.pick(rows, **{name: row[name] for name in ("network", "removal", "method")})
        mean = np.mean([each["ffid_plus"] for each in chosen])
        assert row["ffid_plus"] == pytest.approx(mean)
        assert row["ffid_plus_low"] <= mean <= row["ffid_plus_high"]
        means.setdefault((row["network"], row["removal"]), []).append(mean)
    for judge in means:
        ranks = [
            row["rank"] for row in tables["scores"] if (row["network"], row["removal"]) == judge
        ]
        assert sorted(ranks) == [1, 2, 3]
    (row,) = fakes.pick(
        tables["agreement"],
        network="plain",
        removal="black",
        against_network="tuned",
        against_removal="gaussian_noise",
    )
    wanted = spearmanr(means["plain", "black"], means["tuned", "gaussian_noise"]).statistic
    assert row["ffid_plus"] == pytest.approx(wanted)
    assert {row["against"] for row in tables["differences"]} == {"lime"}


def test_methods_are_ranked_on_the_images_that_all_of_them_know():
    """One method equals another where it is known, and the images it does not know are hard."""
    rows = [
        {"image": i, "network": "a", "removal": "grey", "method": method}
        | dict.fromkeys(("ffid_plus", "ffid_minus"), 0.0)
        | {"idsds": np.nan if method == "rise" and i > 4 else (0.9 if i < 5 else 0.1)}
        for method in ("lime", "rise")
        for i in range(10)
    ]
    rows += [row | {"method": "gradient", "idsds": np.nan} for row in rows[:10]]
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    assert [row["rank"] for row in tables["scores"]] == [1, 1, None]
    difference, _ = tables["differences"]
    assert difference["idsds"] == difference["idsds_low"] == difference["idsds_high"] == 0


def test_figures_have_a_line_for_each_method(rows):
    figures = SMALL.figures(SMALL.tables(pa.Table.from_pylist(rows)))
    assert sorted(figures) == ["plain", "tuned"]
    labels = [text.get_text() for text in figures["plain"].axes[0].get_yticklabels()]
    assert labels == ["LIME", "occlusion", "gradient"]


def test_evaluations_are_counted():
    """Two removals, one map each of 160 variants; IDSDS 17, FFid 2 x 2 x 6 + 1; the whole image."""
    study = InDomainJudges(
        removals=("black", "grey"),
        methods=("lime",),
        grid_size=8,
        num_samples=160,
        sizes=(0.2, 0.5),
        draws=6,
    )
    samples = [read_sample(fakes.Source(20), 4)]
    batch = ImageBatch(samples, {"a": fakes.network()}, key=jax.random.key(0))
    study.rows(batch)
    assert batch.evaluations == 2 * (160 + 17 + 25) + 1
    by_part = collections.Counter()
    for spending, count in batch.spent.items():
        by_part[spending.part] += count
    assert {"lime": 320, "IDSDS": 34, "F-Fidelity": 50}.items() <= by_part.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("meaningful_perturbation",)}, "methods must be one or more of .*lime"),
        ({"methods": ()}, "methods must be one or more of"),
        ({"sizes": (0.5, 1.0)}, "sizes must be .*below 1"),
        ({"removals": ("pink",)}, "removals must be one of"),
        ({"patches": 1}, "patches must be .*2 or more"),
        ({"most": 0.0}, "most must be .*above 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        InDomainJudges(**options)


def test_networks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="explained must be one of own, plain, tuned; got 'other'"):
        InDomainJudges(explained="other").check(NETWORKS)
    cropped = dataclasses.replace(fakes.network(), preprocessing=Preprocessing(resize=40, crop=32))
    other = {**NETWORKS, "cropped": cropped}
    with pytest.raises(ValueError, match=r"explained must be own .*maps of plain do not fit"):
        InDomainJudges(explained="plain").check(other)
    InDomainJudges().check(other)


def test_too_few_samples_are_refused_before_any_is_evaluated():
    study = InDomainJudges(methods=("kernelshap",), grid_size=8, num_samples=20)
    batch = batch_of([4])
    with pytest.raises(ValueError, match=r"num_samples must be .* for kernelshap with 16 segments"):
        study.rows(batch)
    assert batch.evaluations == 0
