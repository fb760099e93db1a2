import numpy as np
import pytest

from lmjax.perturbation import segments

RNG = np.random.default_rng(0)
# Four flat quadrants with a little noise: every segmenter must keep them apart.
QUADRANTS = np.kron(np.arange(4).reshape(2, 2), np.ones((20, 16), int))
COLOURS = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.9, 0.9, 0.1]])
IMAGE = np.clip(COLOURS[QUADRANTS] + RNG.normal(0, 0.01, (40, 32, 3)), 0, 1).astype(np.float32)
SEGMENTERS = [segments.grid, segments.slic, segments.quickshift, segments.felzenszwalb]


@pytest.mark.parametrize("segmenter", SEGMENTERS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_labels_are_contiguous_int32_and_repeatable(segmenter, channels):
    image = np.concatenate([IMAGE, IMAGE[..., ::-1]], axis=-1)[..., :channels]
    labels = segmenter(image)
    assert labels.shape == (40, 32)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    np.testing.assert_array_equal(segmenter(image), labels)


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_uint8_images_give_the_same_segments_as_floats(segmenter):
    image = (255 * IMAGE).round().astype(np.uint8)
    np.testing.assert_array_equal(segmenter(image), segmenter(image.astype(np.float32) / 255))


@pytest.mark.parametrize("segmenter", SEGMENTERS[1:])
def test_segments_follow_the_colours(segmenter):
    labels = segmenter(IMAGE)
    assert labels.max() > 0
    inside = 0
    for label in range(labels.max() + 1):
        inside += np.bincount(QUADRANTS[labels == label]).max()
    assert inside / labels.size > 0.95


def test_grid_counts_squares_row_by_row():
    labels = segments.grid(np.zeros((5, 7, 1)), size=3)
    expected = np.array([[0, 0, 0, 1, 1, 1, 2]] * 3 + [[3, 3, 3, 4, 4, 4, 5]] * 2)
    np.testing.assert_array_equal(labels, expected)
    assert segments.grid(IMAGE).max() + 1 == 3 * 2
    assert segments.grid(IMAGE, size=100).max() == 0


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_grid_of_no_size_is_an_error(size):
    with pytest.raises(ValueError, match="size must be"):
        segments.grid(IMAGE, size=size)


def test_options_reach_the_segmenters():
    few, many = (segments.slic(IMAGE, n_segments=n).max() + 1 for n in (10, 100))
    assert 4 <= few < 20 < many < 150
    fine = segments.quickshift(IMAGE, kernel_size=1, max_dist=2).max()
    assert fine > 2 * segments.quickshift(IMAGE).max()
    whole = segments.felzenszwalb(IMAGE, min_size=1000).max()
    assert whole < segments.felzenszwalb(IMAGE, scale=1, min_size=5).max()


def test_quickshift_is_the_lime_packages():
    from lime.wrappers.scikit_image import SegmentationAlgorithm

    algorithm = SegmentationAlgorithm(
        "quickshift", kernel_size=4, max_dist=200, ratio=0.2, random_seed=42
    )
    np.testing.assert_array_equal(segments.quickshift(IMAGE), algorithm(IMAGE))


def test_label_maps_of_users_are_renumbered_in_order():
    labels = segments.from_labels(np.array([[255, -3], [7, 255]], np.int64))
    np.testing.assert_array_equal(labels, [[2, 0], [1, 2]])
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(segments.from_labels([[True, False]]), [[1, 0]])


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.zeros((2, 2)), "ints, got dtype float64"),
        (np.zeros((2, 2, 1), int), r"\[H, W\]"),
        (np.zeros((0, 2), int), r"\[H, W\]"),
    ],
)
def test_label_maps_of_other_kinds_are_errors(label_map, message):
    with pytest.raises(ValueError, match=message):
        segments.from_labels(label_map)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 2], [5, 5]], r"every label from 0 to 5, missing 1, 3, 4; .*from_labels"),
        ([[1, 2]], "missing 0"),
        ([[-1, 0]], "labels from 0, got -1"),
        ([[0, 10**9]], "missing 1"),
        (np.zeros((1, 2)), "ints"),
        ([0, 1], r"\[H, W\]"),
    ],
)
def test_check_segments_names_what_is_wrong(labels, message):
    with pytest.raises(ValueError, match=message):
        segments.check_segments(labels)


def test_check_segments_compares_with_the_image():
    assert segments.check_segments([[0, 1]], (1, 2)).dtype == np.int32
    with pytest.raises(ValueError, match=r"\(2, 1\) like the image, got shape \(1, 2\)"):
        segments.check_segments([[0, 1]], (2, 1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGE[..., 0], r"\[H, W, C\]"),
        (255 * IMAGE, "divide 0..255 by 255"),
        (np.full((4, 4, 3), np.nan), "NaN .*from_labels"),
        (np.zeros((4, 4, 3), int), "float in .* or uint8"),
    ],
)
def test_images_that_cannot_be_segmented_are_errors(image, message):
    for segmenter in SEGMENTERS:
        with pytest.raises(ValueError, match=message):
            segmenter(image)
