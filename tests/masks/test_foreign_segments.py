"""Masks of other tools as segments: overlaps by loops, run lengths against pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lmjax import segments
from lmjax.masks.segments import check_segments

from_masks, from_coco = segments.from_masks, segments.from_coco
examples = settings(max_examples=40, deadline=None)
STACKS = arrays.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)))
TWO = np.zeros((2, 4, 6), bool)
TWO[0, :, :4] = True
TWO[1, 1:3, 2:5] = True


def run_lengths(mask):
    """COCO's uncompressed run lengths, pixel by pixel."""
    counts, value = [0], False
    for pixel in np.asarray(mask).T.ravel():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(np.shape(mask)), "counts": counts}


def compressed(rle):
    """Their text: five bits a character, differences from the last but one."""
    text, counts = "", rle["counts"]
    for place, count in enumerate(counts):
        number = count - (counts[place - 2] if place > 2 else 0)
        while True:
            bits, number = number & 31, number >> 5
            done = number == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return {**rle, "counts": text}


def by_loop(masks, overlap):
    """Which mask each pixel belongs to, N where it is none's."""
    owner = np.full(masks.shape[1:], len(masks))
    for place in np.ndindex(owner.shape):
        inside = [number for number in range(len(masks)) if masks[number][place]]
        if inside:
            owner[place] = {
                "first": inside[0],
                "last": inside[-1],
                "smallest": min(inside, key=lambda number: masks[number].sum()),
            }[overlap]
    return owner


@pytest.mark.parametrize("overlap", ["smallest", "first", "last"])
@given(STACKS)
@examples
def test_pixels_belong_to_the_mask_that_the_rule_says(overlap, masks):
    masks = masks[masks.any(axis=(1, 2))]
    if len(masks) == 0:
        return
    found = from_masks(masks, overlap=overlap)
    owner = by_loop(masks, overlap)
    np.testing.assert_array_equal(found, np.searchsorted(np.unique(owner), owner))
    np.testing.assert_array_equal(check_segments(found, masks.shape[1:]), found)
    assert found.dtype == np.int32


def test_parts_lie_on_wholes_whatever_their_order():
    for order in ([0, 1], [1, 0]):
        found = from_masks(TWO[order])
        assert (found[TWO[1]] == order.index(1)).all()
        assert (found[TWO[0] & ~TWO[1]] == order.index(0)).all()
        assert (found[~TWO.any(axis=0)] == 2).all()


def test_a_mask_that_others_cover_has_no_label():
    halves = np.zeros((3, 2, 4), bool)
    halves[0], halves[1, :, :2], halves[2, :, 2:] = True, True, True
    np.testing.assert_array_equal(from_masks(halves), [[0, 0, 1, 1]] * 2)
    np.testing.assert_array_equal(from_masks(halves, overlap="first"), np.zeros((2, 4)))


def test_pixels_left_over_join_the_nearest_mask():
    masks = np.zeros((2, 1, 7), bool)
    masks[0, 0, 0] = masks[1, 0, 6] = True
    found = from_masks(masks, rest="nearest")
    np.testing.assert_array_equal(found[0, [0, 1, 2, 4, 5, 6]], [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(from_masks(masks), [[0, 2, 2, 2, 2, 2, 1]])


def test_kinds_of_masks_agree():
    expected = from_masks(TWO)
    for same in (
        list(TWO),
        TWO.astype(np.uint8),
        TWO.astype(float),
        [{"segmentation": mask, "area": int(mask.sum()), "predicted_iou": 0.9} for mask in TWO],
        [run_lengths(mask) for mask in TWO],
        [compressed(run_lengths(mask)) for mask in TWO],
        [{"segmentation": compressed(run_lengths(mask))} for mask in TWO],
        (TWO[0], run_lengths(TWO[1])),
    ):
        np.testing.assert_array_equal(from_masks(same), expected)
    annotations = [{"segmentation": run_lengths(mask), "category_id": 1} for mask in TWO]
    np.testing.assert_array_equal(from_coco(annotations, (4, 6)), expected)


@given(arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
@examples
def test_run_lengths_are_read(mask):
    mask[0, 0] = True  # not empty
    for rle in (run_lengths(mask), compressed(run_lengths(mask))):
        np.testing.assert_array_equal(from_masks([rle]) == 0, mask)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 200), (300, 257)])
def test_pycocotools_agrees_on_run_lengths(shape):
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    rows, columns = np.indices(shape)
    for mask in (
        rng.random(shape) < 0.5,
        rng.random(shape) < 0.002,
        (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < min(shape) ** 2 / 9,
        np.ones(shape, bool),
    ):
        mask = mask.copy()
        mask[-1, -1] = True
        rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        np.testing.assert_array_equal(from_masks([rle]) == 0, mask)
        text = {**rle, "counts": rle["counts"].decode()}
        np.testing.assert_array_equal(from_masks([text]) == 0, mask)
        assert compressed(run_lengths(mask))["counts"] == text["counts"]  # this file's oracle


def test_polygons_hold_the_pixels_whose_middle_is_inside():
    square = {"segmentation": [[1, 1, 5, 1, 5, 3, 1, 3]]}
    expected = np.ones((4, 6), int)
    expected[1:3, 1:5] = 0
    np.testing.assert_array_equal(from_coco([square], (4, 6)), expected)
    parts = {"segmentation": [[0, 0, 1, 0, 1, 4, 0, 4], [5, 0, 6, 0, 6, 4, 5, 4]]}
    np.testing.assert_array_equal(from_coco([parts], (4, 6))[0], [0, 1, 1, 1, 1, 0])
    beyond = {"segmentation": [[-9, -9, 2, -9, 2, 99, -9, 99]]}
    np.testing.assert_array_equal(from_coco([beyond], (4, 6))[0], [0, 0, 1, 1, 1, 1])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_agrees_on_polygons_but_for_their_edges():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    for _ in range(20):
        angle = np.sort(rng.random(9)) * 2 * np.pi
        radius = rng.uniform(10, 28, 9)
        outline = np.stack([30 + radius * np.cos(angle), 32 + radius * np.sin(angle)], 1).ravel()
        theirs = coco.decode(coco.frPyObjects([outline.tolist()], 64, 60))[..., 0].astype(bool)
        ours = from_coco([{"segmentation": [outline.tolist()]}], (64, 60)) == 0
        different = ours ^ theirs
        assert different.sum() < 0.1 * theirs.sum()
        padded = np.pad(theirs, 1)
        near = [np.roll(padded, step, (0, 1)) for step in np.ndindex(3, 3)]
        edge = np.roll(np.any(near, axis=0) & ~np.all(near, axis=0), (-1, -1), (0, 1))
        assert not (different & ~edge[1:-1, 1:-1]).any()


SOFT = np.full((1, 3, 3), 0.4)
EMPTY = np.zeros((2, 3, 3), bool)
EMPTY[0] = True
DAMAGED = {"size": [3, 3], "counts": [4, 4]}


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        ([], {}, "masks must hold one or more masks, got none"),
        (np.ones((0, 3, 3), bool), {}, "got none"),
        (TWO[0], {}, r"masks must be \[N, H, W\], got shape \(4, 6\)"),
        ([TWO], {}, r"masks\[0\] must be a mask \[H, W\] .* bool \(2, 4, 6\)"),
        (iter(TWO), {}, "put it in a list"),
        ({"segmentation": TWO[0]}, {}, "got dict; put it in a list"),
        ("masks.json", {}, "got str"),
        ([TWO[0], TWO[1][:3]], {}, r"masks\[0\] is \(4, 6\), masks\[1\] is \(3, 6\)"),
        (EMPTY, {}, r"masks\[1\] is empty; leave it out"),
        (SOFT, {}, r"masks\[0\] must hold only 0 and 1, got values from 0.4 to 0.4; .*mask > 0.5"),
        (TWO * 255, {}, r"from 0 to 255"),
        (SOFT * np.nan, {}, r"must hold only 0 and 1"),
        ([["a", "b"]], {}, r"masks\[0\] must be a mask"),
        (TWO, {"overlap": "error"}, r"overlap in 4 pixels, such as masks\[0\] and masks\[1\]"),
        (TWO, {"rest": "error"}, "masks leave 6 pixels over"),
        (TWO, {"overlap": "largest"}, "overlap must be one of smallest, first, last, error"),
        (TWO, {"rest": "none"}, "rest must be one of segment, nearest, error"),
        ([{"area": 3}], {}, r"masks\[0\] must have 'size' and 'counts', .* got area"),
        ([{"segmentation": {}}], {}, r"the segmentation of masks\[0\] must have .* got nothing"),
        ([DAMAGED], {}, r"masks\[0\] is damaged: .* sum to 9, .* sum to 8"),
        ([{**DAMAGED, "counts": [10, -1]}], {}, "counts must be 0 or more"),
        ([{**DAMAGED, "counts": "~!"}], {}, r"masks\[0\] is damaged: its counts are not COCO's"),
        ([{**DAMAGED, "counts": "o"}], {}, "its counts are not COCO's text"),
        ([{**DAMAGED, "counts": ""}], {}, "its counts are not COCO's text"),
        ([{**DAMAGED, "counts": "oooooooooooooooooooo0"}], {}, "its counts are not COCO's text"),
        ([{**DAMAGED, "counts": 1.5}], {}, "counts that are whole numbers"),
        ([{**DAMAGED, "size": [3]}], {}, "damaged|size of"),
        ([{**DAMAGED, "size": "large"}], {}, r"size of masks\[0\] must be"),
        ([{"size": [10**6, 10**6], "counts": [0, 10**12]}], {}, "at most 1,000,000,000 pixels"),
    ],
)
def test_masks_that_are_none_are_refused(masks, options, message):
    with pytest.raises(ValueError, match=message):
        from_masks(masks, **options)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([], "annotations must hold one or more annotations, got none"),
        ({"annotations": []}, "annotations must be a list of COCO's dictionaries, got dict"),
        ([{"bbox": [0, 0, 1, 1]}], r"annotations\[0\] must be a dictionary with a 'segmentation'"),
        ([{"segmentation": [[0, 0, 1, 1]]}], "polygons .* of 3 or more points"),
        ([{"segmentation": [[0, 0, 1, 1, 2]]}], "polygons"),
        ([{"segmentation": [[0, 0, 1, 1, 2, np.nan]]}], "polygons"),
        ([{"segmentation": [["a"] * 6]}], "polygons .* got .'a'"),
        ([{"segmentation": 5}], r"segmentation of annotations\[0\] must be a list .* got 5"),
        ([{"segmentation": "damaged"}], "must be a list of polygons or COCO's run lengths"),
        ([{"segmentation": [[50, 50, 60, 50, 60, 60]]}], r"no pixel in an image of \(4, 6\)"),
        ([{"segmentation": []}], "no pixel"),
        ([{"segmentation": run_lengths(TWO[0][:3])}], r"must be \(4, 6\) like the image, got \(3"),
    ],
)
def test_annotations_that_are_none_are_refused(annotations, message):
    with pytest.raises(ValueError, match=message):
        from_coco(annotations, (4, 6))
