"""Which classes an explanation or a score is about."""

from collections.abc import Sequence

import numpy as np

from lmjax._utils.checks import check_numbers
from lmjax._utils.summary import brief


def resolve_target(target: int | Sequence[int] | None, logits) -> int | tuple[int, ...]:
    """Returns the class or classes that an explanation or a score is about.

    Args:
      target: a class, several classes, or None for the one with the highest logit.
      logits: `[K]`, of the whole image.

    Returns:
      An int, or a tuple where several were given.

    Raises:
      ValueError: not whole numbers, or not within 0..K-1.
    """
    logits = check_numbers("logits", logits)
    if logits.ndim != 1 or not logits.size or not np.isfinite(logits).all():
        shown = logits[:8].tolist() if logits.ndim == 1 else f"shape {list(logits.shape)}"
        raise ValueError(f"logits must be finite numbers [K], one or more; got {shown}")
    if target is None:
        return int(np.argmax(logits))
    check_target(target, len(logits))
    classes = np.asarray(target)
    return int(classes) if classes.ndim == 0 else tuple(int(each) for each in classes)


def check_target(target: int | Sequence[int] | None, num_classes: int) -> None:
    """Raises ValueError unless every class of `target` is one of `num_classes`."""
    if target is None:
        return
    classes = np.asarray(target)
    if classes.ndim > 1 or classes.size == 0 or classes.dtype.kind not in "iu":
        raise ValueError(f"target must be a class number or a list of them, got {brief(target)}")
    bad = classes[(classes < 0) | (classes >= num_classes)]
    if bad.size:
        named = ", ".join(map(str, np.atleast_1d(bad)))
        raise ValueError(
            f"target must be from 0 to {num_classes - 1}, the network has {num_classes} classes; "
            f"got {named}"
        )
