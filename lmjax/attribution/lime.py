"""LIME: a linear surrogate of the network around one image, over its segments.

Ribeiro, Singh & Guestrin 2016, "Why should I trust you?" (arXiv 1602.04938). Numbers follow the
`lime` package 0.2.0.1 (`lime_image.py`).
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_number
from lmjax._utils.notices import warn
from lmjax._utils.renamed import renamed
from lmjax._utils.summary import brief
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.budget import Cost
from lmjax.attribution.draws import lime_draws, shared_draws
from lmjax.attribution.game import Game
from lmjax.attribution.record import recorded
from lmjax.attribution.sampling import Estimate, Samples, Sampling, run
from lmjax.attribution.stopping import Until
from lmjax.attribution.surrogate import Surrogate
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.coalitions import Coalitions, check_memory

_DEFAULT_SURROGATE = Surrogate()
_SAMPLES_PER_SEGMENT = 10
_COST = Cost(beside=0)


@renamed(output="objective")
@over_images
@recorded
def lime(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    segments: ArrayLike,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    num_samples: int | None = None,
    evaluations: int | None = None,
    keep_probability: float = 0.5,
    surrogate: Surrogate = _DEFAULT_SURROGATE,
    until: Until | None = None,
    previous: Attribution | None = None,
    objective: Objective = "probability",
) -> Asking[Attribution]:
    """Scores segments by the coefficients of a weighted ridge regression on random coalitions.

    Cost: `num_samples` evaluations.

    Example:
      >>> found = lmjax.attribution.lime(predictor, image, segments, key=key, num_samples=60)
      >>> found.scores.shape, found.num_variants
      ((4,), 60)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      key: random key; the same key gives the same scores.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      num_samples: variants evaluated, including the whole image and those of `previous`; 2 or more.
        None takes 1000, as the `lime` package does.
      evaluations: upper limit on evaluations, the whole image included; give it instead of
        `num_samples` to compare methods at equal cost.
      keep_probability: probability that a segment stays visible in a variant.
      surrogate: the regression: distance, kernel width, penalty, and selection of segments. The
        default is that of the `lime` package for images.
      until: (scores, standard errors) -> whether to stop, for example `stable_ranking(5)`; asked
        from 10 samples a segment on. None takes all.
      previous: attribution of the same call with fewer samples, whose variants are used again; the
        regression, which may have other options, is fitted anew. With `keep_probability=0.5`, one
        by `banzhaf` serves as well, since it draws the same coalitions.
      objective: what to explain: "probability" (softmax; sigmoid of a single logit), "logit" or
        "margin" of the target, or a function of the network's output (`lmjax.objectives`).

    Returns:
      `Attribution` with scores `[S]` for one target, `[T, S]` for several. Standard errors are due
      to the sampling of variants (heteroscedasticity-consistent, HC1), for the selected segments;
      they ignore the effects of the penalty and of the selection, and are NaN where samples are too
      few for them.

    Raises:
      ValueError: options out of range, target not a class of the network, more segments than memory
        allows, `previous` that does not fit, non-finite outputs, and all that `lmjax.evaluate`
        raises.

    Warns:
      UserWarning: fewer than 10 samples a segment; once in a call of `lmjax.explain` and in a
        study.
    """
    if not isinstance(surrogate, Surrogate):
        raise ValueError(f"surrogate must be a lmjax.attribution.Surrogate, got {brief(surrogate)}")
    game = Game(predictor, image, segments, target=target, objective=objective)
    num_segments = game.num_segments
    note = "the whole image and another variant"
    num_samples = _COST.number(
        "num_samples", num_samples, evaluations, default=1000, least=2, note=note
    )
    # Coalitions in four float copies; the normal equations and their factor.
    needed = num_samples * num_segments * 16 + 3 * 4 * num_segments**2
    check_memory(needed, num_segments, num_samples)
    _warn_few_samples(num_samples, num_segments)

    keep_probability = check_number("keep_probability", keep_probability, above=0, below=1)
    draws = shared_draws(lime_draws(keep_probability), previous)

    def keep(first: int, last: int) -> np.ndarray:
        return draws.draw(num_segments, max(first - draws.whole, 0), last - draws.whole, key)

    def draw(first: int, last: int) -> Coalitions:
        return Coalitions(game.labels, keep(first, last))

    def estimate(samples: Samples) -> Estimate:
        whole = np.ones((1, num_segments), bool)
        values = np.concatenate([samples.whole[None], samples.values])
        return surrogate.fit(np.concatenate([whole, keep(0, samples.count)]), values)

    return run(
        Sampling(draw, estimate, key, draws.settings, _SAMPLES_PER_SEGMENT * num_segments),
        game,
        num_samples - 1 + draws.whole,
        expected=num_samples,
        until=until,
        previous=previous,
    )


def _warn_few_samples(num_samples: int, num_segments: int) -> None:
    """Warns of fewer than 10 samples a segment."""
    if num_samples < _SAMPLES_PER_SEGMENT * num_segments:
        warn(
            "few samples",
            f"{num_samples} samples for {num_segments} segments are fewer than "
            f"{_SAMPLES_PER_SEGMENT} a segment: scores may be noise; use num_samples="
            f"{_SAMPLES_PER_SEGMENT * num_segments} or fewer segments",
            stacklevel=3,
        )
