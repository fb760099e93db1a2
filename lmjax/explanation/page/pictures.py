"""Pictures of a page: what networks are shown, as few as let a browser make all others.

Most removals paint one picture wherever something is hidden, or nothing at all; browsers then make
a variant of two pictures and a mask. What they cannot make so is stored, picture by picture.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from lmjax._utils.pages import picture
from lmjax.explanation.page.answers import Asked
from lmjax.explanation.variants import painted

if TYPE_CHECKING:
    from lmjax.explanation.result import Explanation

_TOLERANCE = 0.5 / 255
_AT_ONCE = 16
_COMPARED_STEPS = 11  # of a map
_QUALITY = 88

Part = dict[str, Any]


def pictures_of(explanation: "Explanation", predictor: Any, asked: Asked) -> dict[str, Any]:
    """Returns how a removal shows the variants of a page.

    Returns:
      `base`: the picture wherever something is hidden, or None where nothing is painted there.
      `patch`: side of patches that are shown whole or not at all, or None.
      `hidden`: by segment, the part of the picture that a browser cannot make.
      `shown`: the same by threshold, of each map.
      `complete`: whether browsers can make all pictures that are not stored.
    """
    image, segments = explanation.image.pixels, explanation.segments
    (base,) = painted(predictor, image, np.zeros((1, *segments.shape), bool))
    if np.isnan(base).any():
        patch = getattr(predictor, "patch_size", None)
        nothing = [{} for _ in asked.maps]
        return {"base": None, "patch": patch, "hidden": {}, "shown": nothing, "complete": True}
    singles = asked.keep[: asked.singles][:, segments]
    hidden = _stored(predictor, image, singles, base)
    shown = []
    for each in asked.maps:
        steps = np.linspace(0, len(each.thresholds) - 1, _COMPARED_STEPS).round().astype(int)
        steps = np.unique(steps).tolist()
        masks = each.keep()[steps][:, segments] if each.of_segments else each.masks()[steps]
        parts = _stored(predictor, image, masks, base)
        shown.append({steps[place]: part for place, part in parts.items()})
    complete = not hidden and not any(shown)
    address = picture(base)
    return {"base": address, "patch": None, "hidden": hidden, "shown": shown, "complete": complete}


def _stored(
    predictor: Any, image: np.ndarray, masks: np.ndarray, base: np.ndarray
) -> dict[int, Part]:
    """Returns parts of pictures that are not made of the image and the base, by place."""
    found = {}
    for start in range(0, len(masks), _AT_ONCE):
        some = masks[start : start + _AT_ONCE]
        padded = np.concatenate([some, np.repeat(some[-1:], _AT_ONCE - len(some), axis=0)])
        shown = painted(predictor, image, padded)[: len(some)]
        made = np.where(some[..., None], image, base)
        far = np.any(np.abs(shown - made) > _TOLERANCE, axis=-1)
        different = [i for i in range(len(some)) if far[i].any()]
        found |= {start + i: _part(shown[i], far[i], some[i]) for i in different}
    return found


def _part(shown: np.ndarray, far: np.ndarray, mask: np.ndarray) -> Part:
    """Returns the smallest part of a picture that holds all pixels that are marked.

    Browsers draw visible pixels over it, but where some of these are marked (`over`).
    """
    rows, columns = (np.flatnonzero(far.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    part = shown[top : rows[-1] + 1, left : columns[-1] + 1]
    over = bool((far & mask).any())
    return {"x": left, "y": top, "picture": picture(part, quality=_QUALITY), "over": over}
