"""Rules that stop a method that samples, for its argument `until`."""

from collections.abc import Callable

import numpy as np

from lmjax._utils.checks import check_number, check_numbers, check_pair, check_whole

Until = Callable[[np.ndarray, np.ndarray], bool]


def stable_ranking(top: int, *, errors: float = 2.0, cells: int | tuple[int, int] = 7) -> Until:
    """Returns a rule that stops when the highest segments and their order are unlikely to change.

    That is when each of the `top` segments leads all that rank below it by more than `errors`
    standard errors of the difference (of independent scores), for all targets. Segments that are
    exactly equal and exactly known count as settled; others that are equal never do, so the number
    of samples remains the limit. The rule is applied many times in a run, so the ranking is wrong
    slightly more often than after a single test.

    Scores of pixels are ranked as cells of an even grid, by their means: the order of neighbouring
    pixels, which nearly all masks show or hide together, is never settled and carries no
    information. The standard error of a cell is taken as the mean of its pixels', an upper bound.

    Example:
      >>> until = lmjax.attribution.stable_ranking(1)
      >>> found = lmjax.attribution.lime(predictor, image, segments, key=key, until=until)
      >>> found.num_variants <= 1000
      True

    Args:
      top: number of segments (or cells) that must be settled, from the highest score down.
      errors: number of standard errors that settle a difference, above 0.
      cells: of the grid along each side, or (h, w), for scores of pixels; 7 is RISE's. A grid finer
        than the masks has neighbours that are never settled either.

    Returns:
      Function (scores `[T, S]` or `[T, H, W]`, their standard errors) -> bool.

    Raises:
      ValueError: numbers out of range.
    """
    top = check_whole("top", top, least=1)
    grid = check_pair("cells", cells)
    errors = check_number("errors", errors, above=0)

    def until(scores: np.ndarray, standard_error: np.ndarray) -> bool:
        scores = check_numbers("scores", scores)
        standard_error = check_numbers("standard_error", standard_error)
        if np.shape(scores) != np.shape(standard_error) or np.ndim(scores) not in (2, 3):
            raise ValueError(
                "scores and standard errors must be [T, S] or [T, H, W], got shapes "
                f"{np.shape(scores)} and {np.shape(standard_error)}"
            )
        if np.ndim(scores) == 3:
            scores, standard_error = (_cell_means(x, grid) for x in (scores, standard_error))
        order = np.argsort(-scores, axis=1)
        ranked = np.take_along_axis(scores, order, axis=1)
        variance = np.take_along_axis(standard_error, order, axis=1) ** 2
        lead = ranked[:, :top, None] - ranked[:, None, :]
        error = np.sqrt(variance[:, :top, None] + variance[:, None, :])
        below = np.arange(scores.shape[1])[None, :] > np.arange(lead.shape[1])[:, None]
        return bool((lead >= errors * error)[:, below].all())

    return until


def _cell_means(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Returns means `[T, C]` of maps `[T, H, W]` over an even grid, at most a cell per pixel."""
    for axis, cells in zip((1, 2), grid):
        parts = np.array_split(maps, min(cells, maps.shape[axis]), axis=axis)
        maps = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    return maps.reshape(len(maps), -1)
