"""`evaluate(engine=...)`: the same logits, from full-size activations or visible positions."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.models import Classifier, checkpoints, registry
from lmjax.models.resnet import BasicBlock, Bottleneck, ResNet
from lmjax.perturbation import Coalitions, random_keep, segments
from lmjax.perturbation.packing import Counts, Room, fill, pack, rooms_for
from tests import compilations

BLOCKS = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "grouped": partial(Bottleneck, groups=2, width_per_group=32),
}
SIZE = (44, 37)
module = importlib.import_module("lmjax.perturbation.evaluate")


def random_predictor(kind, masking):
    module = ResNet((1, 1), BLOCKS[kind], num_classes=5, width=8)
    rng = np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1]) + 0.1)

    variables = jax.tree.map(draw, checkpoints.abstract_variables(module))
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    preprocessing = registry.network("resnet18_digits").preprocessing
    return lmjax.Predictor(Classifier(variables, module, preprocessing), masking)


def random_masks(count, seed=0):
    """Blocks of 5 pixels; everything, nothing, one pixel at the border."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 9, 8)) < rng.random((count, 1, 1))
    masks = np.kron(coarse, np.ones((5, 5), bool))[:, : SIZE[0], : SIZE[1]]
    masks[3], masks[count // 2] = True, False
    masks[-1] = False
    masks[-1, 0, 17] = True
    return masks


IMAGE = np.random.default_rng(0).random((*SIZE, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "masking"),
    [
        *((kind, lmjax.LayerMasking()) for kind in BLOCKS),
        *((kind, lmjax.LayerMasking(padding="none")) for kind in ("basic", "bottleneck")),
        *((kind, lmjax.PartialConvolution()) for kind in ("basic", "bottleneck")),
        *(("bottleneck", lmjax.LayerMasking(depth=depth)) for depth in (0, 1)),
    ],
    ids=str,
)
def test_engines_agree(kind, masking):
    predictor, masks = random_predictor(kind, masking), random_masks(21)
    expected = lmjax.evaluate(predictor, IMAGE, masks, batch_size=2, engine="dense")
    actual = lmjax.evaluate(predictor, IMAGE, masks, batch_size=2, engine="visible")
    assert np.ptp(expected, axis=0).min() > 0.01 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf, 1e30])
def test_what_lies_under_every_mask_changes_no_bit(hidden):
    predictor, masks = random_predictor("bottleneck", lmjax.LayerMasking()), random_masks(8)
    masks &= np.arange(SIZE[1]) < 20
    poisoned = np.where(masks.any(axis=0)[..., None], IMAGE, np.float32(hidden))
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine="visible")
    actual = lmjax.evaluate(predictor, poisoned, masks, engine="visible")
    np.testing.assert_array_equal(actual, expected)


def test_few_compilations_over_2000_random_coalitions():
    predictor, labels = (
        random_predictor("bottleneck", lmjax.LayerMasking()),
        segments.grid(IMAGE, size=8),
    )
    keeps = [
        random_keep(
            int(labels.max()) + 1,
            400,
            key=jax.random.key(seed),
            keep_probability=probability,
            first_all_visible=seed < 2,
        )
        for seed, probability in enumerate((0.5, 0.25, 0.1, 0.4, 0.02))
    ]
    with compilations.counted() as compiled:
        for keep in keeps:
            lmjax.evaluate(predictor, IMAGE, Coalitions(labels, keep), engine="visible")
    programs = [seconds for seconds in compiled if seconds > 0.3]  # not copies and casts
    assert 1 <= len(programs) <= 6


def test_auto_follows_what_is_visible():
    predictor = random_predictor("bottleneck", lmjax.LayerMasking())
    everything = np.ones((6, *SIZE), bool)
    little = everything & (np.arange(SIZE[1]) < 4)
    for masks, engine in ((everything, "dense"), (little, "visible")):
        expected = lmjax.evaluate(predictor, IMAGE, masks, engine=engine)
        with compilations.counted() as compiled:
            logits = lmjax.evaluate(predictor, IMAGE, masks, engine="auto")
        np.testing.assert_array_equal(logits, expected)
        assert len([seconds for seconds in compiled if seconds > 0.5]) == 0


def test_auto_is_dense_on_devices_whose_costs_are_unknown(monkeypatch):
    predictor = random_predictor("bottleneck", lmjax.LayerMasking())
    job = module._prepare(predictor, IMAGE, random_masks(6) & (np.arange(SIZE[1]) < 4), None)
    assert len(module._choose(job, predictor, "auto").visible) == 6
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert len(module._choose(job, predictor, "auto").dense) == 6


def test_other_predictors_are_dense():
    predictor = random_predictor("basic", lmjax.Replace("grey"))
    masks = random_masks(5)
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine="dense")
    logits = lmjax.evaluate(predictor, IMAGE, masks, engine="auto")
    np.testing.assert_array_equal(logits, expected)
    with pytest.raises(ValueError, match="engine 'visible' needs an lmjax"):
        lmjax.evaluate(predictor, IMAGE, masks, engine="visible")
    with pytest.raises(ValueError, match="must be 'dense', 'visible' or 'auto', got 'rows'"):
        lmjax.evaluate(predictor, IMAGE, masks, engine="rows")


# -- packing


def random_counts(variants, seed=0):
    rng = np.random.default_rng(seed)
    full = np.array([100, 25, 9])
    rows = (rng.random((variants, 1)) * rng.random((variants, 3)) * full).astype(np.int64)
    return Counts(rows, full, np.array([10.0, 80.0, 100.0]))


@pytest.mark.parametrize("variants", [1, 2, 50, 1000])
@pytest.mark.parametrize("work_per_batch", [0.1, 1, 8])
def test_no_batch_overflows_and_none_is_left_out(variants, work_per_batch):
    counts = random_counts(variants)
    packing = pack(counts, work_per_batch=work_per_batch, known=[])
    assert packing.starts[0] == 0
    assert packing.starts[-1] == variants
    for start, end in zip(packing.starts, packing.starts[1:]):
        assert 1 <= end - start <= packing.room.variants
        assert (counts.rows[start:end].sum(axis=0) <= packing.room.rows).all()


def test_batches_are_nearly_full():
    counts = random_counts(1000)
    packing = pack(counts, work_per_batch=8, known=[])
    assert counts.work(counts.rows).sum() > 0.85 * packing.work


def test_rooms_are_used_again_unless_they_waste_more_than_a_compilation():
    known = []
    first = pack(random_counts(1000), work_per_batch=8, known=known)
    assert pack(random_counts(900, seed=1), work_per_batch=8, known=known).room == first.room
    tiny = random_counts(10_000, seed=2)
    tiny = tiny._replace(rows=tiny.rows // 50)
    assert pack(tiny, work_per_batch=8, known=known).room != first.room
    assert len(known) == 2


def test_a_room_too_small_for_one_variant_does_not_fit():
    counts = random_counts(10)
    assert fill(Room(5, (1, 1, 1)), counts) is None
    assert fill(rooms_for(counts, 0.01)[1], counts) is not None
