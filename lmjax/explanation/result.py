"""The result of `lmjax.explain`: attributions of an image, to be drawn and saved."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lmjax.attribution import Attribution
from lmjax.explanation.config import ExplanationConfig
from lmjax.explanation.images import InputImage
from lmjax.metrics import Curve
from lmjax.models import Classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Result(NamedTuple):
    """One method under one removal.

    Attributes:
      attribution: for one class.
      seconds: time it took, compilation included.
      metrics: values by name, those of `lmjax.explanation.metrics`.
      curves: deletion and insertion by name, where asked for.
    """

    attribution: Attribution
    seconds: float
    metrics: dict[str, float]
    curves: dict[str, Curve]


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """The attributions of an image, by method and removal.

    Example:
      >>> explanation = lmjax.explain("photo.jpg", removal=("layer", "grey"))
      >>> explanation["lime", "layer"].attribution.heatmap  # [H, W]
      >>> explanation.save("photo-explained.png")

    Attributes:
      config: the settings.
      classifier: the network that was explained.
      image: the image as the network was given it.
      segments: `[H, W]`.
      results: by (method, removal), in the order in which they were computed; methods that remove
        nothing have `lmjax.attribution.methods.WHOLE` as removal.
      files: the figure, the arrays and the record that `lmjax.explain` wrote; empty without
        `output`.
    """

    config: ExplanationConfig
    classifier: Classifier = dataclasses.field(repr=False)
    image: InputImage
    segments: np.ndarray
    results: dict[tuple[str, str], Result]
    files: tuple[Path, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that have results."""
        return tuple(dict.fromkeys(method for method, _ in self.results))

    @property
    def removals(self) -> tuple[str, ...]:
        """Names of the removals that have results."""
        return tuple(dict.fromkeys(removal for _, removal in self.results))

    def __getitem__(self, pair: tuple[str, str]) -> Result:
        """Returns the result of a (method, removal)."""
        return self.results[pair]

    def figure(self) -> "Figure":
        """Draws the heatmaps: a row of panels for one method, a grid for several."""
        from lmjax.explanation.render import draw

        return draw(self)

    def summary(self) -> str:
        """Returns a table of the results as text."""
        from lmjax.explanation.render import table

        return table(self)

    def save(self, path: str | os.PathLike) -> tuple[Path, Path, Path]:
        """Writes a figure, the arrays (.npz) and a record (.json), all three or none.

        Args:
          path: the figure, `.png`, `.pdf` or `.svg`. The others go beside it.

        Returns:
          The three files.

        Raises:
          ValueError: another suffix.
          OSError: a file that cannot be written.
        """
        from lmjax.explanation.files import check_output, write

        files = check_output(path)
        write(self, files)
        return files

    def __repr__(self) -> str:
        return (
            f"Explanation of {self.image.name} for class {self._target_name()}: "
            f"{', '.join('/'.join(pair) for pair in self.results)}"[:299]
        )

    def _target_name(self) -> str:
        if not self.results:
            return "none"
        from lmjax.explanation.render import class_name, first_attribution

        return class_name(first_attribution(self).target, self.classifier)
