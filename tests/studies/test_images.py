"""Batches of images: which engine evaluates what, and how much is expected."""

import dataclasses

import jax
import numpy as np
import pytest

import lmjax
from lmjax import studies
from lmjax.masks import random_keep
from lmjax.studies import images, predictors
from lmjax.studies.images import ImageBatch
from lmjax.studies.runner import open_run
from lmjax.studies.samples import read_sample
from tests.studies import fakes, linear_network

HALF = np.broadcast_to(np.arange(fakes.SIZE) < fakes.SIZE // 2, (fakes.SIZE, fakes.SIZE))


def batch(number=3, **options):
    samples = [read_sample(fakes.Source(9), i) for i in range(number)]
    return ImageBatch(samples, {"a": fakes.network()}, key=jax.random.key(0), **options)


@pytest.fixture
def calls(monkeypatch):
    """What evaluators were made of and asked."""
    made = []

    @dataclasses.dataclass(frozen=True)
    class Recording(lmjax.Evaluator):
        def images(self, images, masks, *, image_of, expected=None):
            made.append((self, len(masks), expected))
            plain = dataclasses.replace(self, engine="dense")
            return lmjax.Evaluator.images(plain, images, masks, image_of=image_of)

    monkeypatch.setattr(images, "Evaluator", Recording)
    return made


@dataclasses.dataclass(frozen=True)
class Engines:
    """A predictor of whole engines."""

    engines = ("dense", "visible")

    def __call__(self, image, masks):
        return masks.mean(axis=(1, 2))[:, None]


def test_variants_of_the_whole_run_are_expected(calls):
    shown = batch(3, num_images=30)
    shown.logits("a", "layer", np.stack([HALF] * 6), np.arange(6) % 3)
    shown.logits("a", "grey", np.stack([HALF] * 6), np.arange(6) % 3, total=24)
    shown.whole_logits("a")
    assert [(count, expected) for _, count, expected in calls] == [(6, 60), (6, 240), (3, 30)]
    alone = batch(3)
    alone.logits("a", "layer", np.stack([HALF] * 6), np.arange(6) % 3)
    assert calls[-1][1:] == (6, 6)


def test_what_is_expected_is_the_same_when_a_run_goes_on(calls, tmp_path):
    options = {"models": {"a": fakes.network()}, "images_per_shard": 2}
    study = studies.MaskShape(removals=("layer", "uniform_noise"), margins=(0,))
    whole = studies.run(study, fakes.Source(6), output=tmp_path / "whole", **options)
    expected = {each.predictor.__class__.__name__: n for each, _, n in calls}
    assert expected == {"Predictor": 12, "ImageRemoval": 12, "WholeImage": 6}
    studies.run(study, fakes.Source(6), output=tmp_path / "parts", images=6, **options)
    next((tmp_path / "parts").glob("rows-*/*04.parquet")).unlink()
    calls.clear()
    assert studies.run(study, fakes.Source(6), output=tmp_path / "parts", **options).equals(whole)
    assert {each.predictor.__class__.__name__: n for each, _, n in calls} == expected


def test_removals_that_are_the_same_for_all_images_are_plain_predictors(calls):
    shown = batch(engine="auto", batch_size=2)
    for removal in ("layer", "layer@2", "masking", "grey", "gaussian_noise"):
        shown.logits("a", removal, np.stack([HALF] * 3), np.arange(3))
    evaluators = [each for each, _, _ in calls]
    kinds = [type(each.predictor) for each in evaluators]
    assert kinds == 4 * [lmjax.Predictor] + [predictors.ImageRemoval]
    assert evaluators[0].predictor.removal == lmjax.LayerMasking()
    assert {(each.engine, each.batch_size) for each in evaluators} == {("auto", 2)}


def test_an_engine_serves_predictors_that_support_it(calls):
    shown = batch(engine="visible")
    masks, image_of = np.stack([HALF] * 3), np.arange(3)
    shown._logits("a", Engines(), shown.images("a"), masks, image_of)
    shown.logits("a", "gaussian_noise", masks, image_of)
    assert [each.engine for each, _, _ in calls] == ["visible", "dense"]


def test_a_removal_that_is_registered_again_never_meets_the_program_of_the_old():
    shown, masks, image_of = batch(), np.stack([HALF] * 3), np.arange(3)

    def painting(colour):
        return lambda *, key: lmjax.Replace((colour,) * 3)

    found = {}
    try:
        for name, colour in (("black", 0.0), ("white", 1.0)):
            lmjax.removals.register("again", painting(colour), description="a colour")
            found[name] = shown.logits("a", "again", masks, image_of)
    finally:
        lmjax.removals.registry.REGISTRY.unregister("again")
    for name, logits in found.items():
        expected = shown.logits("a", name, masks, image_of)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(found["black"] - found["white"]).max() > 1e-3


def test_noise_is_each_images_own_and_the_same_in_any_batch():
    masks = np.stack([HALF] * 3)
    together = batch().logits("a", "gaussian_noise", masks, np.arange(3))
    samples = [read_sample(fakes.Source(9), 2)]
    alone = ImageBatch(samples, {"a": fakes.network()}, key=jax.random.key(0))
    found = alone.logits("a", "gaussian_noise", masks[:1], np.arange(1))
    np.testing.assert_allclose(found[0], together[2], atol=1e-5)


@pytest.mark.parametrize("engine", ["auto", "dense", "visible", "shared"])
def test_engines_give_the_same_rows_and_are_recorded(engine, tmp_path):
    study = studies.MaskShape(removals=("layer", "grey"), margins=(0,))
    options = {"models": {"a": fakes.network()}}
    dense = studies.run(
        study, fakes.Source(4), output=tmp_path / "dense", engine="dense", **options
    )
    rows = studies.run(study, fakes.Source(4), output=tmp_path / "out", engine=engine, **options)
    for one, other in zip(rows.to_pylist(), dense.to_pylist(), strict=True):
        assert one.pop("probability") == pytest.approx(other.pop("probability"), abs=1e-5)
        assert one == other
    assert [each["engine"] for each in open_run(tmp_path / "out")[0]["made_by"]] == [engine]
    page = studies.report([tmp_path / "out"], tmp_path / "report.html").read_text()
    assert f"engine {engine}" in page


def test_a_run_goes_on_with_another_engine(tmp_path):
    study = studies.MaskShape(removals=("layer",), margins=(0,))
    options = {"models": {"a": fakes.network()}, "output": tmp_path, "images_per_shard": 2}
    few = studies.run(study, fakes.Source(4), images=2, engine="dense", **options)
    rows = studies.run(study, fakes.Source(4), engine="auto", **options)
    assert rows.slice(0, few.num_rows).equals(few)
    assert [each["engine"] for each in open_run(tmp_path)[0]["made_by"]] == ["dense", "auto"]


def test_shards_that_record_no_engine_are_dense(tmp_path, monkeypatch):
    study = studies.FeatureLinearity(removals=("layer",), sizes=(8,))
    monkeypatch.setattr(
        "lmjax.studies.runner._made_by", lambda engine: {"versions": {"jax": "1"}, "device": "cpu"}
    )
    networks = {"a": linear_network.network()}
    studies.run(study, fakes.Source(2), models=networks, output=tmp_path)
    page = studies.report([tmp_path], tmp_path / "report.html").read_text()
    assert "cpu, engine dense, jax 1" in page


def test_segments_are_made_by_the_segmenter_of_the_name():
    shown = batch(1)
    for name, expected in (
        ("grid", lmjax.segments.grid(shown.images("a")[0], size=8)),
        ("slic", lmjax.segments.slic(shown.images("a")[0], n_segments=9)),
    ):
        found = shown.segments("a", name, size=8, n_segments=9)
        np.testing.assert_array_equal(found[0], expected)


def test_random_orders_share_no_bits_with_limes_coalitions():
    """With bits in common, all segments that are kept come before those that are not."""
    (key,) = images.keys_of_images(jax.random.key(0), [0])[:, 0]
    order = images.random_order(256, key)
    for draw in range(3):
        keep = random_keep(64, 4, key=jax.random.fold_in(key, draw), first_all_visible=False)
        early = keep.ravel()[order][:128].mean()
        assert 0.3 < early < 0.7
