"""What an attribution method returns."""

import dataclasses

import jax
import numpy as np

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """Scores of the segments of an image for one class `[S]`, or for T classes `[T, S]`.

    Attributes:
      scores: float32 `[S]` or `[T, S]`: how much a segment's presence raises the target's output.
      segments: int32 `[H, W]`, the segments' labels.
      intercept: scalar or `[T]`, the surrogate's output with everything hidden.
      r2: scalar or `[T]`, weighted R^2 of the surrogate on its own samples, at most 1.
      probability: scalar or `[T]`, of the target on the whole image.
      predicted_probability: of the predicted class.
      target: the class explained, or the T classes.
      predicted_class: the class with the highest logit on the whole image.
      num_variants: how many variants were evaluated.
    """

    scores: np.ndarray
    segments: np.ndarray
    intercept: np.ndarray
    r2: np.ndarray
    probability: np.ndarray
    predicted_probability: np.ndarray
    target: int | tuple[int, ...] = dataclasses.field(metadata=_STATIC)
    predicted_class: int = dataclasses.field(metadata=_STATIC)
    num_variants: int = dataclasses.field(metadata=_STATIC)

    @property
    def heatmap(self) -> np.ndarray:
        """Scores painted on their segments, `[H, W]` or `[T, H, W]`."""
        return self.scores[..., self.segments]
