"""What a removal shows a network where nothing of an image is visible."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax.evaluation.evaluator import Evaluator, as_predictor
from lmjax.evaluation.jobs import Static, split
from lmjax.evaluation.predictor import Predictor
from lmjax.removals.calibration import uncalibrated
from lmjax.removals.removal import declared


def pictures_of_nothing(predictor: Callable | Evaluator, image: ArrayLike) -> np.ndarray | None:
    """Returns the pictures that a removal shows a network in the place of a hidden image.

    Args:
      predictor: a predictor or an `lmjax.Evaluator`.
      image: `[H, W, C]` in [0, 1], of which removals such as blurs are made.

    Returns:
      float32 `[D, H, W, C]` in [0, 1], D the draws of a removal that averages over several; None
      where none is shown: under removals inside the network, and for a predictor without removal.
    """
    predictor = as_predictor(predictor)
    removal, classifier = (getattr(predictor, name, None) for name in ("removal", "classifier"))
    removal = uncalibrated(removal)
    if removal is None or declared(removal, "where") != "input":
        return None
    preprocessing = getattr(classifier, "preprocessing", None)
    arrays, static = split(Predictor(_Echo(preprocessing), removal))
    image = np.array(image, np.float32)
    return np.asarray(_paint(arrays, image, static=static)).reshape(-1, *image.shape)


@dataclasses.dataclass(frozen=True)
class _Echo:
    """A classifier whose logits are the pictures that it is given."""

    preprocessing: Any

    def normalise(self, images: jax.Array) -> jax.Array:
        return images

    def apply(self, images: jax.Array, masks: jax.Array | None = None) -> jax.Array:
        return images.reshape(len(images), -1)


@bounded_jit(static_argnames="static")
def _paint(arrays: list[jax.Array], image: jax.Array, *, static: Static) -> jax.Array:
    """Returns the pictures `[D, 1, H W C]`, or `[1, H W C]` of a removal without draws."""
    predictor: Any = static.predictor(arrays)
    nothing = jnp.zeros((1, *image.shape[:2]), bool)
    answers = getattr(predictor.removal, "answers", predictor.removal.logits)
    return answers(predictor.classifier, image, nothing)
