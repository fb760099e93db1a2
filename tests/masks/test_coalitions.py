from types import SimpleNamespace

import jax
import numpy as np
import psutil
import pytest

from lmjax.masks import Coalitions, random_keep

SEGMENTS = np.array([[0, 0, 1], [2, 1, 1]])
KEY = jax.random.key(0)


def test_masks_show_the_segments_that_are_kept():
    coalitions = Coalitions(SEGMENTS, [[1, 0, 1], [0, 1, 0]])
    assert len(coalitions) == 2
    assert coalitions.num_segments == 3
    masks = coalitions.masks()
    assert isinstance(masks, jax.Array)
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks, [[[1, 1, 0], [1, 0, 0]], [[0, 0, 1], [0, 1, 1]]])
    np.testing.assert_array_equal(coalitions.masks(slice(1, 2)), masks[1:])


@pytest.mark.parametrize(
    ("segments", "keep", "message"),
    [
        (SEGMENTS, np.ones((2, 4)), r"keep must be \[N, 3\].*got shape \(2, 4\)"),
        (SEGMENTS, np.ones(3), r"keep must be \[N, 3\]"),
        (SEGMENTS, [[0, 0.5, 2]], "got 0.5, 2"),
        ([[0, 2]], np.ones((1, 3)), "missing 1"),
    ],
)
def test_what_does_not_fit_is_an_error(segments, keep, message):
    with pytest.raises(ValueError, match=message):
        Coalitions(segments, keep)


def test_random_coalitions_keep_each_segment_independently():
    keep = np.asarray(random_keep(20, 5000, key=KEY, keep_probability=0.3))
    assert keep.shape == (5000, 20)
    assert keep.dtype == bool
    assert keep[0].all()
    np.testing.assert_allclose(keep[1:].mean(axis=0), 0.3, atol=0.03)
    assert abs(np.corrcoef(keep[1:].T) - np.eye(20)).max() < 0.06


def test_the_key_decides():
    np.testing.assert_array_equal(random_keep(9, 50, key=KEY), random_keep(9, 50, key=KEY))
    assert (random_keep(9, 50, key=KEY) != random_keep(9, 50, key=jax.random.key(1))).any()


def test_coalitions_are_those_of_one_draw_whatever_their_number_and_the_stretch():
    expected = np.array(jax.random.bernoulli(KEY, 0.4, (1000, 7)))
    expected[0] = True
    for first, last in ((0, 1000), (0, 3), (1, 300), (511, 600)):
        found = random_keep(7, last - first, key=KEY, keep_probability=0.4, first=first)
        np.testing.assert_array_equal(found, expected[first:last])


def test_the_first_row_can_be_random_too():
    first = [
        random_keep(8, 1, key=jax.random.key(seed), first_all_visible=False) for seed in range(9)
    ]
    assert 0.2 < np.mean(first) < 0.8


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 5), {}, "num_segments must be a whole number, 1 or more"),
        ((5, 0), {}, "num_samples must be a whole number, 1 or more"),
        ((5, 5), {"first": -1}, "first must be a whole number, 0 or more"),
        (
            (5, 5),
            {"keep_probability": 1.0},
            "keep_probability must be a finite number above 0 and below 1; got 1.0",
        ),
        ((5, 5), {"keep_probability": 0}, "keep_probability"),
    ],
)
def test_options_out_of_range_are_errors(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        random_keep(*arguments, key=KEY, **options)


def test_more_coalitions_than_memory_allows_is_an_error(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    assert random_keep(100, 100, key=KEY).shape == (100, 100)
    message = r"50,176 segments with 1,000 samples need about 0\.5 GB .* 0\.0 GB .*fewer segments"
    with pytest.raises(ValueError, match=message):
        random_keep(224 * 224, 1000, key=KEY)
