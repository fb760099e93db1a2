"""A few variants of an image as the network was shown them, and its answers."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.probabilities import probabilities
from lmjax.attribution.methods import WHOLE
from lmjax.evaluation import Evaluator
from lmjax.evaluation.jobs import Static, split
from lmjax.masking.patches import whole_patches
from lmjax.masks import Coalitions, random_keep
from lmjax.removals.calibration import uncalibrated
from lmjax.removals.removal import declared


class Variant(NamedTuple):
    """One variant of the image under each removal.

    Attributes:
      mask: `[H, W]` bool, True = visible.
      num_hidden: number of segments that are hidden.
      pictures: by removal, `[H, W, C]` in [0, 1]; NaN where hidden pixels are not replaced, and
        under token dropping in all of a patch that the mask cuts.
      probabilities: by removal, those of all classes, `[K]`.
    """

    mask: np.ndarray
    num_hidden: int
    pictures: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]


def show(
    count: int,
    image: np.ndarray,
    segments: np.ndarray,
    evaluators: Mapping[str, Evaluator],
    *,
    key: jax.Array,
) -> tuple[np.ndarray, tuple[Variant, ...]]:
    """Evaluates the whole image and a few variants, the first ones that LIME draws with the key.

    Args:
      count: number of variants, 0 or more.
      image: `[H, W, C]` in [0, 1].
      segments: `[H, W]`.
      evaluators: by removal; one that removes nothing is called `WHOLE`.
      key: of the draws.

    Returns:
      whole: logits `[K]` of the whole image.
      variants: in the order of LIME's draws.
    """
    keep = np.asarray(random_keep(int(segments.max()) + 1, 1 + count, key=key))
    family = Coalitions(segments, keep)
    masks = np.asarray(family.masks(), bool)
    logits, pictures = {}, {}
    for name, evaluator in evaluators.items():
        if name == WHOLE:  # nothing is hidden
            logits[name] = np.repeat(evaluator(image, masks[:1]), len(masks), axis=0)
            pictures[name] = np.repeat(image[None], len(masks), axis=0)
        else:
            logits[name] = evaluator(image, family)
            pictures[name] = painted(evaluator.predictor, image, masks)
    variants = [
        Variant(
            masks[i],
            int((~keep[i]).sum()),
            {name: pictures[name][i] for name in evaluators},
            {name: np.asarray(probabilities(logits[name][i])) for name in evaluators},
        )
        for i in range(1, len(masks))
    ]
    return next(iter(logits.values()))[0], tuple(variants)


def painted(predictor: Any, image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns the pictures that the network is given, with NaN where it is given none."""
    removal = uncalibrated(predictor.removal)
    if declared(removal, "where") == "input" and callable(getattr(removal, "paint", None)):
        arrays, static = split(dataclasses.replace(predictor, removal=removal))
        return np.asarray(_paint(arrays, image, masks, static=static))
    if predictor.patch_size is not None:  # the rest of a patch is not read either
        masks = whole_patches(masks, predictor.patch_size)
    return np.where(masks[..., None], image, np.nan)


@bounded_jit(static_argnames="static")
def _paint(arrays: list, image: jax.Array, masks: jax.Array, *, static: Static) -> jax.Array:
    predictor: Any = static.predictor(arrays)
    return predictor.removal.paint(image, masks, predictor.classifier.preprocessing.mean)
