"""Samples: what a study reads of a source."""

import dataclasses

import numpy as np

from lmjax.data.source import Source, read_example


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """An image of a source.

    Attributes:
      index: its place in the source.
      id: the source's name for it, or else its index.
      image: uint8 `[H, W, C]`.
      label: the true class, where known.
      object_mask: `[H, W]` bool, where known.
      tight_mask: `[H, W]` bool, the object without a soft edge, where known.
      saliency: `[H, W]`, where people or a method look, where known.
    """

    index: int
    id: str
    image: np.ndarray
    label: int | None = None
    object_mask: np.ndarray | None = None
    tight_mask: np.ndarray | None = None
    saliency: np.ndarray | None = None


def read_sample(source: Source, index: int) -> Sample:
    """Reads item `index` of a source, whose items are objects or mappings.

    Args:
      source: as in `lmjax.studies.run`.
      index: from 0.

    Raises:
      ValueError: a mask or heatmap whose size is not its image's; and the source's own errors.
    """
    example = read_example(source, index)
    names = (field.name for field in dataclasses.fields(Sample) if field.name != "index")
    return Sample(index, **{name: getattr(example, name) for name in names})
