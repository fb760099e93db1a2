"""Segments: label maps `[H, W]` int32 with labels 0..S-1, none missing.

Images are `[H, W, C]`, float in [0, 1] or uint8, with any number of channels. All segmenters are
deterministic.

Segmenters that studies and `lmjax explain` choose by name are registered: `names()` lists them,
`register(...)` adds one.
"""

import inspect
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import (
    LARGEST,
    check_choice,
    check_function,
    check_number,
    check_numbers,
    check_pair,
    check_whole,
)
from lmjax._utils.registry import Registry
from lmjax._utils.summary import brief
from lmjax.masks.foreign_segments import from_coco as from_coco
from lmjax.masks.foreign_segments import from_masks as from_masks
from lmjax.masks.region_merging import merge_regions

_NAMED_LABELS = 5
_MOST_SLIC = 8  # times that `slic_near` asks
_NEAR = 0.1
_MOST_PIXELS = 2**28  # of an image, whose labels take 1 GiB
_MOST = 1e6  # pixels and the like, in options of scikit-image
_LIGHTNESS = 100  # range of lightness in Lab, for which defaults of compactness and ratio are

Segmenter = Callable[..., np.ndarray]
_REGISTRY: Registry[Segmenter] = Registry("segmenter", "lmjax.segmenters")


def register(name: str, function: Segmenter, *, description: str) -> None:
    """Adds a segmenter that studies and `lmjax explain` take by its name.

    Example:
      >>> lmjax.segments.register("halves", halves, description="The left and the right half.")

    Args:
      name: as users write it.
      function: (image `[H, W, C]`, float in [0, 1]) -> segments `[H, W]`. Keyword-only options
        called `n_segments` (about how many segments) and `size` (side of a square, in pixels) are
        set from the options of studies and of the command.
      description: one line.

    Raises:
      ValueError: a name that cannot be written on a command line, or a built-in one.
    """
    check_function("function", function, "of an image")
    _REGISTRY.register(name, function, description=description)


def names() -> tuple[str, ...]:
    """Returns the names of the segmenters, those of other packages included."""
    return _REGISTRY.names()


def description(name: str) -> str:
    """Returns the line that describes a segmenter."""
    return _REGISTRY.description(name)


def get(name: str, *, argument: str = "segmenter") -> Segmenter:
    """Returns the segmenter of a name.

    Args:
      name: one of `names()`.
      argument: what the caller's argument is called, for the error.

    Raises:
      ValueError: another name; lists those there are.
    """
    return _REGISTRY.get(name, argument=argument)


def make(
    name: str,
    image,
    *,
    argument: str = "segmenter",
    patch_size: int | None = None,
    **options: Any,
) -> np.ndarray:
    """Divides an image with the segmenter of a name, and checks its segments.

    Example:
      >>> segments = lmjax.segments.make("slic", image, n_segments=20, size=8)  # SLIC has no size

    Args:
      name: one of `names()`.
      image: `[H, W, C]`.
      argument: what the caller's argument is called, for the error.
      patch_size: side of a transformer's patches, in pixels (`Classifier.patch_size`): segments are
        made of whole ones (`snap`), and squares are of this size unless `size` is given.
      **options: settings; the segmenter gets those that its signature has.

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: another name, what the segmenter refuses, or segments that are no label map of the
        image.
    """
    segmenter = get(name, argument=argument)
    if patch_size is not None:
        options.setdefault("size", patch_size)
    takes = inspect.signature(segmenter).parameters
    options = {option: value for option, value in options.items() if option in takes}
    found = check_segments(segmenter(image, **options), np.shape(image)[:2], f"segments of {name}")
    return found if patch_size is None else snap(found, patch_size)


def grid(image: ArrayLike, *, size: int = 16) -> np.ndarray:
    """Divides an image into squares, row by row.

    Those at the right and lower border may be smaller.

    Example:
      >>> np.unique(lmjax.segments.grid(image, size=8))
      array([0, 1, 2, 3], dtype=int32)

    Args:
      image: `[H, W, C]`; only its height and width count.
      size: side of a square, in pixels.

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: another shape, or a size that is not a whole number or is below 1.
    """
    size = check_whole("size", size, least=1, note="pixels")
    rows, columns = (np.arange(n) // size for n in _spatial_shape(image))
    return _cross(rows, columns)


def even_grid(
    shape: tuple[int, int], cells: int | tuple[int, int], *, name: str = "grid"
) -> np.ndarray:
    """Divides an image into a given number of rectangles, as equal in size as pixels allow.

    Example:
      >>> lmjax.segments.even_grid((4, 4), 2)[0]
      array([0, 0, 1, 1], dtype=int32)

    Args:
      shape: (H, W).
      cells: along each side, or (h, w).
      name: the argument's name in errors.

    Returns:
      Segments `[H, W]`, row by row.

    Raises:
      ValueError: no cells, or more than pixels.
    """
    shape = _check_shape(shape)
    cells = check_pair(name, cells, most=shape, note="the image's height and width")
    return _cross(*(np.arange(pixels) * count // pixels for count, pixels in zip(cells, shape)))


def cells(shape: tuple[int, int], most: int) -> np.ndarray:
    """Divides an image into `most` x `most` rectangles, or as many as its pixels allow.

    Args:
      shape: (H, W).
      most: cells along each side.

    Returns:
      Segments `[H, W]`, row by row.

    Raises:
      ValueError: a number of cells below 1.
    """
    height, width = _check_shape(shape)
    most = check_whole("most", most, least=1)
    return even_grid((height, width), (min(most, height), min(most, width)))


def _check_shape(shape: tuple[int, int]) -> tuple[int, int]:
    height, width = check_pair("shape", shape)
    if height * width > _MOST_PIXELS:
        raise ValueError(f"shape must be of at most {_MOST_PIXELS} pixels, got {(height, width)}")
    return height, width


def _cross(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Labels each pixel by the row `[H]` and the column `[W]` of cells it lies in."""
    return (rows[:, None] * (columns[-1] + 1) + columns[None, :]).astype(np.int32)


def slic(
    image: ArrayLike, *, n_segments: int = 50, compactness: float = 10.0, sigma: float = 1.0
) -> np.ndarray:
    """Computes SLIC superpixels (Achanta et al. 2012) with scikit-image.

    Photographs get fewer than are asked for, 26 to 46 of 50 on those of scikit-image; `slic_near`
    asks again.

    Example:
      >>> lmjax.segments.slic(image, n_segments=4).shape
      (16, 16)

    Args:
      image: `[H, W, C]`; 3 channels are compared in Lab, 1 as grey, others on Lab's scale.
      n_segments: approximate number of segments.
      compactness: higher values give squarer segments.
      sigma: width of the Gaussian that smooths the image first, in pixels.

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: an image of another shape or type, NaN, colours outside [0, 1], or options that
        are out of range.
    """
    n_segments = check_whole("n_segments", n_segments, least=1)
    check_number("compactness", compactness, above=0, most=_MOST)
    check_number("sigma", sigma, least=0, most=_MOST)
    from skimage.segmentation import slic as skimage_slic

    colours = _in_colour(_as_float(image))
    if colours.shape[-1] != 3:  # scikit-image stretches them to 0..1, where Lab has 0..100
        compactness = compactness / _LIGHTNESS
    labels = skimage_slic(
        colours,
        n_segments=n_segments,
        compactness=compactness,
        sigma=sigma,
        start_label=0,
        channel_axis=-1,
    )
    return from_labels(labels)


def slic_near(
    image: ArrayLike, *, n_segments: int = 50, compactness: float = 10.0, sigma: float = 1.0
) -> np.ndarray:
    """Computes SLIC superpixels, asking for more or fewer until about `n_segments` come out.

    It stops within a tenth of the number, or after 8 times with the nearest; there are images,
    such as plain ones, that SLIC does not divide into any number.

    Example:
      >>> lmjax.segments.slic_near(image, n_segments=4).shape
      (16, 16)

    Args:
      image, compactness, sigma: as in `slic`.
      n_segments: number of segments.

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: an image of another shape or type, NaN, colours outside [0, 1], or options that
        are out of range.
    """
    n_segments = check_whole("n_segments", n_segments, least=1)
    options = {"compactness": compactness, "sigma": sigma}
    asked, too_few, too_many = n_segments, 0, np.inf
    nearest, least = None, np.inf
    for _ in range(_MOST_SLIC):
        segments = slic(image, n_segments=asked, **options)
        count = int(segments.max()) + 1
        if abs(count - n_segments) < least:
            nearest, least = segments, abs(count - n_segments)
        if least <= _NEAR * n_segments:
            break
        if count < n_segments:
            too_few = max(too_few, asked)
        else:
            too_many = min(too_many, asked)
        # In proportion, but strictly between what was too few and what was too many.
        asked = max(round(asked * n_segments / count), too_few + 1)
        asked = int(min(asked, too_many - 1, LARGEST["n_segments"]))
        if asked <= too_few:
            break
    assert nearest is not None
    return nearest


def quickshift(
    image: ArrayLike, *, kernel_size: float = 4.0, max_dist: float = 200.0, ratio: float = 0.2
) -> np.ndarray:
    """Computes quickshift segments (Vedaldi & Soatto 2008) with scikit-image.

    The defaults are those of the `lime` package.

    Example:
      >>> lmjax.segments.quickshift(image).shape
      (16, 16)

    Args:
      image: as in `slic`.
      kernel_size: width of the Gaussian that smooths the density, in pixels.
      max_dist: where to cut the tree; higher values give fewer segments.
      ratio: weight of colour against position, 0 to 1.

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: an image of another shape or type, NaN, colours outside [0, 1], or options that
        are out of range.
    """
    check_number("kernel_size", kernel_size, least=1, most=_MOST)
    check_number("max_dist", max_dist, least=0)
    check_number("ratio", ratio, least=0, most=1)
    from skimage.segmentation import quickshift as skimage_quickshift

    image = _in_colour(_as_float(image))
    labels = skimage_quickshift(
        image if image.shape[-1] == 3 else _LIGHTNESS * image,
        kernel_size=kernel_size,  # pyright: ignore[reportArgumentType]
        max_dist=max_dist,  # pyright: ignore[reportArgumentType]
        ratio=ratio,
        convert2lab=image.shape[-1] == 3,
        channel_axis=-1,
        rng=42,  # scikit-image's default, which breaks ties
    )
    return from_labels(labels)


def felzenszwalb(
    image: ArrayLike, *, scale: float = 100.0, sigma: float = 0.5, min_size: int = 50
) -> np.ndarray:
    """Computes Felzenszwalb's graph-based segments (2004) with scikit-image.

    The defaults are those of scikit-image's gallery.

    Example:
      >>> lmjax.segments.felzenszwalb(image, min_size=20).shape
      (16, 16)

    Args:
      image: `[H, W, C]`.
      scale: higher values give larger segments.
      sigma: width of the Gaussian that smooths the image first, in pixels.
      min_size: size of the smallest segment, in pixels.

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: an image of another shape or type, NaN, colours outside [0, 1], or options that
        are out of range.
    """
    check_number("scale", scale, above=0)
    check_number("sigma", sigma, least=0, most=_MOST)
    min_size = check_whole("min_size", min_size, least=0)
    from skimage.segmentation import felzenszwalb as skimage_felzenszwalb

    with warnings.catch_warnings():  # scikit-image suspects that 4 channels are slices of a volume
        warnings.filterwarnings("ignore", "Got image with third dimension", RuntimeWarning)
        labels = skimage_felzenszwalb(
            _as_float(image), scale=scale, sigma=sigma, min_size=min_size, channel_axis=-1
        )
    return from_labels(labels)


def contours(
    heatmap: ArrayLike, *, num_bands: int = 10, by: Literal["area", "value"] = "area"
) -> np.ndarray:
    """Divides an image into bands between the level lines of a saliency map, least salient first.

    Example:
      >>> lmjax.segments.contours(heatmap, num_bands=4).max().item()
      3

    Args:
      heatmap: `[H, W]`, higher = more salient.
      num_bands: largest number of bands. Pixels of equal value share a band, so there may be fewer.
      by: "area" makes bands of equal area, as far as equal values allow; "value" puts the levels at
        equal distances from the lowest to the highest value.

    Returns:
      Segments `[H, W]`, one for each band; bands need not be connected.

    Raises:
      ValueError: a heatmap of another shape or with NaN; options out of range.
    """
    heatmap = check_numbers("heatmap", heatmap)
    if heatmap.ndim != 2 or heatmap.size == 0:
        raise ValueError(f"heatmap must be [H, W], got shape {heatmap.shape}")
    if not np.isfinite(heatmap).all():
        raise ValueError("heatmap holds NaN or infinity")
    num_bands = check_whole("num_bands", num_bands, least=1)
    if check_choice("by", by, ("area", "value")) == "area":
        below = np.searchsorted(np.sort(heatmap, axis=None), heatmap)  # number of lower pixels
        return from_labels(below * num_bands // heatmap.size)
    levels = np.linspace(heatmap.min(), heatmap.max(), num_bands + 1)[1:-1]
    return from_labels(np.searchsorted(levels, heatmap, side="right"))


def boxes(image: ArrayLike, *, point: tuple[int, int] | None = None, size: int = 16) -> np.ndarray:
    """Divides an image into square rings around a point, the innermost first.

    Example:
      >>> lmjax.segments.boxes(image, size=8).shape
      (16, 16)

    Args:
      image: `[H, W, C]`; only its height and width count.
      point: (row, column) of the pixel in the middle; None takes the middle of the image.
      size: width of a ring, in pixels. The innermost box has 2 size - 1 pixels a side.

    Returns:
      Segments `[H, W]`: the pixels within `size` pixels of the point (the larger of the distances
      along rows and along columns counts), the next `size` pixels, and so on to the border.

    Raises:
      ValueError: another shape, a size below 1 or a point beside the image.
    """
    size = check_whole("size", size, least=1, note="pixels")
    height, width = _spatial_shape(image)
    point = (height // 2, width // 2) if point is None else point
    if np.shape(point) != (2,):
        raise ValueError(f"point must be (row, column), got {brief(point)}")
    row, column = check_pair("point", point, least=-(2**62))
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"point must be (row, column) within {(height, width)}, got {brief(point)}"
        )
    down, right = abs(np.arange(height) - row), abs(np.arange(width) - column)
    return from_labels(np.maximum(down[:, None], right[None, :]) // size)


def merge(image: ArrayLike, segments: ArrayLike, *, num_segments: int = 50) -> np.ndarray:
    """Merges neighbouring segments of similar colour, step by step.

    Each step merges the two neighbours whose union adds least to the squared differences of pixels
    from their segment's mean colour (Ward's criterion). The segments for a smaller number are
    therefore unions of those for a larger one: a hierarchy.

    Example:
      >>> lmjax.segments.merge(image, segments, num_segments=2).max().item()
      1

    Args:
      image: `[H, W, C]`.
      segments: `[H, W]` ints, labels 0..S-1, none missing: the finest segments, for example
        `slic(image, n_segments=250)`.
      num_segments: number of segments to return, at most S.

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: what `slic` raises, labels that are missing, or more segments than there are.
    """
    image = _as_float(image)
    segments = check_segments(segments, image.shape[:2])
    sizes = np.bincount(segments.ravel())
    num_segments = check_whole(
        "num_segments", num_segments, least=1, most=len(sizes), note="the segments given"
    )
    pixels = image.reshape(-1, image.shape[-1])
    totals = [np.bincount(segments.ravel(), weights=channel) for channel in pixels.T]
    colours = np.stack(totals, axis=1) / sizes[:, None]
    groups = merge_regions(colours, sizes, _adjacent(segments), num_groups=num_segments)
    return from_labels(groups[segments])


def _adjacent(segments: np.ndarray) -> np.ndarray:
    """Returns which segments share an edge of pixels (or are the same), bool `[S, S]`."""
    adjacent = np.eye(segments.max() + 1, dtype=bool)
    for one, other in ((segments[1:], segments[:-1]), (segments[:, 1:], segments[:, :-1])):
        adjacent[one, other] = adjacent[other, one] = True
    return adjacent


def snap(segments: ArrayLike, size: int) -> np.ndarray:
    """Moves the borders of segments onto a grid of square patches, such as a transformer's tokens.

    A patch goes to the segment that has most of its pixels, of equals to the one of the lowest
    label. A segment that gets no patch vanishes, and the labels of the others close the gap: so no
    more segments are left than there are patches. Token dropping then shows exactly the share of an
    image that its masks show.

    Example:
      >>> segments = lmjax.segments.snap(lmjax.segments.slic(image), classifier.patch_size)

    Args:
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      size: side of a patch, in pixels. Patches at the right and lower border may be smaller.

    Returns:
      Segments `[H, W]`.

    Raises:
      ValueError: labels that are missing, or a size below 1.
    """
    segments = check_segments(segments)
    size = check_whole("size", size, least=1, note="pixels")
    patches = _cross(*(np.arange(length) // size for length in segments.shape))
    both = np.stack([patches.ravel(), segments.ravel()])
    (patch, label), counts = np.unique(both, axis=1, return_counts=True)
    order = np.lexsort((label, -counts, patch))  # in each patch, the most frequent label first
    _, first = np.unique(patch[order], return_index=True)
    return from_labels(label[order][first][patches])


def from_labels(label_map: ArrayLike) -> np.ndarray:
    """Renumbers any map `[H, W]` of ints to labels 0..S-1, in the order of the labels.

    Example:
      >>> lmjax.segments.from_labels([[7, 7], [9, 9]])
      array([[0, 0],
                   [1, 1]], dtype=int32)

    Raises:
      ValueError: a map of another shape, or not of ints.
    """
    labels = np.asarray(label_map)
    _check_label_map(labels, "label_map")
    _, inverse = np.unique(labels, return_inverse=True)
    return inverse.reshape(labels.shape).astype(np.int32)


def check_segments(
    segments: ArrayLike, shape: tuple[int, int] | None = None, name: str = "segments"
) -> np.ndarray:
    """Returns checked segments as int32 `[H, W]`.

    Args:
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      shape: the image's (H, W), where there is one to match.
      name: the argument's name in errors.

    Raises:
      ValueError: another shape, not ints, or labels missing; the text names them.
    """
    labels = np.asarray(segments)
    _check_label_map(labels, name)
    shape = labels.shape if shape is None else check_pair("shape", shape)
    if labels.shape != shape:
        raise ValueError(f"{name} must be {shape} like the image, got shape {labels.shape}")
    renumber = "renumber them: lmjax.segments.from_labels(label_map)"
    if labels.min() < 0:
        raise ValueError(f"{name} must hold labels from 0, got {labels.min()}; {renumber}")
    present = np.unique(labels)
    if present[-1] != len(present) - 1:
        missing = np.setdiff1d(np.arange(min(present[-1], labels.size + _NAMED_LABELS)), present)
        named = ", ".join(map(str, missing[:_NAMED_LABELS]))
        more = ", ..." if len(missing) > _NAMED_LABELS else ""
        raise ValueError(
            f"{name} must hold every label from 0 to {present[-1]}, missing {named}{more}; "
            f"{renumber}"
        )
    return labels.astype(np.int32)


def _check_label_map(labels: np.ndarray, name: str) -> None:
    """Raises ValueError unless labels are ints `[H, W]`."""
    if labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"{name} must be [H, W], got shape {labels.shape}")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"{name} must hold ints, got dtype {labels.dtype}")


def _in_colour(image: np.ndarray) -> np.ndarray:
    """Returns a grey image with 3 equal channels, and others as they are."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def _spatial_shape(image: ArrayLike) -> tuple[int, int]:
    """Returns an image's height and width; raises ValueError for other shapes."""
    shape = np.shape(image)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"image must be [H, W, C], got shape {shape}")
    return shape[0], shape[1]


def _as_float(image: ArrayLike) -> np.ndarray:
    """Returns a checked image as floats in [0, 1]."""
    image = np.asarray(image)
    _spatial_shape(image)
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    if image.dtype.kind != "f":
        raise ValueError(f"image must be float in [0, 1] or uint8, got dtype {image.dtype}")
    if not np.isfinite(image).all():
        raise ValueError(
            "image holds NaN or infinity and cannot be segmented; fill them in first, or give "
            "your own label map: lmjax.segments.from_labels(label_map)"
        )
    if image.min() < -1e-5 or image.max() > 1 + 1e-5:
        raise ValueError(
            f"image must be float in [0, 1] or uint8, got values from {image.min():g} to "
            f"{image.max():g}; divide 0..255 by 255"
        )
    return image


for _segmenter in (slic, grid, quickshift, felzenszwalb, slic_near):
    _name = _segmenter.__name__
    _description = (_segmenter.__doc__ or _name).splitlines()[0]
    _REGISTRY.register(_name, _segmenter, description=_description, builtin=True)
