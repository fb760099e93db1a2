"""Do the scores of an attribution add up to what the predictor loses? Scores against drops.

All hide something, and compare the drop of the output with the sum of the scores of what is hidden.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax.attribution.game import Answers, answer
from lmjax.masking.checks import check_image
from lmjax.masks.coalitions import Coalitions, check_memory
from lmjax.masks.families import MaskFamily, Masks, RankRanges
from lmjax.metrics.agreement import pearson, ranked
from lmjax.metrics.ranked_regions import Features, check_count, check_scores, features

CORRELATIONS = ("pearson", "spearman")
# Cells to a side of the grid that MuFidelity hides.
_CELLS = 9
# Pixels of the masks that exist at once.
_PIXELS = 2**24


def mu_fidelity(
    predictor: Callable,
    image,
    heatmap,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    segments=None,
    share: float = 0.2,
    num_subsets: int = 200,
    correlation: str = "pearson",
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> float | np.ndarray:
    """MuFidelity: correlation of scores and drops over random subsets of one size.

    corr over subsets A of (sum over A of the scores, f(x) - f(x without A)).

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[H, W]`, a part's score being the sum of its pixels; with segments also `[S]`, the
        segments' own scores.
      key: random key; the same key draws the same subsets.
      target: class or classes; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: what subsets consist of. None: a grid of 9 x 9 cells.
      share: of the cells or segments that a subset has, rounded to at least one.
      num_subsets: how many to draw.
      correlation: "pearson" or "spearman".
      output: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      A number in [-1, 1], or `[T]` for T targets; higher is better. NaN where scores or drops are
      all the same.

    Raises:
      ValueError: options out of range, shapes that do not match, and all that `lmjax.evaluate`
        raises.

    References:
      Bhatt, Weller & Moura 2020, "Evaluating and aggregating feature-based model explanations"
      (arXiv 2005.00631), definition 3: Pearson's correlation over subsets of one size, as in
      Quantus (`FaithfulnessCorrelation`). The name, the grid, 20% and 200 subsets are Xplique's,
      which takes Spearman's correlation, hides each cell by a draw of its own, so that sizes
      differ, and counts NaN as 0.
    """
    if correlation not in CORRELATIONS:
        raise ValueError(
            f"correlation must be one of {', '.join(CORRELATIONS)}; got {correlation!r}"
        )
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1, got {share!r}")
    check_image(image)
    if segments is None:
        segments = _cells(np.shape(image)[:2])
    found = features(heatmap, segments, np.shape(image)[:2], by="sum")
    size = max(round(share * len(found.scores)), 1)
    return _subset_correlations(
        predictor,
        image,
        found,
        [size],
        key=key,
        num_subsets=num_subsets,
        correlation=correlation,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )[..., 0][()]


@dataclasses.dataclass(frozen=True, eq=False)
class SensitivityN:
    """Correlations of scores and drops for several sizes of subsets.

    Attributes:
      sizes: int `[M]`, features that were hidden, n.
      correlations: float64 `[M]`, or `[T, M]` for T targets; NaN where scores or drops of a size
        are all the same.
    """

    sizes: np.ndarray
    correlations: np.ndarray


def sensitivity_n(
    predictor: Callable,
    image,
    heatmap,
    *,
    key: jax.Array,
    target: int | Sequence[int] | None = None,
    segments=None,
    sizes: Sequence[int] | None = None,
    num_subsets: int = 100,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> SensitivityN:
    """Sensitivity-n: Pearson's correlation of scores and drops, for subsets of n features.

    It is 1 for every n where the scores of any n features add up to what the output loses without
    them.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[H, W]`, a segment's score being the sum of its pixels; with segments also `[S]`,
        the segments' own scores.
      key: random key; the same key draws the same subsets.
      target: class or classes; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: the features. None: pixels.
      sizes: the n to try, each below the number of features; None takes ten from 1 to 80% of them,
        at equal distances.
      num_subsets: random subsets of each size.
      output: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      `SensitivityN`.

    Raises:
      ValueError: options out of range, shapes that do not match, and all that `lmjax.evaluate`
        raises.

    References:
      Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods"
      (arXiv 1711.06104), section 4: 100 subsets a size, n up to about 80% of the features. Quantus
      removes features in falling order instead of random subsets.
    """
    check_image(image)
    found = features(heatmap, segments, np.shape(image)[:2], by="sum")
    count = len(found.scores)
    if sizes is None:
        sizes = np.unique(np.linspace(1, max(0.8 * count, 1), 10).astype(int))
    sizes = [check_count(size, "sizes", count - 1) for size in sizes]
    correlations = _subset_correlations(
        predictor,
        image,
        found,
        sizes,
        key=key,
        num_subsets=num_subsets,
        correlation="pearson",
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )
    return SensitivityN(np.array(sizes), correlations)


def infidelity(
    predictor: Callable,
    image,
    heatmap,
    masks,
    *,
    target: int | Sequence[int] | None = None,
    rescale: bool = False,
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> float | np.ndarray:
    """Infidelity: mean squared difference between the scores of what is hidden and the drop.

    Mean over masks of (sum over hidden pixels of the heatmap - (f(x) - f(x masked)))^2: the
    perturbation is binary, as for attributions that already count what a pixel is worth.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[H, W]`; with `Coalitions` also `[S]`, the segments' own scores, which are summed
        over hidden segments.
      masks: what to hide: `[N, H, W]`, 1 = visible, 0 = hidden, or a family of masks. The paper's
        squares are `Windows(image.shape[:2], corners, (side, side))` of
        `lmjax.masks.families`.
      target: class or classes; None takes the predicted class.
      rescale: multiply the heatmap by the number that makes the result smallest, so that its scale
        does not count.
      output: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      A number, 0 or more, or `[T]` for T targets; lower is better.

    Raises:
      ValueError: shapes that do not match, a heatmap with NaN, and all that `lmjax.evaluate`
        raises.

    References:
      Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations" (arXiv 1901.09392),
      definition 2.1. As Captum's `infidelity` with binary perturbations; the authors' code always
      rescales, Captum on demand (`normalize`). Quantus multiplies the heatmap with the change of
      the colours, and hides squares one after the other without showing those before again.
    """
    check_image(image)
    family = masks if isinstance(masks, MaskFamily) else Masks(masks)
    sums = _hidden_sums(heatmap, family)
    answers = answer(
        predictor,
        image,
        family,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )
    drops = _drops(answers)
    sums = np.broadcast_to(sums, drops.shape)
    if rescale:
        squares = (sums**2).sum(axis=-1)
        best = (sums * drops).sum(axis=-1) / np.where(squares > 0, squares, 1)
        sums = sums * best[..., None]
    return ((sums - drops) ** 2).mean(axis=-1)[()]


def sufficiency(
    predictor: Callable,
    image,
    heatmap,
    *,
    target: int | Sequence[int] | None = None,
    segments=None,
    budgets: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5),
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> np.ndarray:
    """What the output loses when only the most salient features stay visible; lower is better.

    f(x) - f(x with only the top ones visible), for each budget.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[H, W]`, higher = more salient; with segments also `[S]`, the segments' own scores.
      target: class or classes; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: features are segments, by their mean; None: pixels.
      budgets: shares of the features, above 0 and at most 1; their number is rounded up.
      output: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      float64 `[B]`, or `[T, B]` for T targets.

    Raises:
      ValueError: budgets out of range, shapes that do not match, and all that `lmjax.evaluate`
        raises.

    References:
      DeYoung et al. 2020, "ERASER" (arXiv 1911.03429): sufficiency, with its budgets for the mean
      over several. (Quantus's `Sufficiency` is another notion: Dasgupta et al. 2022.)
    """
    return _at_budgets(
        predictor,
        image,
        heatmap,
        segments,
        budgets,
        keep=True,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )


def necessity(
    predictor: Callable,
    image,
    heatmap,
    *,
    target: int | Sequence[int] | None = None,
    segments=None,
    budgets: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5),
    output: str = "probability",
    batch_size: int | None = None,
    progress: bool | None = None,
    engine: str = "dense",
    mesh: Mesh | None = None,
) -> np.ndarray:
    """What the output loses when the most salient features are hidden; higher is better.

    f(x) - f(x without the top ones), for each budget; called comprehensiveness in the paper.

    Args:
      predictor: (image, masks) -> logits, such as `lmjax.Predictor`.
      image: `[H, W, C]` floats in [0, 1].
      heatmap: `[H, W]`, higher = more salient; with segments also `[S]`, the segments' own scores.
      target: class or classes; None takes the predicted class.
      segments: `[H, W]` ints, labels 0..S-1: features are segments, by their mean; None: pixels.
      budgets: shares of the features, above 0 and at most 1; their number is rounded up.
      output: "probability" (softmax over all classes) or "logit".
      batch_size, progress, engine, mesh: as in `lmjax.evaluate`.

    Returns:
      float64 `[B]`, or `[T, B]` for T targets.

    Raises:
      ValueError: as `sufficiency`.

    References:
      DeYoung et al. 2020, "ERASER" (arXiv 1911.03429): comprehensiveness.
    """
    return _at_budgets(
        predictor,
        image,
        heatmap,
        segments,
        budgets,
        keep=False,
        target=target,
        output=output,
        batch_size=batch_size,
        progress=progress,
        engine=engine,
        mesh=mesh,
    )


def _at_budgets(predictor, image, heatmap, segments, budgets, *, keep: bool, **options):
    check_image(image)
    found = features(heatmap, segments, np.shape(image)[:2])
    count = len(found.scores)
    budgets = np.atleast_1d(np.asarray(budgets, np.float64))
    if budgets.size == 0 or not ((budgets > 0) & (budgets <= 1)).all():
        raise ValueError(f"budgets must be above 0 and at most 1, got {budgets}")
    # 0.07 * 100 is a little more than 7, and still seven features.
    top = np.ceil(budgets * count - 1e-9).astype(int)
    ranges = [np.zeros_like(top), top] if keep else [top, np.full_like(top, count)]
    family = RankRanges(found.ranks(), np.stack(ranges, axis=1))
    return _drops(answer(predictor, image, family, **options))


def _drops(answers: Answers) -> np.ndarray:
    """`[N]` or `[T, N]`: the whole image's output less that of each variant."""
    return answers.whole[..., None].astype(np.float64) - answers.values.T


def _subset_correlations(
    predictor: Callable,
    image,
    found: Features,
    sizes: Sequence[int],
    *,
    key: jax.Array,
    num_subsets: int,
    correlation: str,
    **options,
) -> np.ndarray:
    """`[M]` or `[T, M]`, over `num_subsets` random subsets of each of M sizes."""
    if check_count(num_subsets, "num_subsets") < 2:
        raise ValueError("num_subsets must be 2 or more, for a correlation")
    hidden = _random_subsets(len(found.scores), sizes, num_subsets, key)
    drops = _drops(answer(predictor, image, Coalitions(found.labels, ~hidden), **options))
    # One size at a time: a product of bools makes float64 of all of them first.
    sums = np.stack([subsets @ found.scores for subsets in np.split(hidden, len(sizes))])
    drops = drops.reshape(*drops.shape[:-1], len(sizes), num_subsets)
    if correlation == "spearman":
        sums, drops = ranked(sums), ranked(drops)
    return pearson(np.broadcast_to(sums, drops.shape), drops)


def _random_subsets(count: int, sizes: Sequence[int], num_subsets: int, key) -> np.ndarray:
    """bool `[M * num_subsets, F]`: for each size so many subsets, all equally likely."""
    # Three copies as bools on the way to the device; of one size floats, their order and a product.
    needed = (3 * len(sizes) + 20) * num_subsets * count
    check_memory(needed, count, len(sizes) * num_subsets)
    hidden = np.zeros((len(sizes), num_subsets, count), bool)
    for each, size, own in zip(hidden, sizes, jax.random.split(key, len(sizes))):
        draws = np.asarray(jax.random.uniform(own, (num_subsets, count)))
        chosen = np.argpartition(draws, size - 1, axis=1)[:, :size]
        np.put_along_axis(each, chosen, True, axis=1)
    return hidden.reshape(-1, count)


def _cells(shape: tuple[int, int]) -> np.ndarray:
    """`[H, W]`, a grid of 9 x 9 cells (fewer where there are fewer pixels)."""
    rows, columns = (np.arange(n) * min(_CELLS, n) // n for n in shape)
    return rows[:, None] * (columns[-1] + 1) + columns[None, :]


def _hidden_sums(heatmap, family: MaskFamily) -> np.ndarray:
    """float64 `[N]`: the heatmap's sum over what each mask hides."""
    if isinstance(family, Coalitions):
        found = features(heatmap, family.segments, by="sum")
        return ~family.keep @ found.scores
    heatmap = check_scores(heatmap, "heatmap")
    if heatmap.shape != tuple(family.spatial_shape):
        raise ValueError(
            f"heatmap must be {tuple(family.spatial_shape)} like the masks, got shape "
            f"{heatmap.shape}; scores of segments [S] need lmjax.Coalitions"
        )
    size = min(max(_PIXELS // heatmap.size, 1), 2 ** (len(family) - 1).bit_length())
    shared = jax.tree.map(jnp.asarray, family.shared)
    weights = jnp.asarray(heatmap, jnp.float32)
    sums = []
    for start in range(0, len(family), size):
        chosen = np.minimum(np.arange(start, start + size), len(family) - 1)
        rows = jax.tree.map(operator.itemgetter(chosen), family.rows)
        sums.append(np.asarray(_sum_hidden(shared, rows, weights, make=family.make)))
    return np.concatenate(sums)[: len(family)].astype(np.float64)


@functools.partial(jax.jit, static_argnames="make")
def _sum_hidden(shared, rows, heatmap, *, make):
    hidden = 1 - make(shared, rows).astype(jnp.float32)
    return jnp.einsum("nhw,hw->n", hidden, heatmap, precision=jax.lax.Precision.HIGHEST)
