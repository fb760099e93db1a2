import itertools

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from lmjax.masks import segments
from lmjax.metrics import (
    alignment,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_iou,
)

RNG = np.random.default_rng(0)
H, W = 12, 10
SEGMENTS = segments.grid(np.zeros((H, W, 1), np.float32), size=3)  # 4 x 4, a column 1 pixel wide
S = 16
HEATMAP = RNG.normal(size=(H, W))
SCORES = RNG.normal(size=S)
OBJECT = np.zeros((H, W), bool)
OBJECT[2:8, 1:5] = True


# -- alignment


def test_alignment_is_the_published_formula():
    mask = OBJECT.astype(float)
    held = np.array([np.sum((i == SEGMENTS) * (mask - mask.mean())) for i in range(S)])
    expected = (SCORES * held).sum() / (np.linalg.norm(SCORES) * np.linalg.norm(held))
    assert alignment(SCORES, SEGMENTS, OBJECT) == pytest.approx(expected)
    assert alignment(held, SEGMENTS, OBJECT) == pytest.approx(1)
    assert alignment(-2 * held, SEGMENTS, OBJECT) == pytest.approx(-1)
    assert alignment(np.zeros(S), SEGMENTS, OBJECT) == 0
    strips = np.repeat(np.arange(3), 4)[None] + np.zeros((12, 1), int)
    for rows in range(1, 12):  # each strip has the same share of the object
        assert np.isnan(alignment([1, 0, 0], strips, np.arange(12)[:, None] < rows + 0 * strips))
    with pytest.raises(ValueError, match="segments must be two or more"):
        alignment([0.5], np.zeros((H, W), int), OBJECT)


# -- intersection over union


@pytest.mark.parametrize("k", [1, 5, 20, H * W])
def test_iou_of_the_highest_pixels(k):
    top = np.isin(np.arange(H * W), np.argsort(-HEATMAP.ravel())[:k])
    expected = jaccard_score(OBJECT.ravel(), top)
    assert top_k_iou(HEATMAP, OBJECT, k=k) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 4, S])
def test_iou_of_the_highest_segments(k):
    top = np.isin(SEGMENTS, np.argsort(-SCORES)[:k])
    expected = jaccard_score(OBJECT.ravel(), top.ravel())
    for heatmap in (SCORES, SCORES[SEGMENTS]):
        assert top_k_iou(heatmap, OBJECT, segments=SEGMENTS, k=k) == pytest.approx(expected)


def test_iou_takes_as_many_pixels_as_the_object_has():
    assert top_k_iou(HEATMAP, OBJECT) == top_k_iou(HEATMAP, OBJECT, k=24)
    assert top_k_iou(OBJECT, OBJECT) == 1
    assert top_k_iou(~OBJECT, OBJECT) == 0
    # segments of 9 pixels: two are too few for 24, three are enough
    scores = np.zeros(S)
    scores[[0, 5, 9]] = 3, 2, 1
    found = top_k_iou(scores, OBJECT, segments=SEGMENTS)
    assert found == top_k_iou(scores, OBJECT, segments=SEGMENTS, k=3)
    eighteen = np.isin(SEGMENTS, [0, 5])
    assert top_k_iou(scores, eighteen, segments=SEGMENTS) == 1
    assert top_k_iou(scores, np.ones((H, W)), segments=SEGMENTS) == 1


# -- pointing game


def test_pointing_game_measures_to_the_nearest_object_pixel():
    for row, column in np.ndindex(H, W):
        heatmap = np.zeros((H, W))
        heatmap[row, column] = 1
        distance = min(
            np.hypot(row - r, column - c) for r, c in itertools.product(range(2, 8), range(1, 5))
        )
        for tolerance in (0, 1, 2.5, 5, 15):
            expected = float(distance <= tolerance)
            assert pointing_game(heatmap, OBJECT, tolerance=tolerance) == expected


def test_the_tolerance_is_15_pixels():
    object_mask = np.zeros((40, 40), bool)
    object_mask[20, 20] = True
    for offset, expected in ((15, 1), (16, 0)):
        heatmap = np.zeros((40, 40))
        heatmap[20 - offset, 20] = 1
        assert pointing_game(heatmap, object_mask) == expected


def test_pointing_game_of_tied_pixels_is_the_mean_over_them():
    heatmap = np.where(SEGMENTS == 0, 1.0, 0.0)
    assert pointing_game(heatmap, OBJECT, tolerance=0) == pytest.approx(2 / 9)
    assert pointing_game(np.ones((H, W)), OBJECT, tolerance=0) == pytest.approx(OBJECT.mean())


# -- relevance mass


def test_relevance_mass_is_counted():
    inside = sum(max(value, 0) for value in HEATMAP[OBJECT])
    total = sum(max(value, 0) for value in HEATMAP.ravel())
    assert relevance_mass_accuracy(HEATMAP, OBJECT) == pytest.approx(inside / total)
    assert relevance_mass_accuracy(OBJECT, OBJECT) == 1
    assert relevance_mass_accuracy(np.ones((H, W)), OBJECT) == pytest.approx(OBJECT.mean())
    assert np.isnan(relevance_mass_accuracy(-np.ones((H, W)), OBJECT))


# -- relevance rank


def test_counts_the_object_among_the_highest_pixels():
    heatmap = np.arange(12.0).reshape(3, 4)
    object_mask = np.zeros((3, 4), bool)
    object_mask[2, 1:] = True  # the three highest
    assert relevance_rank_accuracy(heatmap, object_mask) == 1
    object_mask[2, 1], object_mask[0, 0] = False, True  # the two highest and the lowest
    assert relevance_rank_accuracy(heatmap, object_mask) == pytest.approx(2 / 3)


def test_ties_count_as_the_mean_over_all_ways_to_break_them():
    rng = np.random.default_rng(0)
    heatmap = rng.integers(0, 4, (6, 7)).astype(float)
    object_mask = rng.random((6, 7)) < 0.4
    size = object_mask.sum()

    def broken_at_random():
        order = np.lexsort((rng.random(heatmap.size), heatmap.ravel()))
        return object_mask.ravel()[order[-size:]].mean()

    sampled = np.mean([broken_at_random() for _ in range(4000)])
    assert relevance_rank_accuracy(heatmap, object_mask) == pytest.approx(sampled, abs=0.01)


def test_a_constant_heatmap_finds_the_share_of_the_image():
    object_mask = np.zeros((4, 5), bool)
    object_mask[1, :3] = True
    assert relevance_rank_accuracy(np.ones((4, 5)), object_mask) == pytest.approx(3 / 20)


# -- all


def test_an_attribution_of_the_object_itself_is_best_in_all():
    held = np.bincount(SEGMENTS.ravel(), (OBJECT - OBJECT.mean()).ravel())
    heatmap = OBJECT.astype(float)
    assert alignment(held, SEGMENTS, OBJECT) == pytest.approx(1)
    assert pointing_game(heatmap, OBJECT, tolerance=0) == 1
    for metric in (top_k_iou, relevance_mass_accuracy, relevance_rank_accuracy):
        assert metric(heatmap, OBJECT) == 1


@pytest.mark.parametrize(
    "metric", [pointing_game, relevance_mass_accuracy, relevance_rank_accuracy]
)
@pytest.mark.parametrize(
    ("heatmap", "object_mask", "message"),
    [
        (np.ones((3, 3)), np.ones((3, 4), bool), "both be"),
        (np.ones((3, 3)), np.zeros((3, 3), bool), "no object pixel"),
        (np.full((3, 3), np.nan), np.ones((3, 3), bool), "NaN"),
    ],
)
def test_bad_input(metric, heatmap, object_mask, message):
    with pytest.raises(ValueError, match=message):
        metric(heatmap, object_mask)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alignment(SCORES[:4], SEGMENTS, OBJECT), r"or \[16\]"),
        (lambda: alignment(HEATMAP, SEGMENTS, OBJECT), r"scores must be \[16\]"),
        (lambda: alignment(SCORES, SEGMENTS, OBJECT.T), r"must be \(10, 12\)"),
        (lambda: alignment(SCORES, SEGMENTS, OBJECT | True), "every pixel as object"),
        (lambda: alignment(SCORES, SEGMENTS, OBJECT & False), "no object pixel"),
        (lambda: alignment(SCORES * np.nan, SEGMENTS, OBJECT), "NaN"),
        (lambda: top_k_iou(HEATMAP.T, OBJECT), r"heatmap must be \(12, 10\)"),
        (lambda: top_k_iou(HEATMAP, OBJECT[0]), r"object_mask must be \[H, W\]"),
        (lambda: top_k_iou(SCORES, OBJECT, segments=SEGMENTS, k=17), "from 1 to 16"),
        (lambda: pointing_game(HEATMAP, OBJECT, tolerance=-1), "tolerance must be .* at least 0"),
    ],
)
def test_bad_input_of_one_metric(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["1 and 2", "255 and -1", "soft", "NaN"])
def test_masks_of_other_values_are_errors(name):
    """Taken as bool, all of them mark every pixel."""
    marks = {"1 and 2": (1, 2), "255 and -1": (-1, 255), "soft": (0.2, 1), "NaN": (0, np.nan)}[name]
    mask = np.where(OBJECT, marks[1], marks[0])
    for metric in (
        lambda: pointing_game(HEATMAP, mask),
        lambda: relevance_mass_accuracy(HEATMAP, mask),
        lambda: relevance_rank_accuracy(HEATMAP, mask),
        lambda: alignment(SCORES, SEGMENTS, mask),
        lambda: top_k_iou(HEATMAP, mask),
    ):
        with pytest.raises(ValueError, match="object_mask must hold only True"):
            metric()
    assert pointing_game(HEATMAP, OBJECT.astype(int)) == pointing_game(HEATMAP, OBJECT)
