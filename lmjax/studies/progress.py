"""The progress of a run: images done, and the time left for the whole of it."""

import contextlib
from collections.abc import Iterator
from typing import Any

from lmjax._utils.progress import description, heard, progress_bar


class Progress:
    """A bar over the images of a run, with what is being evaluated beside it.

    Images are measured in blocks. Once a block is done, the variants that it took tell how far the
    next one is, so that the bar goes on image by image.

    Args:
      name: of the study.
      images: of the run.
      done: how many of them an earlier run has stored.
      shown: as in `lmjax.studies.run`.
    """

    def __init__(self, name: str, *, images: int, done: int, shown: bool | None):
        self._bar: Any = progress_bar(
            shown, total=images, initial=done, desc=name, unit=" images", smoothing=0
        )
        self._variants_per_image: float | None = None
        self._variants = self._images = self._shown = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    @contextlib.contextmanager
    def block(self, images: int) -> Iterator[None]:
        """Counts the images of a block: those that seem done while it runs, all at its end."""
        self._variants, self._images, self._shown = 0, images, 0
        with heard(self._evaluated):
            yield
        if self._variants:
            self._variants_per_image = self._variants / images
        self._show(images)

    def _evaluated(self, variants: int) -> None:
        self._variants += variants
        self._bar.set_postfix_str(description(), refresh=False)
        seem_done = 0
        if self._variants_per_image:
            seem_done = min(int(self._variants / self._variants_per_image), self._images - 1)
        self._show(seem_done)

    def _show(self, images: int) -> None:
        self._bar.update(max(images - self._shown, 0))
        self._shown = max(images, self._shown)
