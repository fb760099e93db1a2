"""Answers of a page: what the network says without each segment, and above each threshold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lmjax._utils.probabilities import probabilities
from lmjax.attribution.methods import WHOLE
from lmjax.evaluation import Evaluator
from lmjax.explanation.page.maps import Map
from lmjax.masks import Coalitions

if TYPE_CHECKING:
    from lmjax.explanation.result import Explanation

MOST_SINGLES = 256
"""Segments beyond which the network is not asked about each of them."""
_SHOWN_CLASSES = 3


class Asked(NamedTuple):
    """The variants of a page under one removal.

    Attributes:
      keep: `[N, S]`, coalitions: first those that hide one segment each, then those of the maps.
      masks: `[M, H, W]`, of maps of pixels.
      singles: how many of `keep` hide one segment.
      maps: those whose thresholds are asked about, in the order of their variants.
      places: of these among all maps of the page.
    """

    keep: np.ndarray
    masks: np.ndarray
    singles: int
    maps: tuple[Map, ...]
    places: tuple[int, ...]

    def parts(self, values: Sequence) -> tuple[Sequence, list[Sequence]]:
        """Divides values of all variants into those of single segments, and those of each map."""
        at = {True: self.singles, False: len(self.keep)}
        of_maps = []
        for each in self.maps:
            start = at[each.of_segments]
            at[each.of_segments] = start + len(each.thresholds)
            of_maps.append(values[start : start + len(each.thresholds)])
        return values[: self.singles], of_maps


def asked_of(explanation: "Explanation", maps: Sequence[Map], removal: str) -> Asked:
    """Returns the variants of a page under a removal: maps made under it, or without any."""
    places = tuple(i for i, each in enumerate(maps) if each.removal in (removal, WHOLE))
    mine = tuple(maps[i] for i in places)
    count = int(explanation.segments.max()) + 1
    singles = ~np.eye(count if count <= MOST_SINGLES else 0, count, dtype=bool)
    keep = [each.keep() for each in mine if each.of_segments]
    masks = [each.masks() for each in mine if not each.of_segments]
    empty = np.zeros((0, *explanation.segments.shape), bool)
    variants = np.concatenate([singles, *keep]), np.concatenate([empty, *masks])
    return Asked(*variants, len(singles), mine, places)


def answers_of(
    explanation: "Explanation", evaluator: Evaluator, asked: Asked
) -> list[dict[str, Any]]:
    """Asks the network about all variants of a page under a removal.

    Returns:
      For each variant, in the order of `asked`, the most probable classes with their probabilities
      (`top`), and the probabilities of the classes that are explained (`of`).
    """
    image, logits = explanation.image.pixels, []
    if len(asked.keep):
        different, which = np.unique(asked.keep, axis=0, return_inverse=True)
        family = Coalitions(explanation.segments, different)
        logits.append(evaluator(image, family)[which.reshape(-1)])
    if len(asked.masks):
        logits.append(evaluator(image, asked.masks))
    return [_answer(each, explanation.targets) for each in np.concatenate(logits)]


def _answer(logits: np.ndarray, targets: tuple[int, ...]) -> dict[str, Any]:
    found = np.asarray(probabilities(jnp.asarray(logits)))
    top = np.argsort(-found, kind="stable")[:_SHOWN_CLASSES]
    return {"top": [[int(i), found[i]] for i in top], "of": found[list(targets)]}
