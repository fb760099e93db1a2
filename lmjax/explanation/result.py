"""The result of `lmjax.explain`: attributions of an image, to be drawn and saved."""

import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lmjax.attribution import Attribution
from lmjax.evaluation.shares import Shares
from lmjax.explanation.classes import class_name
from lmjax.explanation.config import ExplanationConfig
from lmjax.explanation.images import InputImage
from lmjax.explanation.variants import Variant
from lmjax.metrics import Curve
from lmjax.models import Classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Result(NamedTuple):
    """One method under one removal.

    Attributes:
      attribution: for one class; for T classes where `top_k` asked for several, the most probable
        first.
      seconds: time it took, compilation included.
      compiling: seconds of it for tracing and compiling programs.
      metrics: values by name, those of `lmjax.explanation.metrics`, for the first class.
      curves: deletion and insertion by name, where asked for.
      shares: of the image that the variants show, the mean over them; None where nothing is removed
        or the method does not evaluate masks.
    """

    attribution: Attribution
    seconds: float
    compiling: float
    metrics: dict[str, float]
    curves: dict[str, Curve]
    shares: Shares | None = None


def of_class(attribution: Attribution, index: int) -> Attribution:
    """Returns the attribution of one of its classes, by its place among them."""
    if not isinstance(attribution.target, tuple):
        return attribution
    each = ("scores", "probability", "standard_error", "intercept", "r2")
    values = {name: getattr(attribution, name) for name in each}
    values = {name: value[index] for name, value in values.items() if value is not None}
    return dataclasses.replace(
        attribution, target=attribution.target[index], samples=None, **values
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """The attributions of an image, by method and removal.

    Example:
      >>> explanation = lmjax.explain("photo.jpg", removal=("layer", "grey"))
      >>> explanation  # in a notebook: the figure
      >>> explanation["lime", "layer"].attribution.heatmap  # [H, W]
      >>> explanation.save("photo-explained.png")

    Attributes:
      config: the settings.
      classifier: the network that was explained.
      image: the image as the network was given it.
      segments: `[H, W]`.
      results: by (method, removal), in the order in which they were computed; methods that remove
        nothing have `lmjax.attribution.methods.WHOLE` as removal.
      variants: a few variants as the network was shown them.
      files: the figure, the arrays and the record that `lmjax.explain` wrote, and the page where
        it was asked for; empty without `output`.
    """

    config: ExplanationConfig
    classifier: Classifier = dataclasses.field(repr=False)
    image: InputImage
    segments: np.ndarray
    results: dict[tuple[str, str], Result]
    variants: tuple[Variant, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that have results."""
        return tuple(dict.fromkeys(method for method, _ in self.results))

    @property
    def targets(self) -> tuple[int, ...]:
        """The classes that are explained."""
        target = next(iter(self.results.values())).attribution.target
        assert target is not None  # commands explain classes
        return target if isinstance(target, tuple) else (target,)

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

    def save(self, path: str | os.PathLike) -> tuple[Path, ...]:
        """Writes a figure, the arrays (.npz) and a record (.json), all three or none.

        Where the settings have `html=True`, a page (.html) follows; else one that is there stays.

        Args:
          path: the figure, `.png`, `.jpg`, `.pdf` or `.svg`. The others go beside it.

        Returns:
          The files.

        Raises:
          ValueError: another suffix.
          OSError: a file that cannot be written.
        """
        from lmjax.explanation.compute import write_all
        from lmjax.explanation.files import check_output

        files = check_output(path, page=self.config.html)
        write_all(self, files)
        return files

    def save_page(self, path: str | os.PathLike) -> Path:
        """Writes a page to be looked at in a browser, without a server or a network.

        The network is asked about each segment hidden alone, and about each threshold of each map.

        Example:
          >>> lmjax.explain("photo.jpg", method=("lime", "rise")).save_page("photo.html")

        Args:
          path: of the page, `.html`. A page of another explanation is replaced.

        Returns:
          The path.

        Raises:
          ValueError: another suffix, or a file that is no page of an explanation.
          OSError: the file cannot be written.
        """
        from lmjax.explanation.compute import write_page_of
        from lmjax.explanation.page import check_page

        path = check_page(path)
        write_page_of(self, path)
        return path

    def __repr__(self) -> str:
        return (
            f"Explanation of {self.image.name} for {self.config.objective or 'class'} "
            f"{self._target_names()}: "
            f"{', '.join('/'.join(pair) for pair in self.results)}"[:299]
        )

    def _repr_png_(self) -> bytes | None:
        """Returns the figure, which notebooks show."""
        from lmjax import plots

        if not self.results:
            return None
        contents = io.BytesIO()
        plots.save(self.figure(), contents, format="png")
        return contents.getvalue()

    def _target_names(self) -> str:
        if not self.results:
            return "none"
        return ", ".join(class_name(target, self.classifier) for target in self.targets)


class Failure(NamedTuple):
    """A photograph that could not be explained.

    Attributes:
      image: as it was given.
      error: why.
    """

    image: str
    error: Exception


class Written(NamedTuple):
    """What is kept of the explanations of several photographs that are in files.

    Attributes:
      table: of the results, as text.
      files: all that were written.
      failures: photographs that could not be explained.
    """

    table: str
    files: tuple[Path, ...]
    failures: tuple[Failure, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Explanations(Sequence[Explanation]):
    """The explanations of several photographs, in the order in which these were given.

    Example:
      >>> explanations = lmjax.explain(["cat.jpg", "dog.jpg"], top_k=3)
      >>> for explanation in explanations: ...
      >>> print(explanations.summary())
      >>> explanations.failures  # of photographs that could not be read

    Attributes:
      explanations: of the photographs that could be explained.
      failures: of the others.
    """

    explanations: tuple[Explanation, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that `lmjax.explain` wrote."""
        return tuple(file for explanation in self.explanations for file in explanation.files)

    def __len__(self) -> int:
        """Returns the number of photographs that were explained."""
        return len(self.explanations)

    def __getitem__(self, index):
        """Returns the explanation of a number, from 0; or those of a slice."""
        return self.explanations[index]

    def summary(self) -> str:
        """Returns one table of the results of all photographs as text."""
        from lmjax.explanation.render import table

        return table(*self.explanations)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"Explanations of {len(self)} photographs{failed}"
