"""Partners of segments: interactions, from coalitions that methods have evaluated anyway."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lmjax._utils.text import one_line
from lmjax.attribution import interactions, methods
from lmjax.attribution.interaction_estimates import fewest_rows
from lmjax.evaluation import Evaluator

if TYPE_CHECKING:
    from lmjax.explanation.result import Explanation

# Method -> the index that its coalitions serve, and whether they come in complementary pairs.
_INDICES = {
    "kernelshap": ("k-SII", True),
    "banzhaf": ("Banzhaf", False),
    "lime": ("Banzhaf", False),
}


def partners_of(
    explanation: "Explanation", pair: tuple[str, str], evaluator: Evaluator, key: jax.Array
) -> list[dict[str, Any]]:
    """Returns the interactions of segments under a method and removal, for each class.

    Args:
      explanation: its results hold the pair.
      pair: method and removal.
      evaluator: of the removal.
      key: with which the method drew its samples.

    Returns:
      For each class `index`, `pairs` and `errors`, both the upper triangles of matrices; or the
      `reason` why there are none.
    """
    count = len(explanation.targets)
    reason = _reason(explanation, pair)
    if reason:
        return [{"reason": reason}] * count
    attribution = explanation.results[pair].attribution
    index, _ = _INDICES[pair[0]]
    try:
        found = interactions(
            evaluator,
            explanation.image.pixels,
            explanation.segments,
            key=key,
            index=index,
            target=attribution.target,
            objective=explanation.config.objective or "probability",
            previous=attribution,
        )
    except ValueError as error:  # samples that do not tell pairs apart, or too little memory
        return [{"reason": f"Not estimated: {one_line(error)}"}] * count
    above = np.triu_indices(found.scores.shape[-1], 1)
    arrays = (found.pairs, found.pairs_standard_error)
    pairs, errors = (np.reshape(each, (count, *each.shape[-2:]))[:, *above] for each in arrays)
    return [{"index": index, "pairs": p, "errors": e} for p, e in zip(pairs, errors, strict=True)]


def _reason(explanation: "Explanation", pair: tuple[str, str]) -> str:
    """Returns why there are no interactions; "" where they can be estimated."""
    method, attribution = pair[0], explanation.results[pair].attribution
    count = int(explanation.segments.max()) + 1
    title = methods.get(method).title
    if method not in _INDICES:
        return f"Partners come from the samples of LIME, KernelSHAP or Banzhaf, not {title}."
    if count < 2:
        return "There is only one segment."
    if attribution.samples is None:
        return f"{title} evaluated every coalition here, and kept none to estimate pairs from."
    paired = _INDICES[method][1]
    rows = fewest_rows(count, paired=paired)
    needed = 2 * rows + 2 if paired else rows  # beside the whole image and nothing visible
    if attribution.num_variants < needed:
        return (
            f"{attribution.num_variants:,} variants are too few for the pairs of {count} segments: "
            f"{needed:,} are needed (--num-samples {needed})."
        )
    return ""
