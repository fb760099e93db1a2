"""Expected gradients: integrated gradients, averaged over many baselines."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_numbers, check_whole
from lmjax._utils.keys import check_key
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.differentiation import make_problem
from lmjax.attribution.gradients import gradient_batch_size, moments
from lmjax.attribution.pictures import pictures_of_nothing
from lmjax.attribution.record import recorded
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.masking.checks import check_colours
from lmjax.removals.samples import photographs


@over_images
@recorded
def expected_gradients(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    key: jax.Array,
    baselines: ArrayLike | None = None,
    target: int | Sequence[int] | None = None,
    num_samples: int = 200,
    objective: Objective = "logit",
) -> Attribution:
    """Scores pixels by integrated gradients, averaged over a set of baselines.

    Each sample draws a baseline from the set, with replacement, and a point of the straight path
    from it to the image, uniformly; scores are the means of the gradients there times image minus
    baseline, summed over channels. They estimate scores that add up to the output for the image
    minus its mean over the baselines.

    Cost: `num_samples` passes forward and back, and one evaluation.

    Example:
      >>> baselines = np.stack([image[::-1], image[:, ::-1]])
      >>> found = lmjax.attribution.expected_gradients(
      ...     predictor, image, key=key, baselines=baselines
      ... )
      >>> found.scores.shape
      (16, 16)

    Args:
      predictor, image, target, objective: as in `lmjax.attribution.gradient`. Points are computed
        in batches as in `lmjax.attribution.integrated_gradients`.
      key: random key; the same key gives the same scores.
      baselines: in [0, 1]: images `[M, H, W, C]`, best of those that the network was trained on; or
        one image, a colour of C floats, or a number. None takes what the predictor's removal shows
        where nothing is visible: the images that `lmjax.Samples` draws, those of
        `lmjax.ReplaceAverage`, a blurred or grey image under `lmjax.Replace`; where it shows none
        (`lmjax.LayerMasking`, a plain function), crops of two photographs that lmjax
        ships, which `lmjax.Samples` starts from too.
      num_samples: 2 or more; 200 are SHAP's.

    Returns:
      `Attribution` with scores and standard errors `[H, W]` for one target, `[T, H, W]` for
      several.

    Raises:
      ValueError: as `lmjax.attribution.gradient`, or baselines of another shape or range.

    References:
      Erion et al. 2021, "Improving performance of deep learning models with axiomatic attribution
      priors and expected gradients" (arXiv 1906.10670), section "Expected gradients". Captum's
      GradientShap adds noise to the image; without it (its default) it is the same.
    """
    check_key(key)
    num_samples = check_whole("num_samples", num_samples, least=2)
    problem = make_problem(predictor, image, target=target, objective=objective)
    images = _baselines(baselines, predictor, problem.image)
    sums = moments(
        problem.outputs,
        problem.image,
        jax.tree_util.Partial(_drawn_point, images),
        jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_samples)),
        jnp.full(num_samples, 1 / num_samples),
        np.float32(0),
        num_moments=2,
        sum_channels=True,
        batch_size=gradient_batch_size(predictor, num_samples, problem.image.shape),
    )
    mean, square = (np.asarray(x)[..., 0] for x in sums)
    errors = np.sqrt(np.maximum(square - mean**2, 0) / (num_samples - 1))
    return problem.attribution(mean, num_variants=num_samples + 1, errors=errors)


def _drawn_point(
    baselines: jax.Array, image: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns a point between an image and a baseline, and their difference `[1, H, W, C]`."""
    of_baseline, of_point = jax.random.split(key)
    chosen = jax.random.randint(of_baseline, (), 0, len(baselines), np.int32)
    path = image - baselines[chosen]
    return image - jax.random.uniform(of_point, (), np.float32) * path, path[None]


def _baselines(
    baselines: ArrayLike | None, predictor: Callable | Evaluator, image: np.ndarray
) -> np.ndarray:
    """Returns checked baselines, float32 `[M, H, W, C]`."""
    if baselines is None:
        shown = pictures_of_nothing(predictor, image)
        return _photographs(image) if shown is None else shown
    found = check_numbers("baselines", baselines).astype(np.float32)
    if found.ndim == 4 and len(found) and found.shape[1:] == image.shape:
        check_colours(found, "baselines")
        return found
    if found.shape not in ((), image.shape[-1:], image.shape):
        raise ValueError(
            f"baselines must be images {['M', *image.shape]}, one or more, an image "
            f"{list(image.shape)}, a colour of {image.shape[-1]} floats or a number; got shape "
            f"{list(found.shape)}"
        )
    check_colours(found, "baselines")
    return np.broadcast_to(found, (1, *image.shape))


def _photographs(image: np.ndarray) -> np.ndarray:
    """Returns crops of photographs in the shape of an image, `[M, H, W, C]`."""
    if image.shape[-1] not in (1, 3):
        raise ValueError(
            f"baselines must be given for an image of {image.shape[-1]} channels: images "
            f"{['M', *image.shape]} in [0, 1], such as those that the network was trained on"
        )
    return photographs(image.shape)
