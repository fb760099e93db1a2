"""Attribution, the result of every attribution method."""

import dataclasses
from typing import Any

import jax
import numpy as np

from lmjax._utils.summary import summarize

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """Scores of the segments of an image, or of its pixels, for one class or for T classes.

    Attributes:
      scores: float32 `[S]` or `[T, S]`, how strongly a segment supports the target; `[H, W]` or
        `[T, H, W]` from methods that score pixels.
      target: the class explained, or the T classes; where the objective is a function, None, or for
        M values their numbers.
      probability: scalar or `[T]`, of the target on the whole image; NaN where the objective is a
        function, as in what follows.
      predicted_class: the class with the highest logit on the whole image; None.
      predicted_probability: of the predicted class; NaN.
      num_variants: number of variants that were evaluated.
      segments: int32 `[H, W]`, the segments' labels; None where pixels are scored.
      standard_error: of the scores, in their shape, from methods that sample; else None.
      intercept: scalar or `[T]`, a surrogate's output with everything hidden; else None.
      r2: scalar or `[T]`, cross-validated R^2 of a surrogate, at most 1; NaN where outputs do not
        vary or samples are too few for the segments; None from other methods.
      samples: the state from which methods that sample continue, as `previous=` of a later call;
        else None.
    """

    scores: np.ndarray
    target: int | tuple[int, ...] | None = dataclasses.field(metadata=_STATIC)
    probability: np.ndarray
    predicted_class: int | None = dataclasses.field(metadata=_STATIC)
    predicted_probability: np.ndarray
    num_variants: int = dataclasses.field(metadata=_STATIC)
    segments: np.ndarray | None = None
    standard_error: np.ndarray | None = None
    intercept: np.ndarray | None = None
    r2: np.ndarray | None = None
    samples: Any = None

    @property
    def heatmap(self) -> np.ndarray:
        """Scores of pixels, those of their segments: `[H, W]` or `[T, H, W]`."""
        return self.scores if self.segments is None else self.scores[..., self.segments]

    def __repr__(self) -> str:
        names = ("scores", "target", "probability", "num_variants")
        fields = [f"{name}={summarize(getattr(self, name))}" for name in names]
        if self.segments is not None:
            fields.append(f"segments={list(np.shape(self.segments))}")
        return f"Attribution({', '.join(fields)})"
