"""Metrics of an explanation's attributions: deletion and insertion curves, and localisation."""

import math

import numpy as np

from lmjax import metrics
from lmjax.attribution import Attribution
from lmjax.evaluation import Evaluator
from lmjax.metrics.ranked_regions import rank_regions

# name -> heading in a table, of two lines
HEADINGS = {
    "deletion_black": "deletion\nto black",
    "insertion_blur": "insertion\nfrom blur",
    "deletion": "deletion\nby removal",
    "insertion": "insertion\nby removal",
    "relevance_rank_accuracy": "relevance\nrank accuracy",
    "pointing_game": "pointing\ngame",
    "alignment": "\nalignment",
}


def perturbation_curves(
    attribution: Attribution,
    pixels: np.ndarray,
    *,
    black: Evaluator,
    blur: Evaluator,
    own: Evaluator | None,
) -> dict[str, metrics.Curve]:
    """Computes deletion and insertion curves, by the names of `HEADINGS`.

    Args:
      attribution: for one class.
      pixels: `[H, W, C]` in [0, 1].
      black, blur: evaluate the published metrics: `deletion_black` replaces pixels by black,
        `insertion_blur` starts from the blurred image.
      own: evaluates `deletion` and `insertion`, with the removal of the attribution; None leaves
        these two out.
    """
    given, target = (pixels, attribution.heatmap), attribution.target
    curves = {
        "deletion_black": metrics.deletion(black, *given, target=target),
        "insertion_blur": metrics.insertion(blur, *given, target=target),
    }
    if own is not None:
        curves["deletion"] = metrics.deletion(own, *given, target=target)
        curves["insertion"] = metrics.insertion(own, *given, target=target)
    return curves


def localisation(
    attribution: Attribution, segments: np.ndarray, object_mask: np.ndarray
) -> dict[str, float]:
    """Scores how well an attribution points at the object, by the names of `lmjax.metrics`.

    Args:
      attribution: for one class.
      segments: `[H, W]`, for the alignment, which takes the mean score of each segment.
      object_mask: `[H, W]` bool.
    """
    heatmap = attribution.heatmap
    scores = rank_regions(heatmap, segments).scores
    return {
        "relevance_rank_accuracy": metrics.relevance_rank_accuracy(heatmap, object_mask),
        "pointing_game": metrics.pointing_game(heatmap, object_mask, tolerance=0),
        # Of a single segment there is no alignment.
        "alignment": math.nan
        if len(scores) < 2
        else metrics.alignment(scores, segments, object_mask),
    }
