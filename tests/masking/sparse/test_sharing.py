"""Shared rows against full-size activations, and owners against a loop."""

import numpy as np
import pytest

import lmjax
from lmjax.evaluation import jobs, programs
from lmjax.evaluation.plan import Cut, shared_plan
from lmjax.masking.sparse import sharing
from lmjax.masking.windows import POINT, Window
from lmjax.removals import Calibrated
from tests.evaluation.test_engines import IMAGE, random_masks, random_predictor


def in_two_parts(predictor, masks, *, seam, on_visible):
    """Logits by a shared prefix up to a seam, and the rest in batches behind it."""
    job = jobs.job_of_image(predictor, IMAGE, masks, jobs.Options(batch_size=2))
    layout = programs.record(job, stop=seam, sharing=True)
    rows = programs.count_shared_rows(job, layout, np.arange(len(masks)), len(masks))
    plan = shared_plan(job, Cut(0.0, layout, tuple(rows.tolist()), on_visible))
    logits = {}
    for call in plan.calls(job):
        logits |= {n: row for n, row in zip(call.variants.tolist(), np.asarray(call())) if n >= 0}
    return np.stack([logits[n] for n in range(len(masks))])


NETWORKS = [
    ("basic", lmjax.LayerMasking()),
    ("bottleneck", lmjax.LayerMasking()),
    ("grouped", lmjax.LayerMasking(padding="none")),
    ("bottleneck", lmjax.PartialConvolution()),
    ("basic", lmjax.LayerMasking(depth=1)),
    ("concatenated", lmjax.LayerMasking()),
]
# Each network early and late, and in both ways behind the cut; the first one in all four.
CUTS = [
    pytest.param(*network, seam, on_visible, id=f"{network}-{seam}-{on_visible}")
    for network in NETWORKS
    for seam, late in ((1, False), (2 if network[1].depth == 1 else 3, True))
    for on_visible in (False, True)
    if network is NETWORKS[0] or on_visible != late
]


@pytest.mark.parametrize(("kind", "masking", "seam", "on_visible"), CUTS)
def test_same_logits_wherever_the_network_is_cut(kind, masking, seam, on_visible):
    predictor, masks = random_predictor(kind, masking), random_masks(9)
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine="dense")
    actual = in_two_parts(predictor, masks, seam=seam, on_visible=on_visible)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("engine", ["visible", "shared"])
def test_removals_read_the_masks_of_their_variants(engine):
    """A calibrated removal leaves a variant alone that shows everything."""
    layers, matrix, bias = lmjax.LayerMasking(), 0.5 * np.eye(5), np.full(5, 3.0)
    predictor = random_predictor("basic", Calibrated(layers, matrix, bias))
    masks = random_masks(9)  # one shows everything
    plain = lmjax.evaluate(random_predictor("basic", layers), IMAGE, masks, engine=engine)
    found = lmjax.evaluate(predictor, IMAGE, masks, engine=engine)
    whole = masks.all(axis=(1, 2))[:, None]
    expected = np.where(whole, plain, 0.5 * plain + 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


SOLID = [
    Window.of((1, 5), (1, 2), ((0, 0), (3, 1))),
    Window.of((4, 2), (2, 1), ((2, 0), (0, 1))),
]
WINDOWS = [
    *SOLID,
    Window.of(1),
    Window.of(3, 2, 1),
    Window.of(3, 1, 2, 2),
    Window.of((3, 2), (1, 3), ((2, 1), (0, 2)), (1, 3)),
]


def read_at(window, row, column):
    """The positions of a padded image that one window reads."""
    starts = row * window.rows.stride, column * window.columns.stride
    return [
        slice(start, start + slide.dilation * (slide.size - 1) + 1, slide.dilation)
        for start, slide in zip(starts, window)
    ]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_owners_are_the_first_variants_that_read_the_same(window):
    masks = np.random.default_rng(0).random((12, 7, 6)) < 0.8
    masks[6:] = masks[:6]
    masks[6:, 3, 3] ^= True
    numbers = np.arange(42).reshape(1, 7, 6)
    hashed = sharing.hashed_windows(np.where(masks, numbers, -1), window)
    everywhere = np.ones(hashed.shape, bool)
    owner = sharing.first_alike(everywhere, [hashed])
    assert hashed.shape[1:] == window.outputs((7, 6))
    padded = np.pad(masks, ((0, 0), *window.pads))
    for row, column in np.ndindex(*hashed.shape[1:]):
        seen = padded[:, *read_at(window, row, column)]
        expected = [next(m for m in range(12) if (seen[m] == each).all()) for each in seen]
        assert owner[:, row, column].tolist() == expected


@pytest.mark.parametrize("window", [*SOLID, Window.of(7, 2, 3), Window.of(4)], ids=str)
def test_hashes_of_pixels_are_sums_over_windows(window):
    masks = np.random.default_rng(0).random((3, 9, 8)) < 0.5
    found = sharing.hashed_pixels(masks, window)
    alone = sharing.hashed_pixels(np.eye(72, dtype=bool).reshape(72, 9, 8), POINT)
    values = np.where(masks, alone.sum(axis=0, dtype=np.uint64), np.uint64(0))
    padded = np.pad(values, ((0, 0), *window.pads))
    assert found.shape[1:] == window.outputs((9, 8))
    for row, column in np.ndindex(*found.shape[1:]):
        seen = padded[:, *read_at(window, row, column)]
        np.testing.assert_array_equal(found[:, row, column], seen.sum(axis=(1, 2), dtype=np.uint64))


@pytest.mark.parametrize("together", [1, 50, 10**6])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_only_variants_on_the_mask_are_alike(count, together, monkeypatch):
    monkeypatch.setattr(sharing, "_TOGETHER", together)
    rng = np.random.default_rng(0)
    mask = rng.random((count, 5, 4)) < 0.6
    first, second = rng.integers(2, size=(2, count, 5, 4)).astype(np.uint64)
    image_of = (np.arange(count) // 5).astype(np.uint64)[:, None, None]
    owner = sharing.first_alike(mask, [first, second, image_of])
    for n, row, column in np.ndindex(*mask.shape):
        alike = [
            m
            for m in range(n + 1)
            if mask[m, row, column]
            and first[m, row, column] == first[n, row, column]
            and second[m, row, column] == second[n, row, column]
            and image_of[m] == image_of[n]
        ]
        assert owner[n, row, column] == (alike[0] if mask[n, row, column] else -1)
