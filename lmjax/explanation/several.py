"""Explanations of several images, of which some may fail."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lmjax._utils.progress import described
from lmjax.explanation.result import Failure

T = TypeVar("T")


def explain_each(
    images: Sequence[Any], explain: Callable[[int], T]
) -> tuple[list[T], list[Failure]]:
    """Explains image after image; one that fails does not stop the others.

    Args:
      images: two or more, as in `lmjax.explain`; for messages.
      explain: function of an image's number.

    Returns:
      What the function returned, and the images that failed.

    Raises:
      ValueError: no image could be explained; says why the first could not.

    Warns:
      UserWarning: an image that could not be explained, and why.
    """
    found, failures = [], []
    for number, image in enumerate(images):
        try:
            with described(_shown(image, number)):
                found.append(explain(number))
        except (ValueError, OSError) as error:
            # Its frames would keep what was computed.
            failures.append(Failure(_shown(image, number), error.with_traceback(None)))
            warnings.warn(f"left out {failures[-1].image}: {error}", stacklevel=3)
    if not found:
        error = failures[0].error
        raise ValueError(f"none of {len(images)} images could be explained; the first: {error}")
    return found, failures


def _shown(image: Any, number: int) -> str:
    return str(image) if isinstance(image, str | os.PathLike) else f"image {number}"
