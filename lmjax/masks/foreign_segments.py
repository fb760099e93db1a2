"""Segments from masks that other tools make: arrays, dictionaries of SAM, annotations of COCO."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_choice, check_pair
from lmjax._utils.summary import brief

OVERLAPS = ("smallest", "first", "last", "error")
RESTS = ("segment", "nearest", "error")
_MOST_PIXELS = 10**9

Overlap = Literal["smallest", "first", "last", "error"]
Rest = Literal["segment", "nearest", "error"]


def from_masks(
    masks: ArrayLike | Sequence[Any], *, overlap: Overlap = "smallest", rest: Rest = "segment"
) -> np.ndarray:
    """Makes segments of masks, which may overlap and leave pixels over.

    Labels follow the order of the masks. A mask that others cover entirely gets none.

    Example:
      >>> segments = lmjax.segments.from_masks(SamAutomaticMaskGenerator(sam).generate(image))

    Args:
      masks: bool `[N, H, W]` (or 0 and 1), or a sequence whose items are masks `[H, W]`, run
        lengths as COCO stores them (`{"size": [H, W], "counts": ...}`, compressed or not), or
        dictionaries with one of these as "segmentation", as Segment Anything gives them.
      overlap: whose a pixel in several masks is: that of the mask with the fewest pixels, so that
        parts lie on top of wholes ("smallest"; of equal ones the first), of the "first" or of the
        "last"; or an "error".
      rest: what becomes of pixels in no mask: one "segment" of their own, with the last label; part
        of the "nearest" mask; or an "error".

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: no masks, masks that are empty, soft, or of different sizes, damaged run lengths;
        overlaps or pixels left over, where they are to be errors.
    """
    check_choice("overlap", overlap, OVERLAPS)
    check_choice("rest", rest, RESTS)
    stack = _stacked(masks)
    if overlap == "error" and (twice := stack.sum(axis=0) > 1).any():
        one, other = np.flatnonzero(stack[:, twice][:, 0])[:2]
        raise ValueError(
            f"masks overlap in {twice.sum():,} pixels, such as masks[{one}] and masks[{other}]; "
            "say whose they are: overlap='smallest', 'first' or 'last'"
        )
    order = np.arange(len(stack))  # from the top
    if overlap == "smallest":
        order = np.argsort(stack.sum(axis=(1, 2)), kind="stable")
    elif overlap == "last":
        order = order[::-1]
    labels = np.full(stack.shape[1:], len(stack))
    for number in order[::-1]:
        labels[stack[number]] = number
    covered = labels < len(stack)
    if not covered.all():
        labels = _with_rest(labels, covered, rest)
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def from_coco(
    annotations: Sequence[Mapping[str, Any]],
    shape: tuple[int, int],
    *,
    overlap: Overlap = "smallest",
    rest: Rest = "segment",
) -> np.ndarray:
    """Makes segments of the annotations that COCO's files have for an image.

    Polygons hold the pixels whose middle lies in them; the parts of an annotation are united.
    `pycocotools` may decide otherwise on pixels that an edge crosses.

    Args:
      annotations: dictionaries whose "segmentation" is a list of polygons `[x, y, x, y, ...]`, in
        pixels from the left upper corner of the image, or run lengths.
      shape: (H, W) of the image.
      overlap, rest: as in `from_masks`.

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: polygons that are none, or lie outside the image, and all that `from_masks`
        raises.
    """
    shape = check_pair("shape", shape, note="height and width")
    if not isinstance(annotations, Sequence) or isinstance(annotations, str):
        raise ValueError(
            f"annotations must be a list of COCO's dictionaries, got {type(annotations).__name__}"
        )
    masks = [
        _annotated(each, shape, f"annotations[{number}]") for number, each in enumerate(annotations)
    ]
    if not masks:
        raise ValueError("annotations must hold one or more annotations, got none")
    return from_masks(masks, overlap=overlap, rest=rest)


def _with_rest(labels: np.ndarray, covered: np.ndarray, rest: str) -> np.ndarray:
    """Returns labels in which pixels of no mask have the labels of their neighbours, or stay."""
    if rest == "error":
        raise ValueError(
            f"masks leave {(~covered).sum():,} pixels over; say what becomes of them: "
            "rest='segment' or 'nearest'"
        )
    if rest == "segment":
        return labels
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    return labels[tuple(nearest)]  # pyright: ignore[reportArgumentType]  # SciPy is untyped


def _stacked(masks: Any) -> np.ndarray:
    """Returns masks as bool `[N, H, W]`, each checked."""
    listed = isinstance(masks, Sequence) and not isinstance(masks, str | bytes)
    if not listed and (isinstance(masks, Mapping) or np.ndim(masks) == 0):
        raise ValueError(
            f"masks must be an array [N, H, W] or a list of masks, got {type(masks).__name__}; put "
            "it in a list"
        )
    if not listed and np.ndim(masks) != 3:
        raise ValueError(f"masks must be [N, H, W], got shape {np.shape(masks)}")
    found = [_mask(each, f"masks[{number}]") for number, each in enumerate(masks)]
    if not found:
        raise ValueError("masks must hold one or more masks, got none")
    for number, mask in enumerate(found):
        if mask.shape != found[0].shape:
            raise ValueError(
                f"masks must have one size; masks[0] is {found[0].shape}, masks[{number}] is "
                f"{mask.shape}"
            )
    return np.stack(found)


def _mask(mask: Any, name: str) -> np.ndarray:
    """Returns a mask of any kind as bool `[H, W]`; raises ValueError unless it shows pixels."""
    if isinstance(mask, Mapping) and "segmentation" in mask:
        mask, name = mask["segmentation"], f"the segmentation of {name}"
    if isinstance(mask, Mapping):
        mask = _decoded(mask, name)
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be a mask [H, W] or COCO's run lengths, got {mask.dtype} {mask.shape}"
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f"{name} must hold only 0 and 1, got values from {mask.min():g} to {mask.max():g}; "
            "give the masks a threshold first, such as mask > 0.5"
        )
    if not mask.any():
        raise ValueError(f"{name} is empty; leave it out")
    return mask.astype(bool)


def _decoded(run_lengths: Mapping[str, Any], name: str) -> np.ndarray:
    """Returns COCO's run lengths, of columns from the left, as bool `[H, W]`."""
    if not {"size", "counts"} <= set(run_lengths):
        raise ValueError(
            f"{name} must have 'size' and 'counts', COCO's run lengths, or a 'segmentation'; got "
            f"{', '.join(map(str, run_lengths)) or 'nothing'}"
        )
    height, width = check_pair(f"size of {name}", run_lengths["size"], note="height and width")
    counts = _counts(run_lengths["counts"], name)
    if counts.min(initial=0) < 0 or counts.sum() != height * width:
        raise ValueError(
            f"{name} is damaged: its counts must be 0 or more and sum to {height * width:,}, its "
            f"number of pixels; they range from {counts.min(initial=0)} and sum to "
            f"{counts.sum():,}"
        )
    if height * width > _MOST_PIXELS:
        raise ValueError(
            f"{name} must have at most {_MOST_PIXELS:,} pixels, got {height} x {width}"
        )
    visible = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return visible.reshape(width, height).T


def _counts(counts: Any, name: str) -> np.ndarray:
    """Returns run lengths, the hidden first, from a list of them or from COCO's compressed text.

    The text has five bits of a number in each character, the lowest first, and a sixth that says
    whether more follow; the last of the five is the sign. From the fourth number on they are
    differences from the last but one.
    """
    if not isinstance(counts, str | bytes):
        numbers = np.asarray(counts)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise ValueError(f"{name} must have counts that are whole numbers or COCO's text")
        return numbers.astype(np.int64)
    text = counts.encode("utf-8") if isinstance(counts, str) else counts
    code = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(code & 32 == 0)
    length = np.diff(last, prepend=-1)
    ends = len(last) > 0 and last[-1] == len(code) - 1
    if not ends or code.min() < 0 or code.max() > 63 or length.max() > 12:
        raise ValueError(f"{name} is damaged: its counts are not COCO's text")
    place = np.arange(len(code)) - np.repeat(last - length + 1, length)
    numbers = np.add.reduceat((code & 31) << 5 * place, last - length + 1)
    numbers -= np.where(code[last] & 16, 1 << 5 * length, 0)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _annotated(annotation: Any, shape: tuple[int, int], name: str) -> np.ndarray:
    """Returns an annotation's mask, bool `[H, W]`."""
    if not isinstance(annotation, Mapping) or "segmentation" not in annotation:
        raise ValueError(
            f"{name} must be a dictionary with a 'segmentation', got {brief(annotation)}"
        )
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, Mapping):
        mask = _decoded(segmentation, name)
        if mask.shape != shape:
            raise ValueError(f"{name} must be {shape} like the image, got {mask.shape}")
        return mask
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str | bytes):
        raise ValueError(
            f"the segmentation of {name} must be a list of polygons or COCO's run lengths, got "
            f"{brief(segmentation)}"
        )
    from skimage.draw import polygon

    mask = np.zeros(shape, bool)
    for outline in segmentation:
        x, y = _points(outline, name)
        mask[polygon(y - 0.5, x - 0.5, shape)] = True
    if not mask.any():
        raise ValueError(f"{name} has no pixel in an image of {shape}; leave it out")
    return mask


def _points(outline: Any, name: str) -> np.ndarray:
    """Returns a polygon's points, float64 `[2, P]`: x and y."""
    try:
        points = np.asarray(outline, np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 1 or points.size < 6 or points.size % 2 or not np.isfinite(points).all():
        raise ValueError(
            f"{name} must have polygons [x, y, x, y, ...] of 3 or more points, got {brief(outline)}"
        )
    return points.reshape(-1, 2).T
