import numpy as np
import pytest

from lmjax.data import DigitScenes
from lmjax.masks import segments

RNG = np.random.default_rng(0)
# Four flat quadrants with a little noise: every segmenter must keep them apart.
QUADRANTS = np.kron(np.arange(4).reshape(2, 2), np.ones((20, 16), int))
COLOURS = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.9, 0.9, 0.1]])
IMAGE = np.clip(COLOURS[QUADRANTS] + RNG.normal(0, 0.01, (40, 32, 3)), 0, 1).astype(np.float32)
SEGMENTERS = [
    *(segments.grid, segments.slic, segments.slic_near, segments.quickshift),
    *(segments.felzenszwalb, segments.boxes),
]


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


@pytest.mark.parametrize("segmenter", SEGMENTERS[1:5])
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


def scene(number=0):
    return DigitScenes("test", length=9)[number].image


@pytest.mark.parametrize("wanted", [20, 50, 100])
def test_slic_is_asked_until_the_number_is_near(wanted):
    near = segments.slic_near(scene(), n_segments=wanted).max() + 1
    assert abs(near - wanted) <= 0.1 * wanted
    assert abs(segments.slic(scene(), n_segments=wanted).max() + 1 - wanted) > 0.1 * wanted


def test_slic_is_asked_once_where_it_is_near_at_once_and_eight_times_at_most(monkeypatch):
    asked, counts = [], {50: 52}

    def slic(image, *, n_segments, **options):
        asked.append(n_segments)
        count = counts.get(n_segments, 120)
        return np.arange(1000).reshape(20, 50) % count

    monkeypatch.setattr(segments, "slic", slic)
    assert segments.slic_near(IMAGE, n_segments=50).max() + 1 == 52
    assert asked == [50]
    assert segments.slic_near(IMAGE, n_segments=150).max() + 1 == 120
    assert len(asked) == 1 + 8
    assert len({*asked}) == len(asked)


@pytest.mark.parametrize(("size", "wanted"), [(4, 50), (1, 4), (64, 8000)])
def test_slic_is_asked_for_no_more_than_it_takes(size, wanted):
    image = np.random.default_rng(0).random((size, size, 3), np.float32)
    found = segments.slic_near(image, n_segments=wanted)
    assert found.shape == (size, size)
    assert 1 <= found.max() + 1 <= size**2


def test_the_nearest_number_is_taken_where_none_is_near():
    """Below a dozen segments, one more asked for is three more that come."""
    found = {segments.slic(scene(5), n_segments=n).max() + 1 for n in range(1, 31)}
    assert not found & {9, 10, 11}
    near = segments.slic_near(scene(5), n_segments=10).max() + 1
    assert near in found


def test_quickshift_is_the_lime_packages():
    from lime.wrappers.scikit_image import SegmentationAlgorithm

    algorithm = SegmentationAlgorithm(
        "quickshift", kernel_size=4, max_dist=200, ratio=0.2, random_seed=42
    )
    np.testing.assert_array_equal(segments.quickshift(IMAGE), algorithm(IMAGE))


@pytest.mark.parametrize(
    ("segmenter", "options"),
    [
        (segments.grid, {"size": 16}),
        (segments.slic, {"n_segments": 150, "compactness": 10, "sigma": 1}),
        (segments.slic, {"n_segments": 250}),
        (segments.quickshift, {"kernel_size": 2, "max_dist": 200, "ratio": 0.2}),
        (segments.quickshift, {"kernel_size": 4, "max_dist": 200, "ratio": 0.2}),
        (segments.felzenszwalb, {}),
    ],
)
def test_the_settings_of_the_papers_are_allowed(segmenter, options):
    segments.check_segments(segmenter(IMAGE, **options), IMAGE.shape[:2])


def test_an_even_grid_has_the_cells_that_were_asked_for():
    labels = segments.even_grid((5, 7), (2, 3))
    expected = np.array([[0, 0, 0, 1, 1, 2, 2]] * 3 + [[3, 3, 3, 4, 4, 5, 5]] * 2)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(segments.even_grid((5, 5), 5), np.arange(25).reshape(5, 5))
    with pytest.raises(ValueError, match=r"cells must be .* from 1 to 5 and 7 .*; got 6"):
        segments.even_grid((5, 7), 6, name="cells")


# -- contours


def test_contours_of_equal_area_and_of_equal_steps():
    heatmap = np.array([[0.0, 1, 2, 3], [4, 5, 6, 100]])
    np.testing.assert_array_equal(
        segments.contours(heatmap, num_bands=4), [[0, 0, 1, 1], [2, 2, 3, 3]]
    )
    np.testing.assert_array_equal(
        segments.contours(heatmap, num_bands=4, by="value"), [[0, 0, 0, 0], [0, 0, 0, 1]]
    )
    steps = segments.contours(heatmap.clip(0, 8), num_bands=4, by="value")
    np.testing.assert_array_equal(steps, [[0, 0, 1, 1], [2, 2, 3, 3]])


@pytest.mark.parametrize("by", ["area", "value"])
@pytest.mark.parametrize("num_bands", [1, 3, 10, 64])
def test_contours_are_level_sets_of_any_map(by, num_bands):
    heatmap = RNG.normal(size=(9, 7)).round(1)
    bands = segments.check_segments(segments.contours(heatmap, num_bands=num_bands, by=by))
    assert bands.max() < num_bands
    for band in range(bands.max()):  # every band lies below the next
        assert heatmap[bands == band].max() < heatmap[bands == band + 1].min()


def test_bands_of_distinct_values_have_equal_area():
    heatmap = RNG.permutation(60).reshape(6, 10).astype(np.float32)
    bands = segments.contours(heatmap, num_bands=7)
    areas = np.bincount(bands.ravel())
    assert len(areas) == 7
    assert areas.max() - areas.min() <= 1


def test_a_flat_map_has_one_band():
    for by in ("area", "value"):
        np.testing.assert_array_equal(segments.contours(np.full((2, 3), 0.3), by=by), 0)


@pytest.mark.parametrize(
    ("heatmap", "options", "message"),
    [
        (IMAGE, {}, r"heatmap must be \[H, W\]"),
        (np.full((2, 2), np.nan), {}, "heatmap holds NaN"),
        (IMAGE[..., 0], {"num_bands": 0}, "num_bands must be .* got 0"),
        (IMAGE[..., 0], {"by": "rank"}, "by must be one of area, value; got 'rank'"),
    ],
)
def test_maps_without_contours_are_errors(heatmap, options, message):
    with pytest.raises(ValueError, match=message):
        segments.contours(heatmap, **options)


# -- boxes


def test_boxes_are_rings_around_a_point():
    labels = segments.boxes(np.zeros((7, 8, 1)), point=(2, 5), size=2)
    expected = np.empty((7, 8), int)
    for row, column in np.ndindex(7, 8):
        expected[row, column] = max(abs(row - 2), abs(column - 5)) // 2
    np.testing.assert_array_equal(labels, expected)
    assert (labels == 0).sum() == 9  # 2 * 2 - 1 a side


def test_boxes_begin_in_the_middle():
    labels = segments.boxes(IMAGE, size=5)
    np.testing.assert_array_equal(labels, segments.boxes(IMAGE, size=5, point=(20, 16)))
    assert segments.boxes(IMAGE, size=100).max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be .* got 0"),
        ({"point": (40, 0)}, r"within \(40, 32\), got \(40, 0\)"),
        ({"point": (0, -1)}, "point must be"),
    ],
)
def test_boxes_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        segments.boxes(IMAGE, **options)


# -- merges


def pixels(image):
    return np.arange(image[..., 0].size).reshape(image.shape[:2])


def same_partition(one, other):
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(one)) == len(np.unique(other))


@pytest.mark.parametrize("num_segments", [2, 5, 12])
def test_merges_of_pixels_are_scikit_learns(num_segments):
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.feature_extraction.image import grid_to_graph

    image = RNG.random((6, 7, 2)).astype(np.float32)
    ward = AgglomerativeClustering(num_segments, connectivity=grid_to_graph(6, 7), linkage="ward")
    expected = ward.fit_predict(image.reshape(-1, 2))
    found = segments.merge(image, pixels(image), num_segments=num_segments)
    assert same_partition(found.ravel(), expected)


def test_merges_end_at_the_colours():
    merged = segments.merge(IMAGE, segments.grid(IMAGE, size=4), num_segments=4)
    assert same_partition(merged, QUADRANTS)


def test_merges_are_a_hierarchy_of_connected_segments():
    from scipy import ndimage

    fine = segments.slic(IMAGE, n_segments=80)
    finer = None
    for num_segments in (fine.max() + 1, 30, 7, 2, 1):
        merged = segments.merge(IMAGE, fine, num_segments=num_segments)
        segments.check_segments(merged)
        assert merged.max() + 1 == num_segments
        for label in range(num_segments):
            assert ndimage.label(merged == label)[1] == 1
        if finer is not None:
            assert len(np.unique(np.stack([merged, finer]).reshape(2, -1), axis=1).T) == (
                finer.max() + 1
            )
        finer = merged


def test_merges_count_pixels_not_segments():
    """A step is n m / (n + m) |f - g|^2: a lone pixel of another colour goes before large areas."""
    image = np.repeat([0.0, 0.0, 0.0, 0.2, 0.2, 0.2, 0.2, 0.5], 1)[None, :, None].astype(np.float32)
    labels = np.array([[0, 0, 0, 1, 1, 1, 1, 2]])
    # 3 * 4 / 7 * 0.04 = 0.069, 4 * 1 / 5 * 0.09 = 0.072
    np.testing.assert_array_equal(
        segments.merge(image, labels, num_segments=2), [[0, 0, 0, 0, 0, 0, 0, 1]]
    )
    image[0, -1] = 0.48  # 4 / 5 * 0.0784 = 0.063
    np.testing.assert_array_equal(
        segments.merge(image, labels, num_segments=2), [[0, 0, 0, 1, 1, 1, 1, 1]]
    )


@pytest.mark.parametrize("num_segments", [0, 5])
def test_merging_to_no_or_more_segments_is_an_error(num_segments):
    with pytest.raises(
        ValueError, match=rf"from 1 to 4 \(the segments given\); got {num_segments}"
    ):
        segments.merge(IMAGE, QUADRANTS, num_segments=num_segments)


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
    by_shape = {segments.grid, segments.boxes} if np.ndim(image) == 3 else set()
    for segmenter in set(SEGMENTERS) - by_shape:
        with pytest.raises(ValueError, match=message):
            segmenter(image)
    for segmenter in by_shape:
        np.testing.assert_array_equal(segmenter(image), segmenter(np.zeros(np.shape(image))))


@pytest.fixture
def halves():
    def halves(image):
        return np.broadcast_to(np.arange(image.shape[1]) * 2 // image.shape[1], image.shape[:2])

    segments.register("halves", halves, description="Divides an image into two halves.")
    yield halves
    segments._REGISTRY.unregister("halves")


def test_segmenters_go_by_name(halves):
    assert segments.names()[:5] == ("slic", "grid", "quickshift", "felzenszwalb", "slic_near")
    assert segments.get("halves") is halves
    assert "halves" in segments.names()
    assert segments.description("halves") == "Divides an image into two halves."
    for name in segments.names():
        assert segments.get(name)(IMAGE).shape == IMAGE.shape[:2]
    with pytest.raises(
        ValueError, match=r"segmenter must be one of slic.*got 'slik'; did you .*slic"
    ):
        segments.get("slik")
    with pytest.raises(ValueError, match="segmenter 'grid' comes with lmjax"):
        segments.register("grid", halves, description="Another.")


def test_segments_by_name_have_the_options_of_the_signature(halves):
    options = {"size": 8, "n_segments": 4}
    for name, expected in (
        ("grid", segments.grid(IMAGE, size=8)),
        ("slic", segments.slic(IMAGE, n_segments=4)),
        ("halves", halves(IMAGE)),
    ):
        np.testing.assert_array_equal(segments.make(name, IMAGE, **options), expected)
        assert segments.make(name, IMAGE).dtype == np.int32


def test_segments_of_others_are_checked():
    segments.register("gap", lambda image: 2 * segments.grid(image), description="No odd labels.")
    try:
        with pytest.raises(ValueError, match=r"segments of gap must hold every .*missing 1, 3"):
            segments.make("gap", IMAGE)
    finally:
        segments._REGISTRY.unregister("gap")


@pytest.mark.parametrize("segmenter", [segments.slic, segments.quickshift])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_segments_follow_pictures_of_any_number_of_channels(segmenter, channels):
    """On a scale of 0 to 1, distances in the plane outweigh all colours."""
    rng = np.random.default_rng(0)
    disc = np.hypot(*(np.mgrid[:64, :64] - np.array([29, 34])[:, None, None])) < 17
    image = np.where(disc, 0.7, 0.3)[..., None] + 0.02 * rng.standard_normal((64, 64, channels))
    labels = segmenter(image.astype(np.float32))
    inside = np.bincount(labels.ravel(), disc.ravel()) / np.bincount(labels.ravel())
    assert np.minimum(inside, 1 - inside)[labels].mean() < 0.03  # of pixels on the wrong side


# -- segments of whole patches


def test_each_patch_goes_to_the_segment_that_has_most_of_it():
    labels = np.array(
        [
            [0, 0, 1, 1, 2, 2],
            [0, 1, 1, 1, 2, 2],
            [3, 0, 4, 4, 2, 5],
            [3, 0, 4, 1, 2, 5],
        ]
    )
    expected = np.array([[0, 1, 2], [0, 3, 2]])  # 0 before 3 and 2 before 5, which are as many
    found = segments.snap(labels, 2)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected.repeat(2, axis=0).repeat(2, axis=1))


def test_snapping_makes_no_more_segments_than_there_are_patches():
    fine = segments.grid(IMAGE, size=3)
    found = segments.snap(fine, 16)
    np.testing.assert_array_equal(segments.check_segments(found), found)
    height, width = IMAGE.shape[:2]
    assert found.max() + 1 <= -(-height // 16) * -(-width // 16) < fine.max() + 1
    np.testing.assert_array_equal(segments.snap(found, 16), found)
    np.testing.assert_array_equal(segments.snap(fine, 1), fine)


def test_patches_at_the_border_may_be_smaller():
    labels = np.zeros((5, 5), int)
    labels[4, 4] = 1
    np.testing.assert_array_equal(segments.snap(labels, 2), labels)
    with pytest.raises(ValueError, match="size must be"):
        segments.snap(labels, 0)


def test_made_segments_follow_a_patch_size():
    image = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    for name, options in (("slic", {"n_segments": 12}), ("quickshift", {}), ("grid", {"size": 8})):
        found = segments.make(name, image, patch_size=32, **options)
        np.testing.assert_array_equal(found, segments.snap(found, 32))
        assert found.max() + 1 <= 4
    squares = segments.make("grid", image, patch_size=32)
    np.testing.assert_array_equal(squares, segments.grid(image, size=32))
    larger = segments.make("grid", image, patch_size=16, size=32)
    np.testing.assert_array_equal(larger, squares)
    np.testing.assert_array_equal(segments.make("grid", image), segments.grid(image, size=16))


@pytest.mark.parametrize(
    ("segmenter", "options", "message"),
    [
        ("slic", {"compactness": 0}, "compactness must be a finite number above 0"),
        ("slic", {"sigma": np.nan}, "sigma must be a finite number at least 0"),
        ("slic_near", {"sigma": "1"}, "sigma must be a finite number at least 0"),
        (
            "quickshift",
            {"kernel_size": np.zeros(2)},
            "kernel_size must be a finite number at least 1",
        ),
        ("quickshift", {"max_dist": -1}, "max_dist must be a finite number at least 0"),
        ("quickshift", {"ratio": 2}, "ratio must be a finite number at least 0 and at most 1"),
        ("felzenszwalb", {"scale": np.inf}, "scale must be a finite number above 0"),
        ("felzenszwalb", {"min_size": 1.5}, "min_size must be a whole number, 0 or more"),
        ("boxes", {"point": (1,)}, r"point must be \(row, column\), got \(1,\)"),
        ("boxes", {"point": ("a", "b")}, "point must be a whole number or two"),
    ],
)
def test_options_of_segmenters_are_checked(segmenter, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(segments, segmenter)(np.full((8, 6, 3), 0.5, np.float32), **options)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="shape must be a whole number or two"):
        segments.cells((8, 6, 3), 2)
    with pytest.raises(ValueError, match="most must be a whole number, 1 or more"):
        segments.cells((8, 6), 0)
