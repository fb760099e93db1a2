"""Robustness: how much a map changes with the image, and whether it depends on the class."""

import math
from collections.abc import Callable

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_function, check_number, check_whole
from lmjax._utils.keys import check_key
from lmjax.evaluation.many_images import over_images
from lmjax.masking.checks import check_colours, check_image
from lmjax.metrics.agreement import spearman
from lmjax.metrics.ranked_regions import map_of


@over_images
def max_sensitivity(
    explain: Callable[[np.ndarray], ArrayLike],
    image: ArrayLike,
    *,
    key: jax.Array,
    radius: float = 0.02,
    num_samples: int = 10,
) -> float:
    """Computes the largest relative change of a map among images that are close; lower is better.

    The change is ||map(x') - map(x)|| / ||map(x)|| in the Euclidean norm. Images x' differ from the
    image by up to `radius` in each colour, uniformly, and stay within [0, 1].

    Cost: `num_samples` + 1 explanations.

    Example:
      >>> def explain(image):
      ...     return lmjax.attribution.leave_one_out(predictor, image, segments, target=1).heatmap
      >>> lmjax.metrics.max_sensitivity(explain, image, key=key) > 0
      True

    Args:
      explain: image `[H, W, C]` -> heatmap. Fix its target and key, or their change counts too.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      key: random key of the images.
      radius: above 0; 0.02 is Captum's.
      num_samples: images, each of which is explained; 10 are Captum's.

    Returns:
      0 or more; NaN where the image's own map is 0 everywhere.

    Raises:
      ValueError: numbers out of range, maps with NaN or of different shapes, and all that `explain`
        raises.

    References:
      Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations" (arXiv 1901.09392),
      definition 2, divided by the map's norm as in Captum's `sensitivity_max`.
    """
    own, changes, _ = _changes(explain, image, key, radius, num_samples)
    return float(changes.max() / own) if own > 0 else float("nan")


@over_images
def local_lipschitz(
    explain: Callable[[np.ndarray], ArrayLike],
    image: ArrayLike,
    *,
    key: jax.Array,
    radius: float = 0.02,
    num_samples: int = 10,
) -> float:
    """Computes the largest change of a map over that of the image; lower is better.

    The ratio ||map(x') - map(x)|| / ||x' - x|| in the Euclidean norm, over images drawn as in
    `max_sensitivity`. Its unit is that of the map.

    Cost: `num_samples` + 1 explanations.

    Example:
      >>> explain = lambda image: image.mean(axis=-1)
      >>> round(lmjax.metrics.local_lipschitz(explain, image, key=key), 1) > 0
      True

    Args:
      explain, image, key, radius, num_samples: as in `max_sensitivity`.

    Returns:
      0 or more; a lower bound of the largest ratio around the image. NaN where no image that was
      drawn differs from it in float32.

    Raises:
      ValueError: as `max_sensitivity`.

    References:
      Alvarez-Melis & Jaakkola 2018, "On the robustness of interpretability methods" (arXiv
      1806.08049), equation 2, with a sampled maximum.
    """
    _, changes, distances = _changes(explain, image, key, radius, num_samples)
    moved = distances > 0
    return float((changes[moved] / distances[moved]).max()) if moved.any() else math.nan


def random_logit(
    explain: Callable[[int], ArrayLike],
    target: int,
    *,
    key: jax.Array,
    num_classes: int,
    similarity: Callable[[np.ndarray, np.ndarray], float] = spearman,
) -> float:
    """Compares the map of a class with that of another one, drawn at random; lower is better.

    A map that is the same for every class explains none of them.

    Cost: two explanations.

    Example:
      >>> explain = lambda target: heatmap if target == 1 else -heatmap
      >>> round(lmjax.metrics.random_logit(explain, 1, key=key, num_classes=2), 2)
      -1.0

    Args:
      explain: class -> heatmap.
      target: the class that was explained.
      key: random key of the other class.
      num_classes: 2 or more.
      similarity: of two maps, such as `lmjax.metrics.ssim`, which Quantus takes.

    Returns:
      The similarity.

    Raises:
      ValueError: a class out of range, maps with NaN or infinity, and all that `explain` and
        `similarity` raise.

    References:
      Sixt, Granz & Landgraf 2020, "When explanations lie" (arXiv 1912.09818), section 5.
    """
    check_function("explain", explain, "(target) -> heatmap")
    check_function("similarity", similarity, "(map, map) -> number")
    check_key(key)
    num_classes = check_whole("num_classes", num_classes, least=2)
    target = check_whole("target", target, least=0, most=num_classes - 1)
    step = int(jax.random.randint(key, (), 1, num_classes, np.int32))
    other = (target + step) % num_classes
    return float(similarity(map_of(explain, target), map_of(explain, other)))


def _changes(
    explain: Callable[[np.ndarray], ArrayLike],
    image: ArrayLike,
    key: jax.Array,
    radius: float,
    num_samples: int,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Explains an image and others near it.

    Returns:
      The norm of the image's map, and float64 `[N]` distances of maps and of images from its own.
    """
    check_function("explain", explain, "(image) -> heatmap")
    check_image(image)
    check_colours(image)
    check_key(key)
    radius = check_number("radius", radius, above=0, most=1)
    num_samples = check_whole("num_samples", num_samples, least=1)
    image = np.asarray(image, np.float32)
    noise = jax.random.uniform(key, (num_samples, *image.shape), np.float32, -radius, radius)
    others = np.clip(image + np.asarray(noise), 0, 1)
    own = map_of(explain, image)
    maps = [map_of(explain, other) for other in others]
    if any(each.shape != own.shape for each in maps):
        raise ValueError(
            f"explain must give maps of one shape, got {sorted({each.shape for each in maps})} and "
            f"{own.shape}"
        )
    changes = np.array([np.linalg.norm(each - own) for each in maps])
    distances = np.linalg.norm((others - image).reshape(num_samples, -1).astype(np.float64), axis=1)
    return float(np.linalg.norm(own)), changes, distances
