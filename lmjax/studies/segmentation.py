"""Segmenters of studies: their names, and the options that each of them takes."""

import functools
import inspect
from collections.abc import Callable

import numpy as np

from lmjax._utils.checks import check_choices
from lmjax.masks import segments

_NAMES = ("grid", "slic", "quickshift", "felzenszwalb")


def check_segmenters(argument: str, names: tuple[str, ...]) -> None:
    """Raises ValueError unless all names are segmenters and none is repeated."""
    check_choices(argument, names, _NAMES)


def segmenter(name: str, **options: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from an image to its segments.

    Args:
      name: of the segmenter.
      **options: the segmenter gets those that its signature has.
    """
    function = getattr(segments, name)
    takes = inspect.signature(function).parameters
    return functools.partial(function, **{k: v for k, v in options.items() if k in takes})
