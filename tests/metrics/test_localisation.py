import numpy as np
import pytest

from lmjax.metrics import relevance_rank_accuracy


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


@pytest.mark.parametrize(
    ("heatmap", "object_mask", "message"),
    [
        (np.ones((3, 3)), np.ones((3, 4), bool), "both be"),
        (np.ones((3, 3)), np.zeros((3, 3), bool), "no object pixel"),
        (np.full((3, 3), np.nan), np.ones((3, 3), bool), "NaN"),
    ],
)
def test_bad_input(heatmap, object_mask, message):
    with pytest.raises(ValueError, match=message):
        relevance_rank_accuracy(heatmap, object_mask)
