"""Segments: label maps `[H, W]` int32 with labels 0..S-1, none missing.

Images are `[H, W, C]`, float in [0, 1] or uint8, any number of channels. All segmenters are
deterministic.
"""

import warnings

import numpy as np

_NAMED_LABELS = 5


def grid(image, *, size: int = 16) -> np.ndarray:
    """Squares of `size` pixels, row by row; the last ones of a row or column may be smaller.

    Args:
      image: `[H, W, C]`; only its height and width count.
      size: side of a square, in pixels.

    Returns:
      Segments `[H, W]`.
    """
    if size < 1 or size != int(size):
        raise ValueError(f"size must be a whole number of pixels, 1 or more, got {size!r}")
    height, width = _as_float(image).shape[:2]
    rows = np.arange(height) // int(size)
    columns = np.arange(width) // int(size)
    return (rows[:, None] * (columns[-1] + 1) + columns[None, :]).astype(np.int32)


def slic(
    image, *, n_segments: int = 50, compactness: float = 10.0, sigma: float = 1.0
) -> np.ndarray:
    """SLIC superpixels (Achanta et al. 2012), by scikit-image.

    Args:
      image: `[H, W, C]`.
      n_segments: about how many segments.
      compactness: the higher, the squarer the segments.
      sigma: width of the Gaussian that smooths the image first, in pixels.

    Returns:
      Segments `[H, W]`.
    """
    if n_segments < 1:
        raise ValueError(f"n_segments must be 1 or more, got {n_segments!r}")
    from skimage.segmentation import slic as skimage_slic

    labels = skimage_slic(
        _as_float(image),
        n_segments=n_segments,
        compactness=compactness,
        sigma=sigma,
        start_label=0,
        channel_axis=-1,
    )
    return from_labels(labels)


def quickshift(
    image, *, kernel_size: float = 4.0, max_dist: float = 200.0, ratio: float = 0.2
) -> np.ndarray:
    """Quickshift (Vedaldi & Soatto 2008), by scikit-image, with the defaults of the `lime` package.

    Args:
      image: `[H, W, C]`.
      kernel_size: width of the Gaussian that smooths the density, in pixels.
      max_dist: where to cut the tree: the higher, the fewer segments.
      ratio: weight of colour against position, 0 to 1.

    Returns:
      Segments `[H, W]`.
    """
    from skimage.segmentation import quickshift as skimage_quickshift

    image = _as_float(image)
    labels = skimage_quickshift(
        image,
        kernel_size=kernel_size,
        max_dist=max_dist,
        ratio=ratio,
        convert2lab=image.shape[-1] == 3,
        channel_axis=-1,
        rng=42,  # scikit-image's default, which breaks ties
    )
    return from_labels(labels)


def felzenszwalb(
    image, *, scale: float = 100.0, sigma: float = 0.5, min_size: int = 50
) -> np.ndarray:
    """Felzenszwalb's graph-based segments (2004), by scikit-image, with its gallery's settings.

    Args:
      image: `[H, W, C]`.
      scale: the higher, the larger the segments.
      sigma: width of the Gaussian that smooths the image first, in pixels.
      min_size: smallest segment, in pixels.

    Returns:
      Segments `[H, W]`.
    """
    from skimage.segmentation import felzenszwalb as skimage_felzenszwalb

    with warnings.catch_warnings():  # it wonders whether 4 channels are 4 slices; they are not
        warnings.filterwarnings("ignore", "Got image with third dimension", RuntimeWarning)
        labels = skimage_felzenszwalb(
            _as_float(image), scale=scale, sigma=sigma, min_size=min_size, channel_axis=-1
        )
    return from_labels(labels)


def from_labels(label_map) -> np.ndarray:
    """Segments from any map `[H, W]` of ints, renumbered 0..S-1 in the order of the labels."""
    labels = np.asarray(label_map)
    _check_label_map(labels, "label_map")
    _, inverse = np.unique(labels, return_inverse=True)
    return inverse.reshape(labels.shape).astype(np.int32)


def check_segments(segments, shape: tuple[int, int] | None = None, name: str = "segments"):
    """Checked segments as int32 `[H, W]`.

    Args:
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      shape: the image's (H, W), where there is one to match.
      name: the argument's name in errors.

    Raises:
      ValueError: another shape, not ints, or labels missing; the text names them.
    """
    labels = np.asarray(segments)
    _check_label_map(labels, name)
    if shape is not None and labels.shape != tuple(shape):
        raise ValueError(f"{name} must be {tuple(shape)} like the image, got shape {labels.shape}")
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
    if labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"{name} must be [H, W], got shape {labels.shape}")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"{name} must hold ints, got dtype {labels.dtype}")


def _as_float(image) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.size == 0:
        raise ValueError(f"image must be [H, W, C], got shape {image.shape}")
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
