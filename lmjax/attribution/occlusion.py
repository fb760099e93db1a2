"""Occlusion: what changes when one part of the image is hidden, or when it alone is shown."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jax.sharding import Mesh

from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import answer
from lmjax.masking.checks import check_image
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.families import Windows, weighted_sum
from lmjax.masks.segments import check_segments

OVERLAPS = ("mean", "sum")


def occlusion(
    predictor: Callable,
    image,
    *,
    size: int | tuple[int, int] = 16,
    stride: int | tuple[int, int] | None = None,
    overlaps: str = "mean",
    target: int | Sequence[int] | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Scores of pixels: by how much the output falls when a window over them is hidden.

    The first window lies in the upper left corner, the others follow in steps of `stride` until the
    image is covered; the last of a row or column may reach over the border. So does Captum's
    Occlusion, whose mean over overlaps is the default here; Xplique's sums, and leaves out windows
    that reach over the border.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      size: of the windows, in pixels: a side, or (height, width).
      stride: step from window to window, at most `size`. None takes half the size, rounded up;
        `stride=size` hides every pixel once (single patches), Captum's default is 1.
      overlaps: "mean" or "sum" of the effects of all windows over a pixel.
      target: class or classes to explain; None explains the predicted class. Several cost no more
        evaluations than one.
      output: what to explain: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: options out of range, target not a class of the network, non-finite outputs, and
        all that `lmjax.evaluate` raises.

    References:
      Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks" (arXiv
      1311.2901), section 4.2. Size and stride are ours: the literature has no usual ones.
    """
    check_image(image)
    if overlaps not in OVERLAPS:
        raise ValueError(f"overlaps must be one of {', '.join(OVERLAPS)}; got {overlaps!r}")
    windows = sliding_windows(np.shape(image)[:2], size, stride)
    answers = answer(
        predictor,
        image,
        windows,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )
    effects = (answers.whole - answers.values).reshape(len(windows), -1)
    scores = effects_of_pixels(windows, effects, overlaps)
    return Attribution(
        scores=scores.reshape(*answers.whole.shape, *windows.spatial_shape),
        num_variants=len(windows) + 1,
        **answers.about(),
    )


def sliding_windows(
    shape: tuple[int, int],
    size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
) -> Windows:
    """The windows of `occlusion`, for an image of (H, W).

    Raises:
      ValueError: a size or stride out of range.
    """
    size = _pair("size", size, shape, "the image's height and width")
    stride = tuple(-(-n // 2) for n in size) if stride is None else stride
    stride = _pair("stride", stride, size, "the size, or pixels are left out")
    return Windows(shape, _corners(shape, size, stride), size)


def effects_of_pixels(windows: Windows, effects: np.ndarray, overlaps: str = "mean") -> np.ndarray:
    """The scores of `occlusion`: `[T, H, W]`, from the windows' effects `[N, T]`."""
    inside = dataclasses.replace(windows, keep_inside=True)
    *totals, count = weighted_sum(inside, np.c_[effects, np.ones(len(effects))])
    return np.stack(totals) / (count if overlaps == "mean" else 1)


def leave_one_out(
    predictor: Callable,
    image,
    segments,
    *,
    target: int | Sequence[int] | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Scores of segments: by how much the output falls when the segment alone is hidden.

    Captum's FeatureAblation with segments as its feature mask.

    Args:
      predictor, image, target, output, batch_size, progress, engine, mesh: as in `occlusion`.
      segments: `[H, W]` ints, labels 0..S-1, none missing.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several.

    Raises:
      ValueError: as `occlusion`, segments of another shape, or more than memory allows.
    """
    segments, num_segments = _check(image, segments)
    answers = answer(
        predictor,
        image,
        Coalitions(segments, ~np.eye(num_segments, dtype=bool)),
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )
    return Attribution(
        scores=(answers.whole - answers.values).T,
        segments=segments,
        num_variants=num_segments + 1,
        **answers.about(),
    )


def leave_one_in(
    predictor: Callable,
    image,
    segments,
    *,
    target: int | Sequence[int] | None = None,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> Attribution:
    """Scores of segments: by how much the output rises when the segment alone is shown.

    It is counted from the output with everything hidden (the baseline under `lmjax.Replace`, the
    classifier's bias under `lmjax.LayerMasking`), which is the result's `intercept`: so the output
    with the segment alone is score + intercept.

    Args:
      predictor, image, target, output, batch_size, progress, engine, mesh: as in `occlusion`.
      segments: `[H, W]` ints, labels 0..S-1, none missing.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several, and the intercept.

    Raises:
      ValueError: as `occlusion`, segments of another shape, or more than memory allows.
    """
    segments, num_segments = _check(image, segments)
    keep = np.eye(num_segments + 1, num_segments, k=-1, dtype=bool)  # the first shows nothing
    answers = answer(
        predictor,
        image,
        Coalitions(segments, keep),
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )
    nothing, *alone = answers.values
    return Attribution(
        scores=(np.stack(alone) - nothing).T,
        segments=segments,
        intercept=nothing,
        num_variants=num_segments + 2,
        **answers.about(),
    )


def _check(image, segments) -> tuple[np.ndarray, int]:
    check_image(image)
    segments = check_segments(segments, np.shape(image)[:2])
    num_segments = int(segments.max()) + 1
    check_memory(2 * num_segments**2, num_segments, num_segments)
    return segments, num_segments


def _pair(name: str, value, limit: tuple[int, int], what: str) -> tuple[int, int]:
    """An int or two, as two, each from 1 up to its limit."""
    pair = np.broadcast_to(value, 2) if np.size(value) in (1, 2) else np.zeros(1)
    if pair.dtype.kind not in "iu" or (pair < 1).any() or (pair > limit).any():
        raise ValueError(
            f"{name} must be a whole number or two, from 1 to {limit[0]} and {limit[1]} ({what}); "
            f"got {value!r}"
        )
    return int(pair[0]), int(pair[1])


def _corners(shape: tuple[int, int], size: tuple[int, int], stride: tuple[int, int]) -> np.ndarray:
    """`[N, 2]`: upper left corners of windows that cover the image."""
    starts = [
        np.arange(math.ceil((length - window) / step) + 1) * step
        for length, window, step in zip(shape, size, stride)
    ]
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)
