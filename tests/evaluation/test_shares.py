"""The share of an image that variants really show to a network."""

import dataclasses

import jax
import numpy as np
import pytest

import lmjax
from lmjax.evaluation.shares import Observed, Shares
from lmjax.masking.patches import whole_patches
from lmjax.masks.families import SoftCoalitions
from tests.support.compilations import quick_jit
from tests.support.small_classifier import small_classifier
from tests.support.small_transformer import small_transformer

IMAGE = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
CUT = np.arange(64 * 64).reshape(64, 64) // 64 * 9 // 64  # stripes of about 7 rows
KEEP = np.random.default_rng(1).random((50, 9)) < 0.5
MASKS = KEEP[:, CUT]


@pytest.mark.parametrize("patch_size", [16, 32])
def test_token_dropping_shows_whole_patches_alone(patch_size):
    predictor = lmjax.Predictor(small_transformer(patch_size))
    assert predictor.patch_size == patch_size
    shown = predictor.share_shown(MASKS)
    np.testing.assert_allclose(shown, whole_patches(MASKS, patch_size).mean(axis=(1, 2)))
    assert shown.mean() < 0.9 * MASKS.mean()
    # which is what the network answers to, bit for bit
    run = quick_jit(lambda predictor, masks: predictor(IMAGE, masks))
    of_whole_patches = run(predictor, whole_patches(MASKS[:8], patch_size))
    np.testing.assert_array_equal(run(predictor, MASKS[:8]), of_whole_patches)


@pytest.mark.parametrize("patch_size", [16, 32])
def test_segments_of_whole_patches_are_shown_as_masks_have_them(patch_size):
    image = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    slic = lmjax.segments.slic(image, n_segments=12)
    segments = lmjax.segments.snap(slic, patch_size)
    keep = np.random.default_rng(1).random((200, segments.max() + 1)) < 0.5
    coalitions = lmjax.Coalitions(segments, keep)
    predictor = lmjax.Predictor(small_transformer(patch_size))
    np.testing.assert_array_equal(
        predictor.share_shown(coalitions), np.asarray(coalitions.masks()).mean(axis=(1, 2))
    )


@pytest.mark.parametrize("removal", ["grey", "ring", lmjax.removals.LayerMasking()])
def test_other_removals_show_what_masks_show(removal):
    predictor = lmjax.Predictor(small_transformer(), removal)
    if not isinstance(removal, str):
        predictor = lmjax.Predictor(small_classifier((64, 64, 3)), removal)
    assert predictor.patch_size is None
    np.testing.assert_allclose(predictor.share_shown(MASKS), MASKS.mean(axis=(1, 2)), rtol=1e-6)


def test_soft_masks_count_by_their_values():
    degrees = np.random.default_rng(0).random((5, 9)).astype(np.float32)
    predictor = lmjax.Predictor(small_transformer(), "grey")
    expected = degrees[:, CUT].mean(axis=(1, 2))
    np.testing.assert_allclose(
        predictor.share_shown(SoftCoalitions(CUT, degrees)), expected, rtol=1e-4
    )
    np.testing.assert_allclose(predictor.share_shown(degrees[:, CUT]), expected, rtol=1e-4)


def test_a_removal_in_another_shows_what_that_shows():
    transformer = small_transformer()
    calibrated = lmjax.removals.Calibrated(lmjax.TokenDropping(), np.eye(4), np.zeros(4))
    assert lmjax.Predictor(transformer, calibrated).patch_size == 16


def test_an_observed_evaluation_gives_the_shares_of_its_variants():
    observed = Observed(lmjax.Predictor(small_transformer(32)), batch_size=16)
    plain = lmjax.Evaluator(observed.predictor, batch_size=16)
    found = observed(IMAGE, MASKS)
    np.testing.assert_array_equal(found, plain(IMAGE, MASKS))
    dataclasses.replace(observed, engine="dense")(IMAGE, lmjax.Coalitions(CUT, KEEP))
    shares = observed.shares(100)
    assert shares is not None
    assert shares.visible == pytest.approx(MASKS.mean())
    assert shares.shown == pytest.approx(whole_patches(MASKS, 32).mean())
    assert observed.shares(101) is None  # one was not among them


def test_an_attribution_by_gradients_has_no_shares():
    observed = Observed(lmjax.Predictor(small_transformer(), "grey"))
    found = lmjax.attribution.smoothgrad(observed, IMAGE, key=jax.random.key(0), num_samples=4)
    assert observed.shares(found.num_variants) is None


@pytest.mark.parametrize(
    ("visible", "shown", "note"),
    [
        (0.5, 0.5, ""),
        (0.5, 0.4501, ""),
        (0.5, 0.4499, "shows 45% where masks show 50%"),
        (0.5, 0.24, "shows 24% where masks show 50%"),
        (0.1, 0.08, "shows 8% where masks show 10%"),
        (0.0, 0.0, ""),
    ],
)
def test_shares_that_differ_by_more_than_a_tenth_are_noted(visible, shown, note):
    assert Shares(visible, shown).note() == note
