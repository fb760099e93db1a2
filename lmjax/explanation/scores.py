"""What the commands measure of an attribution: deletion and insertion, and localisation."""

from collections.abc import Callable

import numpy as np

from lmjax import metrics
from lmjax.attribution import Attribution
from lmjax.evaluation import Predictor
from lmjax.metrics.ranked_regions import features
from lmjax.models import Classifier
from lmjax.removals import Replace

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


def follow(
    attribution: Attribution,
    image: np.ndarray,
    *,
    classifier: Classifier,
    predictor: Callable | None,
    batch_size: int | None = None,
) -> dict[str, metrics.Curve]:
    """Deletion and insertion curves by name: with the published finishes, and by a removal.

    Args:
      attribution: for one class.
      image: `[H, W, C]`.
      classifier: seen with black (`deletion_black`) and blurred (`insertion_blur`) pixels.
      predictor: with the removal of `deletion` and `insertion`; None leaves these two out.
      batch_size: as in `lmjax.evaluate`.
    """
    black = Predictor(classifier, Replace("black"))
    blur = Predictor(classifier, Replace("blur", sigma=5, radius=5))
    given = image, attribution.heatmap
    options = {"target": attribution.target, "batch_size": batch_size}
    curves = {
        "deletion_black": metrics.deletion(black, *given, **options),
        "insertion_blur": metrics.insertion(blur, *given, **options),
    }
    if predictor is not None:
        curves["deletion"] = metrics.deletion(predictor, *given, **options)
        curves["insertion"] = metrics.insertion(predictor, *given, **options)
    return curves


def localise(
    attribution: Attribution, segments: np.ndarray, object_mask: np.ndarray
) -> dict[str, float]:
    """How well an attribution points at the object, by the names of `lmjax.metrics`.

    Args:
      attribution: for one class.
      segments: `[H, W]`, of the alignment: pixels' scores count by their mean over a segment.
      object_mask: `[H, W]` bool.
    """
    heatmap = attribution.heatmap
    return {
        "relevance_rank_accuracy": metrics.relevance_rank_accuracy(heatmap, object_mask),
        "pointing_game": metrics.pointing_game(heatmap, object_mask, tolerance=0),
        "alignment": metrics.alignment(features(heatmap, segments).scores, segments, object_mask),
    }
