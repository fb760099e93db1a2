"""Families of masks against plain loops."""

import numpy as np
import pytest

import lmjax
from lmjax.masking import Replace
from lmjax.perturbation import Coalitions, Predictor, evaluate
from lmjax.perturbation import mask_families as families
from tests.small_classifier import small_classifier

RNG = np.random.default_rng(0)
SHAPE = (6, 5)
RANKS = RNG.permutation(30).reshape(SHAPE) // 2
RANGES = np.array([[0, 15], [3, 15], [0, 4], [2, 9]])
CORNERS = np.array([[0, 0], [4, 3], [-1, 2], [9, 9]])
KEEP = RNG.random((7, 15)) < 0.5


def plain_windows(keep_inside):
    masks = np.full((4, *SHAPE), not keep_inside)
    for mask, (top, left) in zip(masks, CORNERS):
        for row in range(max(top, 0), min(top + 3, 6)):
            for column in range(max(left, 0), min(left + 2, 5)):
                mask[row, column] = keep_inside
    return masks


FAMILIES = {
    "masks": (families.Masks(KEEP[:, RANKS]), KEEP[:, RANKS]),
    "soft": (families.SoftMasks(KEEP[:, RANKS] * 0.5), KEEP[:, RANKS] * 0.5),
    "coalitions": (Coalitions(RANKS, KEEP), KEEP[:, RANKS]),
    "hidden windows": (families.Windows(SHAPE, CORNERS, (3, 2)), plain_windows(False)),
    "shown windows": (
        families.Windows(SHAPE, CORNERS, (3, 2), keep_inside=True),
        plain_windows(True),
    ),
    "ranks": (
        families.RankRanges(RANKS, RANGES),
        np.array([np.isin(RANKS, range(low, high)) for low, high in RANGES]),
    ),
}


@pytest.fixture(params=FAMILIES)
def case(request):
    return FAMILIES[request.param]


def test_masks_are_those_of_a_plain_loop(case):
    family, expected = case
    assert len(family) == len(expected)
    np.testing.assert_array_equal(family.masks(), expected)
    np.testing.assert_array_equal(family.masks(slice(1, 3)), expected[1:3])


def test_shown_misses_no_visible_pixel(case):
    family, expected = case
    assert family.shown().shape == SHAPE
    assert (family.shown() | ~(expected > 0).any(axis=0)).all()


@pytest.mark.parametrize("pixels", [1, 100, 2**24])
def test_weighted_sum_is_that_of_all_masks_at_once(case, pixels, monkeypatch):
    family, expected = case
    monkeypatch.setattr(families, "_PIXELS", pixels)
    weights = RNG.random((len(family), 2)).astype(np.float32)
    np.testing.assert_allclose(
        families.weighted_sum(family, weights), np.tensordot(weights.T, expected, 1), rtol=1e-5
    )
    np.testing.assert_allclose(
        families.weighted_sum(family, weights[:, 0]), np.tensordot(weights.T, expected, 1)[0], 1e-5
    )


def test_evaluate_takes_families(case):
    family, expected = case
    image = RNG.random((*SHAPE, 3)).astype(np.float32)
    predictor = Predictor(small_classifier((*SHAPE, 3)), Replace("black"))
    masks = families.SoftMasks(expected) if family.soft else expected
    np.testing.assert_allclose(
        evaluate(predictor, image, family, batch_size=2), evaluate(predictor, image, masks), 1e-5
    )


def test_soft_masks_need_a_removal_that_blends():
    predictor = Predictor(small_classifier((*SHAPE, 3)), lmjax.LayerMasking())
    with pytest.raises(ValueError, match="takes only 0 and 1"):
        evaluate(
            predictor, np.zeros((*SHAPE, 3), np.float32), families.SoftMasks(np.ones((1, 6, 5)))
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: families.Masks(np.full((2, 3, 3), 0.5)), "only 0"),
        (lambda: families.SoftMasks(np.full((2, 3, 3), 1.5)), "from 0 to 1"),
        (lambda: families.Windows(SHAPE, [[0.0, 1.0]], (1, 1)), "corners must be ints"),
        (lambda: families.Windows(SHAPE, [[0, 1]], (0, 1)), "size must be"),
        (lambda: families.RankRanges(RANKS / 2, RANGES), "ranks must be ints"),
        (lambda: families.RankRanges(RANKS, [1, 2]), "ranges must be ints"),
        (lambda: families.weighted_sum(FAMILIES["ranks"][0], np.ones(3)), "weights must be"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
