"""Attribution, the result of every attribution method."""

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.summary import summarize
from lmjax.attribution.record import Record
from lmjax.attribution.saved import Saved

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Attribution(Saved):
    """Scores of the segments of an image, or of its pixels, for one class or for T classes.

    Attributes:
      scores: float32 `[S]` or `[T, S]`, how strongly a segment supports the target; `[H, W]` or
        `[T, H, W]` from methods that score pixels.
      target: the class explained, or the T classes; where the objective is a function, None, or for
        M values their numbers.
      probability: scalar or `[T]`, of the target on the whole image; NaN where the objective is a
        function.
      predicted_class: the class with the highest logit on the whole image; None where the objective
        is a function.
      predicted_probability: of the predicted class; NaN where there is none.
      num_variants: number of variants that were evaluated.
      segments: int32 `[H, W]`, the segments' labels; None where pixels are scored.
      standard_error: of the scores, in their shape, from methods that sample; else None.
      intercept: scalar or `[T]`, a surrogate's output with everything hidden; else None.
      r2: scalar or `[T]`, cross-validated R^2 of a surrogate, at most 1; NaN where outputs do not
        vary or samples are too few for the segments; None from other methods.
      samples: the state from which methods that sample continue, as `previous=` of a later call;
        else None.
      record: how it was made: method, network, removal, settings, key, versions.
    """

    KIND: ClassVar[str] = "attribution"

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
    record: Record | None = dataclasses.field(default=None, metadata=_STATIC)

    @property
    def heatmap(self) -> np.ndarray:
        """Scores of pixels, those of their segments: `[H, W]` or `[T, H, W]`."""
        return self.scores if self.segments is None else self.scores[..., self.segments]

    def plot(self, *, image: ArrayLike | None = None, ax: Any = None) -> Any:
        """Draws the heatmap of one target; returns matplotlib's axes.

        Args:
          image: `[H, W, C]` in [0, 1], to draw under it.
          ax: axes to draw on; None makes a figure.

        Raises:
          ValueError: several targets; take `attribution.heatmap[t]` and `lmjax.plots.heatmap`.
        """
        from lmjax import plots

        if isinstance(self.target, tuple):
            raise ValueError(
                f"this attribution has {len(self.target)} targets; draw one with "
                "lmjax.plots.heatmap(attribution.heatmap[0])"
            )
        return plots.heatmap(self.heatmap, image=image, ax=ax)

    def to_pandas(self) -> Any:
        """Returns a table with a row for each segment, or pixel, of each target.

        Tables of several attributions join by `pandas.concat`: columns `method`, `network` and
        `removal` say which is which.

        Raises:
          ImportError: pandas is not installed.
        """
        import pandas

        scores = np.asarray(self.scores)
        scores = scores if isinstance(self.target, tuple) else scores[None]
        names = ("row", "column") if self.segments is None else ("segment",)
        places = np.indices(scores.shape).reshape(scores.ndim, -1)
        targets = np.array(self.target if isinstance(self.target, tuple) else [self.target])
        columns: dict[str, Any] = {"target": targets[places[0]]}
        columns |= dict(zip(names, places[1:], strict=True)) | {"score": scores.ravel()}
        if self.standard_error is not None:
            columns["standard_error"] = np.ravel(self.standard_error)
        about = {} if self.record is None else self.record.columns
        return pandas.DataFrame({**about, **columns})

    def __repr__(self) -> str:
        names = ("scores", "target", "probability", "num_variants")
        fields = [f"{name}={summarize(getattr(self, name))}" for name in names]
        if self.segments is not None:
            fields.append(f"segments={list(np.shape(self.segments))}")
        return f"Attribution({', '.join(fields)})"
