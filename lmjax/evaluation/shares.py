"""Which share of an image variants show: by their masks, and to the network."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from lmjax.evaluation.evaluator import Evaluator
from lmjax.masks.families import as_family, shares

_NOTED = 0.1


class Shares(NamedTuple):
    """Shares of an image, the mean over some variants.

    Attributes:
      visible: what the masks leave visible.
      shown: what the network is shown, which is less where token dropping hides patches that a mask
        cuts.
    """

    visible: float
    shown: float

    def note(self) -> str:
        """Returns what a figure says of them: "" unless they differ by more than a tenth."""
        if abs(self.shown - self.visible) <= _NOTED * self.visible:
            return ""
        return f"shows {self.shown:.0%} where masks show {self.visible:.0%}"


@dataclasses.dataclass(frozen=True, eq=False)
class Observed(Evaluator):
    """An evaluator that remembers which masks it has evaluated.

    Attributes:
      predictor: an `lmjax.Predictor`.
      evaluated: the masks of each call.
    """

    _: dataclasses.KW_ONLY
    evaluated: list[Any] = dataclasses.field(default_factory=list, repr=False)

    def __call__(self, image, masks, *, expected: int | None = None) -> np.ndarray:
        self.evaluated.append(masks)
        return super().__call__(image, masks, expected=expected)

    def shares(self, count: int) -> Shares | None:
        """Returns the shares of all variants so far.

        Args:
          count: how many there are to be; where there are others, such as gradients, the shares are
            not known: None.
        """
        families = [as_family(each, soft=self.soft_masks) for each in self.evaluated]
        if sum(map(len, families)) != count:
            return None
        patch_size: int | None = getattr(self.predictor, "patch_size", None)
        visible = np.concatenate([shares(family) for family in families]).mean()
        if patch_size is None:
            return Shares(float(visible), float(visible))
        shown = np.concatenate([shares(each, patch_size=patch_size) for each in families]).mean()
        return Shares(float(visible), float(shown))
