"""Families of masks against plain loops."""

import jax
import numpy as np
import pytest
from skimage.transform import resize

import lmjax
from lmjax.evaluation import Predictor, evaluate
from lmjax.masks import Coalitions, families
from lmjax.removals import Replace
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
SHAPE = (6, 5)
RANKS = RNG.permutation(30).reshape(SHAPE) // 2
RANGES = np.array([[0, 15], [3, 15], [0, 4], [2, 9]])
CORNERS = np.array([[0, 0], [4, 3], [-1, 2], [9, 9]])
KEEP = RNG.random((7, 15)) < 0.5
DEGREES = RNG.random((3, 15))
CELLS = RNG.random((6, 2, 3)) < 0.5
SHIFTS = np.array([[0, 0], [2, 1], [1, 1], [0, 1], [2, 0], [1, 0]])


def plain_windows(keep_inside):
    masks = np.full((4, *SHAPE), not keep_inside)
    for mask, (top, left) in zip(masks, CORNERS):
        for row in range(max(top, 0), min(top + 3, 6)):
            for column in range(max(left, 0), min(left + 2, 5)):
                mask[row, column] = keep_inside
    return masks


def plain_grids(soft):
    """2 x 3 cells enlarged to 3 * 3 x 4 * 2 pixels, and 6 x 5 pixels cut out of them."""
    masks = np.zeros((len(CELLS), *SHAPE))
    for mask, cells, (down, right) in zip(masks, CELLS, SHIFTS):
        if soft:  # as the authors of RISE enlarge them, but for the mode at the border
            enlarged = resize(cells.astype(float), (9, 8), order=1, mode="edge")
            mask[:] = enlarged[down : down + 6, right : right + 5]
            continue
        for row, column in np.ndindex(SHAPE):
            mask[row, column] = cells[
                int((row + down + 0.5) / 9 * 2), int((column + right + 0.5) / 8 * 3)
            ]
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
    "soft coalitions": (families.SoftCoalitions(RANKS, DEGREES), DEGREES[:, RANKS]),
    "grids": (families.Grids(SHAPE, CELLS, SHIFTS), plain_grids(False)),
    "soft grids": (families.Grids(SHAPE, CELLS, SHIFTS, soft=True), plain_grids(True)),
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
    np.testing.assert_allclose(family.masks(), expected, atol=1e-6)
    np.testing.assert_allclose(family.masks(slice(1, 3)), expected[1:3], atol=1e-6)
    assert (family.masks().dtype == bool) != family.soft


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


@pytest.mark.parametrize("pixels", [1, 100, 2**24])
def test_hidden_sum_is_that_of_all_masks_at_once(case, pixels, monkeypatch):
    family, expected = case
    monkeypatch.setattr(families, "_PIXELS", pixels)
    heatmap = RNG.normal(size=SHAPE)
    np.testing.assert_allclose(
        families.hidden_sum(family, heatmap), ((1 - expected) * heatmap).sum((1, 2)), atol=1e-5
    )


def test_evaluate_takes_families(case):
    family, expected = case
    image = RNG.random((*SHAPE, 3)).astype(np.float32)
    predictor = Predictor(small_classifier((*SHAPE, 3)), Replace("black"))
    np.testing.assert_allclose(
        evaluate(predictor, image, family, batch_size=2), evaluate(predictor, image, expected), 1e-5
    )


def test_soft_masks_need_a_removal_that_blends():
    predictor = Predictor(small_classifier((*SHAPE, 3)), lmjax.LayerMasking())
    with pytest.raises(ValueError, match="takes only 0 and 1"):
        evaluate(
            predictor, np.zeros((*SHAPE, 3), np.float32), families.SoftMasks(np.ones((1, 6, 5)))
        )


def test_soft_masks_as_an_array():
    """They blend where the predictor says that it does, of one image and of several."""
    classifier, image = small_classifier((*SHAPE, 3)), RNG.random((*SHAPE, 3)).astype(np.float32)
    soft = RNG.random((3, *SHAPE)).astype(np.float32)
    predictor = Predictor(classifier, Replace("black"))
    expected = predictor(image, soft)
    np.testing.assert_allclose(evaluate(predictor, image, soft), expected, atol=1e-5)
    found = lmjax.Evaluator(predictor).images(image[None], soft, image_of=np.zeros(3, int))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(predictor.share_shown(soft), soft.mean((1, 2)), atol=1e-6)
    for refusing in (Predictor(classifier, lmjax.LayerMasking()), lambda image, masks: expected):
        with pytest.raises(ValueError, match=r"masks must hold only 0 \(hidden\) and 1 "):
            evaluate(refusing, image, soft)


@pytest.mark.parametrize("soft", [False, True])
def test_random_grids_show_every_pixel_as_often(soft):
    masks = families.random_grids(
        (13, 9), 4000, key=jax.random.key(0), grid=(4, 3), keep_probability=0.3, soft=soft
    )
    assert masks.cells.shape == (4000, 4, 3)
    assert (masks.shifts.min(axis=0) == 0).all()
    assert (masks.shifts.max(axis=0) == (3, 2)).all()
    np.testing.assert_allclose(families.weighted_sum(masks, np.ones(4000)) / 4000, 0.3, atol=0.04)


def test_same_key_same_grids_and_another_key_others():
    one, same, other = (
        families.random_grids(SHAPE, 50, key=jax.random.key(seed), grid=3) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.masks(), same.masks())
    assert (one.cells != other.cells).any()
    assert (one.shifts != other.shifts).any()


@pytest.mark.parametrize(("first", "last"), [(0, 7), (5, 64), (60, 70)])
def test_a_stretch_of_grids_is_that_of_the_whole_row(first, last):
    whole = random_grids(100, grid=(2, 3))
    found = random_grids(last - first, grid=(2, 3), first=first)
    np.testing.assert_array_equal(found.cells, whole.cells[first:last])
    np.testing.assert_array_equal(found.shifts, whole.shifts[first:last])


def random_grids(num_samples=9, **options):
    return families.random_grids(SHAPE, num_samples, key=jax.random.key(0), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: families.Masks(np.full((2, 3, 3), 0.5)), "only 0"),
        (lambda: families.SoftMasks(np.full((2, 3, 3), 1.5)), "from 0 to 1"),
        (lambda: families.Windows(SHAPE, [[0.0, 1.0]], (1, 1)), "corners must be ints"),
        (
            lambda: families.Windows(SHAPE, [[0, 1]], (0, 1)),
            r"size must be .*\(height and width\); got \(0, 1\)",
        ),
        (lambda: families.RankRanges(RANKS / 2, RANGES), "ranks must be ints"),
        (lambda: families.RankRanges(RANKS, [1, 2]), "ranges must be ints"),
        (lambda: families.SoftCoalitions(RANKS, DEGREES[:, 1:]), r"degrees must be \[N, 15\]"),
        (lambda: families.SoftCoalitions(RANKS, DEGREES + 1), "degrees must hold values from 0"),
        (lambda: families.SoftCoalitions(RANKS, DEGREES * np.nan), "degrees must hold values"),
        (lambda: families.SoftCoalitions(RANKS + 1, DEGREES), "missing 0"),
        (lambda: families.Grids(SHAPE, CELLS * 1.0, SHIFTS), "cells must be bool"),
        (
            lambda: families.Grids(SHAPE, np.ones((6, 7, 2), bool), SHIFTS),
            "cells must be at most 6 x 5, .* got 7 x 2",
        ),
        (lambda: families.Grids(SHAPE, CELLS, SHIFTS + 1), r"shifts must be .* below \(3, 2\)"),
        (lambda: families.Grids(SHAPE, CELLS, SHIFTS[1:]), r"shifts must be ints \[6, 2\]"),
        (lambda: random_grids(grid=7), "grid must be .* from 1 to 6 and 5 .* got 7"),
        (lambda: random_grids(grid=0), "grid must be .* got 0"),
        (lambda: random_grids(num_samples=0), "num_samples must be a whole number, 1 or more"),
        (lambda: random_grids(grid=2, first=-1), "first must be a whole number, 0 or more"),
        (
            lambda: random_grids(grid=2, keep_probability=1),
            "keep_probability must be a finite number above 0",
        ),
        (lambda: families.weighted_sum(FAMILIES["ranks"][0], np.ones(3)), "weights must be"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
