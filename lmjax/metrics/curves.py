"""Curves of a predictor's output while an image disappears, or appears, region by region.

The predictor's removal decides how a region is hidden: under layer masking a curve ends with no
image at all, under `lmjax.Replace` with the baseline.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_whole
from lmjax._utils.renamed import renamed
from lmjax._utils.summary import summarize
from lmjax.attribution.game import Game
from lmjax.attribution.record import Record, recorded
from lmjax.attribution.saved import Saved
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.metrics.ranked_regions import RankedRegions, rank_regions


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Curve(Saved):
    """A predictor's output after 0, 1, ..., n steps.

    Attributes:
      fractions: float64 `[n + 1]`, share of the pixels reached by each step: hidden by then where
        regions are removed, visible where they are inserted.
      values: float32 `[n + 1]`, or `[T, n + 1]` for T targets.
      target: the class, or the T classes; None, or the numbers of its values, where the objective
        is a function.
      record: how it was made: metric, network, removal, settings and versions.
    """

    KIND: ClassVar[str] = "curve"

    fractions: np.ndarray
    values: np.ndarray
    target: int | tuple[int, ...] | None = dataclasses.field(metadata={"static": True})
    record: Record | None = None

    @property
    def normalised_auc(self) -> float | np.ndarray:
        """Area under the curve, by trapezoids over the steps and divided by n; `[T]` for T targets.

        All steps have equal weight, however many pixels they reach: as in RISE's code, whose last
        step may be smaller than the others.
        """
        values = self.values.astype(np.float64)
        return (values[..., 1:] + values[..., :-1]).mean(axis=-1) / 2

    def plot(self, *, ax: Any = None) -> Any:
        """Draws the curve of one target; returns matplotlib's axes.

        Args:
          ax: axes to draw on; None makes a figure.

        Raises:
          ValueError: several targets; draw one with `lmjax.plots.curve`.
        """
        from lmjax import plots

        if isinstance(self.target, tuple):
            raise ValueError(
                f"this curve has {len(self.target)} targets; draw one with "
                "lmjax.plots.curve(curve.fractions, curve.values[0])"
            )
        label = None if self.record is None else f"{self.record.method}, {self.record.removal}"
        return plots.curve(self.fractions, self.values, label=label, ax=ax)

    def to_pandas(self) -> Any:
        """Returns a table with a row for each step of each target; tables join as `Attribution`'s.

        Raises:
          ImportError: pandas is not installed.
        """
        import pandas

        values = np.atleast_2d(self.values)
        targets = self.target if isinstance(self.target, tuple) else (self.target,)
        columns = {
            "target": np.repeat(np.array(targets), values.shape[1]),
            "fraction": np.tile(self.fractions, len(values)),
            "value": values.ravel(),
        }
        about = {} if self.record is None else self.record.columns
        return pandas.DataFrame({**about, **columns})

    def __repr__(self) -> str:
        names = ("values", "target", "normalised_auc")
        return f"Curve({', '.join(f'{name}={summarize(getattr(self, name))}' for name in names)})"


def check_curve(name: str, curve: Any) -> Curve:
    """Returns a curve; raises ValueError for anything else.

    Args:
      name: of the argument, for the error.
      curve: what came.
    """
    if not isinstance(curve, Curve):
        raise ValueError(
            f"{name} must be a Curve, such as lmjax.metrics.region_perturbation returns; got "
            f"{summarize(curve)}"
        )
    return curve


@renamed(output="objective")
@over_images
@recorded
def deletion(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    segments: ArrayLike | None = None,
    step: int | None = None,
    objective: Objective = "probability",
) -> Asking[Curve]:
    """Follows the output while the most salient pixels or segments are removed; lower is better.

    Pixels are removed by falling score, `step` at a time, in ceil(H W / step) steps until all are
    hidden. Equal scores are removed in reading order (segments: in the order of their labels). The
    published metric fills with black: `lmjax.Replace("black")`.

    Cost: an evaluation of each step, and one of the whole image.

    Example:
      >>> curve = lmjax.metrics.deletion(predictor, image, heatmap, step=32)
      >>> curve.values.shape, bool(np.isfinite(curve.normalised_auc))
      ((9,), True)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress. Its removal decides how pixels are hidden.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, higher = more salient; with segments also `[S]`, the segments' own scores.
      target: class or classes whose output is followed; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1, none missing. Whole segments are removed then, by
        falling mean of the heatmap, and `step` counts segments.
      step: regions to remove in each step. None: as many pixels as the image is wide (224 at
        224 x 224, the setting of RISE's code), or one segment.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Curve` from the whole image (fraction 0) to none of it (fraction 1); the metric is its
      `normalised_auc`.

    Raises:
      ValueError: shapes that do not match, a heatmap with NaN, a step below 1, and all that
        `lmjax.evaluate` raises.

    References:
      Petsiuk, Das & Saenko 2018, "RISE" (arXiv 1806.07421), section 4, and `evaluation.py` of
      their code. Xplique instead takes 10 steps, of equal size but for rounding.
    """
    game = Game(predictor, image, target=target, objective=objective)
    regions = rank_regions(heatmap, segments, game.shape)
    return trace(game, regions, _counts(regions, step, segments is None))


@renamed(output="objective")
@over_images
@recorded
def insertion(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    target: int | Sequence[int] | None = None,
    segments: ArrayLike | None = None,
    step: int | None = None,
    objective: Objective = "probability",
) -> Asking[Curve]:
    """Follows the output while the most salient pixels or segments are inserted; higher is better.

    The reverse of `deletion`, with the same arguments: from none of the image to all of it. The
    published metric starts from the image under a Gaussian blur, 11 pixels wide with sigma 5:
    `lmjax.Replace("rise_blur")`.

    Cost: an evaluation of each step, and one of the whole image.

    Example:
      >>> curve = lmjax.metrics.insertion(predictor, image, heatmap, step=32)
      >>> curve.values.shape, bool(np.isfinite(curve.normalised_auc))
      ((9,), True)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress. Its removal decides how pixels are hidden until they are inserted.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      heatmap: `[H, W]`, higher = more salient; with segments also `[S]`, the segments' own scores.
      target: class or classes whose output is followed; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1, none missing: whole segments are inserted.
      step: regions to insert in each step. None: as many pixels as the image is wide, or one
        segment.
      objective: "probability" (softmax; sigmoid of a single logit), "logit" or "margin" of the
        target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Curve` from none of the image (fraction 0) to the whole (fraction 1); the metric is its
      `normalised_auc`.

    Raises:
      ValueError: as `deletion`.

    References:
      Petsiuk, Das & Saenko 2018, "RISE" (arXiv 1806.07421), section 4, and `evaluation.py` of
      their code.
    """
    game = Game(predictor, image, target=target, objective=objective)
    regions = rank_regions(heatmap, segments, game.shape)
    return trace(game, regions, _counts(regions, step, segments is None), insert=True)


def trace(
    game: Game,
    regions: RankedRegions,
    counts: np.ndarray,
    *,
    order: np.ndarray | None = None,
    insert: bool = False,
) -> Asking[Curve]:
    """Follows the output while regions are removed, or inserted, in an order.

    Args:
      game: the image and the network.
      regions: of the image.
      counts: `[n + 1]` ints, regions removed (inserted) after each step, from 0 (to all of them
        where inserted).
      order: `[R]`, a permutation of the regions; None takes them by falling score.
      insert: insert regions instead of removing them.
    """
    # The whole image, at one end of the curve, is evaluated in any case.
    masks = regions.kept(counts[:-1], order) if insert else regions.removed(counts[1:], order)
    payoffs = yield from game.ask(masks)
    values, whole = payoffs.values.T, payoffs.whole[..., None]
    order = regions.order if order is None else order
    pixels = np.append(0, regions.sizes[order].cumsum())[counts]
    return Curve(
        fractions=pixels / regions.labels.size,
        values=np.concatenate([values, whole] if insert else [whole, values], axis=-1),
        target=payoffs.prediction.target,
    )


def _counts(regions: RankedRegions, step: int | None, pixelwise: bool) -> np.ndarray:
    """Returns how many regions each step has reached, from 0 to all."""
    count = len(regions.scores)
    if step is None:
        step = regions.labels.shape[1] if pixelwise else 1
    step = check_whole("step", step, least=1)
    return np.minimum(np.arange(-(-count // step) + 1) * step, count)
