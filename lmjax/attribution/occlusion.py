"""Occlusion: the effect of hiding one part of the image, or of showing it alone."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_choice, check_pair
from lmjax._utils.renamed import renamed
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.game import Game
from lmjax.attribution.record import recorded
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.families import Windows, weighted_sum

OVERLAPS = ("mean", "sum")


@renamed(output="objective")
@over_images
@recorded
def occlusion(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    size: int | tuple[int, int] = 16,
    stride: int | tuple[int, int] | None = None,
    overlaps: str = "mean",
    target: int | Sequence[int] | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Scores pixels by how much the output falls when a window over them is hidden.

    The first window lies in the upper left corner, the others follow in steps of `stride` until the
    image is covered; the last of a row or column may reach over the border. Captum's Occlusion does
    the same and takes the mean over overlaps, the default here; Xplique takes sums, and leaves out
    windows that reach over the border.

    Cost: an evaluation of each window, and one of the whole image.

    Example:
      >>> found = lmjax.attribution.occlusion(predictor, image, size=8, stride=4)
      >>> found.scores.shape, found.num_variants
      ((16, 16), 10)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      size: of the windows, in pixels: a side, or (height, width).
      stride: step from window to window, at most `size`. None takes half the size, rounded up;
        `stride=size` hides every pixel once (single patches), Captum's default is 1.
      overlaps: "mean" or "sum" of the effects of all windows over a pixel.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several.

    Raises:
      ValueError: options out of range, target not a class of the network, non-finite outputs, and
        all that `lmjax.evaluate` raises.

    References:
      Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks" (arXiv
      1311.2901), section 4.2. Size and stride are ours: the literature has no standard ones.
    """
    game = Game(predictor, image, target=target, objective=objective)
    check_choice("overlaps", overlaps, OVERLAPS)
    windows = sliding_windows(game.shape, size, stride)
    payoffs = yield from game.ask(windows)
    effects = (payoffs.whole - payoffs.values).reshape(len(windows), -1)
    scores = effects_of_pixels(windows, effects, overlaps)
    return Attribution(
        scores=scores.reshape(*payoffs.whole.shape, *windows.spatial_shape),
        num_variants=len(windows) + 1,
        **payoffs.prediction._asdict(),
    )


def sliding_windows(
    shape: tuple[int, int],
    size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
) -> Windows:
    """Returns the windows of `occlusion` for an image of (H, W).

    Raises:
      ValueError: a size or stride out of range.
    """
    size = check_pair("size", size, most=shape, note="the image's height and width")
    stride = (-(-size[0] // 2), -(-size[1] // 2)) if stride is None else stride
    stride = check_pair("stride", stride, most=size, note="the size, or pixels are left out")
    return Windows(shape, _corners(shape, size, stride), size)


def effects_of_pixels(windows: Windows, effects: np.ndarray, overlaps: str = "mean") -> np.ndarray:
    """Returns the scores of `occlusion`, `[T, H, W]`, from the windows' effects `[N, T]`."""
    inside = dataclasses.replace(windows, keep_inside=True)
    *totals, count = weighted_sum(inside, np.c_[effects, np.ones(len(effects))])
    return np.stack(totals) / (count if overlaps == "mean" else 1)


@renamed(output="objective")
@over_images
@recorded
def leave_one_out(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    segments: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Scores segments by how much the output falls when the segment alone is hidden.

    Equals Captum's FeatureAblation with segments as its feature mask.

    Cost: S + 1 evaluations.

    Example:
      >>> found = lmjax.attribution.leave_one_out(predictor, image, segments)
      >>> found.scores.shape, found.num_variants
      ((4,), 5)

    Args:
      predictor, image, target, objective: as in `occlusion`.
      segments: `[H, W]` ints, labels 0..S-1, none missing.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several.

    Raises:
      ValueError: as `occlusion`, segments of another shape, or more than memory allows.
    """
    game = _game_of_segments(predictor, image, segments, target=target, objective=objective)
    payoffs = yield from game.ask(Coalitions(game.labels, ~np.eye(game.num_segments, dtype=bool)))
    return Attribution(
        scores=(payoffs.whole - payoffs.values).T,
        segments=game.labels,
        num_variants=game.num_segments + 1,
        **payoffs.prediction._asdict(),
    )


@renamed(output="objective")
@over_images
@recorded
def leave_one_in(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    segments: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Scores segments by how much the output rises when the segment alone is shown.

    The rise starts from the output with everything hidden (the baseline under `lmjax.Replace`, the
    classifier's bias under `lmjax.LayerMasking`), which is the result's `intercept`: the output
    with the segment alone is score + intercept.

    Cost: S + 2 evaluations.

    Example:
      >>> found = lmjax.attribution.leave_one_in(predictor, image, segments)
      >>> found.scores.shape, found.num_variants
      ((4,), 6)

    Args:
      predictor, image, target, objective: as in `occlusion`.
      segments: `[H, W]` ints, labels 0..S-1, none missing.

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several, and the intercept.

    Raises:
      ValueError: as `occlusion`, segments of another shape, or more than memory allows.
    """
    game = _game_of_segments(predictor, image, segments, target=target, objective=objective)
    count = game.num_segments
    keep = np.eye(count + 1, count, k=-1, dtype=bool)  # the first coalition is empty
    payoffs = yield from game.ask(Coalitions(game.labels, keep))
    empty, *alone = payoffs.values
    return Attribution(
        scores=(np.stack(alone) - empty).T,
        segments=game.labels,
        intercept=empty,
        num_variants=count + 2,
        **payoffs.prediction._asdict(),
    )


def _game_of_segments(
    predictor: Callable | Evaluator, image: ArrayLike, segments: ArrayLike, **options: Any
) -> Game:
    """Returns a game whose coalitions, one for each segment, fit into memory."""
    game = Game(predictor, image, segments, **options)
    check_memory(2 * game.num_segments**2, game.num_segments, game.num_segments)
    return game


def _corners(shape: tuple[int, int], size: tuple[int, int], stride: tuple[int, int]) -> np.ndarray:
    """Returns the upper left corners `[N, 2]` of windows that cover the image."""
    starts = [
        np.arange(math.ceil((length - window) / step) + 1) * step
        for length, window, step in zip(shape, size, stride)
    ]
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)
