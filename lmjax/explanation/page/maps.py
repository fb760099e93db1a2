"""Maps of a page: scores of segments or levels of pixels, and thresholds of them."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmjax._utils.pages import packed
from lmjax.attribution import methods
from lmjax.explanation.classes import class_name
from lmjax.explanation.render import drawn, meaningless, noted
from lmjax.explanation.result import of_class

if TYPE_CHECKING:
    from lmjax.explanation.result import Explanation

_MOST_STEPS = 48
_PIXEL_STEPS = 20
_TOP_LEVEL = 65535


class Map(NamedTuple):
    """A method under a removal, for one class.

    Attributes:
      method, removal: their names.
      index: of the class among those that are explained.
      scores: `[S]`, or the heatmap `[H, W]` of a method that scores pixels.
      levels: of a heatmap, int `[H, W]`: 0 at its lowest value, 65535 at its highest.
      thresholds: rising parts of the map, from nothing to all: of segments, how many, the highest
        scores first; of pixels, the lowest level.
      about: further entries of the page's data.
    """

    method: str
    removal: str
    index: int
    scores: np.ndarray
    levels: np.ndarray | None
    thresholds: tuple[int, ...]
    about: dict[str, Any]

    @property
    def of_segments(self) -> bool:
        """Whether segments are scored, not pixels."""
        return self.levels is None

    def keep(self) -> np.ndarray:
        """Returns the coalitions `[N, S]` of the thresholds, of a map of segments."""
        ranks = np.argsort(np.argsort(-self.scores, kind="stable"), kind="stable")
        return ranks < np.array(self.thresholds)[:, None]

    def masks(self) -> np.ndarray:
        """Returns the masks `[N, H, W]` of the thresholds, of a map of pixels."""
        assert self.levels is not None
        return self.levels >= np.array(self.thresholds)[:, None, None]

    def data(self) -> dict[str, Any]:
        """Returns the map for the page's script."""
        return {
            "method": self.method,
            "removal": self.removal,
            "class": self.index,
            "scores": self.scores if self.of_segments else None,
            "levels": None if self.levels is None else packed(self.levels),
            "range": [self.scores.min(), self.scores.max()],
            "thresholds": self.thresholds,
            **self.about,
        }


def maps_of(explanation: "Explanation") -> list[Map]:
    """Returns the maps of all results, for each class."""
    limits = {}
    found = []
    for method, removal in explanation.results:
        for index in range(len(explanation.targets)):
            each = _map(explanation, method, removal, index)
            found.append(each)
            if not each.about["reason"]:
                limit = float(np.abs(each.scores).max())
                limits[method, index] = max(limits.get((method, index), 0.0), limit)
    for each in found:  # one scale for all removals, as in figures
        each.about["limit"] = limits.get((each.method, each.index)) or 1.0
    return found


def _map(explanation: "Explanation", method: str, removal: str, index: int) -> Map:
    result = explanation.results[method, removal]
    attribution = of_class(result.attribution, index)
    about = methods.get(method)
    name = f"“{class_name(explanation.targets[index], explanation.classifier)}”"
    shown = {
        "unit": about.unit_of(name, explanation.config.objective),
        "signed": about.signed,
        "notes": noted(result, attribution, index),
        "reason": meaningless(attribution),
        "variants": attribution.num_variants,
        "errors": None,
    }
    same = attribution.segments is not None and np.array_equal(
        attribution.segments, explanation.segments
    )
    if not same or about.centred:
        values = drawn(attribution, method)
        levels = _levels(values)
        thresholds = _pixel_thresholds(levels)
        return Map(method, removal, index, values, levels, thresholds, shown)
    shown["errors"] = attribution.standard_error
    scores = np.asarray(attribution.scores)
    return Map(method, removal, index, scores, None, _segment_thresholds(scores), shown)


def _segment_thresholds(scores: np.ndarray) -> tuple[int, ...]:
    """Returns how many segments each threshold shows; equal scores are shown together."""
    ordered = -np.sort(-scores)
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) + 1
    chosen = np.unique(np.linspace(0, len(last) - 1, min(len(last), _MOST_STEPS)).round())
    return (0, *last[chosen.astype(int)].tolist())


def _levels(values: np.ndarray) -> np.ndarray:
    """Returns a heatmap in whole numbers, from 0 at its lowest value to 65535."""
    low, range_ = values.min(), np.ptp(values)
    return np.rint((values - low) / (range_ or 1.0) * _TOP_LEVEL).astype(np.int64)


def _pixel_thresholds(levels: np.ndarray) -> tuple[int, ...]:
    """Returns levels from which pixels are shown: none, then ever larger shares, at last all."""
    ordered = -np.sort(-levels.ravel())
    places = np.linspace(0, levels.size, _PIXEL_STEPS + 1)[1:].astype(int) - 1
    return (_TOP_LEVEL + 1, *dict.fromkeys(ordered[places].tolist()))
