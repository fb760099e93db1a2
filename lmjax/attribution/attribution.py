"""What an attribution method returns."""

import dataclasses
from typing import Any

import jax
import numpy as np

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """Scores of the segments of an image, or of its pixels, for one class or for T classes.

    Attributes:
      scores: float32 `[S]` or `[T, S]`, how much a segment speaks for the target; for methods that
        score pixels `[H, W]` or `[T, H, W]`.
      target: the class explained, or the T classes.
      probability: scalar or `[T]`, of the target on the whole image.
      predicted_class: the class with the highest logit on the whole image.
      predicted_probability: of the predicted class.
      num_variants: how many variants were evaluated.
      segments: int32 `[H, W]`, the segments' labels; None where pixels are scored.
      standard_error: of the scores, in their shape, from methods that sample; else None.
      intercept: scalar or `[T]`, a surrogate's output with everything hidden; else None.
      r2: scalar or `[T]`, weighted R^2 of a surrogate on its own samples, at most 1; else None.
      samples: what methods that sample go on from, as `previous=` of a later call; else None.
    """

    scores: np.ndarray
    target: int | tuple[int, ...] = dataclasses.field(metadata=_STATIC)
    probability: np.ndarray
    predicted_class: int = dataclasses.field(metadata=_STATIC)
    predicted_probability: np.ndarray
    num_variants: int = dataclasses.field(metadata=_STATIC)
    segments: np.ndarray | None = None
    standard_error: np.ndarray | None = None
    intercept: np.ndarray | None = None
    r2: np.ndarray | None = None
    samples: Any = None

    @property
    def heatmap(self) -> np.ndarray:
        """Scores of pixels: those of their segments; `[H, W]` or `[T, H, W]`."""
        return self.scores if self.segments is None else self.scores[..., self.segments]
