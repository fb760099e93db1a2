"""Images that show a category, from datasets with panoptic segmentations such as COCO."""

import functools
import operator
from collections.abc import Mapping

import numpy as np

from lmjax._utils.checks import check_choice
from lmjax.data.files.images import read_image
from lmjax.data.source import Example, check_sizes

FEATURES = ("panoptic_image", "panoptic_objects")


class CategorySource:
    """The examples that show a category; their object masks cover everything that shows it.

    Args:
      source: examples, and their features undecoded (`lmjax.data.tfds.source.TfdsSource`).
      category: the name of one of `class_names`.
      class_names: of all categories.

    Raises:
      ValueError: no such category.
    """

    def __init__(self, source, category: str, class_names: tuple[str, ...]):
        check_choice("category", category, class_names)
        self._source, self.class_names = source, class_names
        self._label = class_names.index(category)
        self.version = f"{source.version}/{category}"

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        at = self._indices[operator.index(index)]
        values, example = self._source.values(at), self._source[at]
        segments = read_image(values["panoptic_image"], name=f"panoptic_image of {example.id}")
        # An object's number is red + 256 green + 256^2 blue (cocodataset.org/#format-data).
        numbers = segments.astype(np.int64) @ (1, 256, 256**2)
        mask = np.isin(numbers, self._objects(values))
        return check_sizes(example._replace(label=self._label, object_mask=mask), {})

    @functools.cached_property
    def _indices(self) -> list[int]:
        """Indices of the examples that show the category; all examples are read once, undecoded."""
        indices = range(len(self._source))
        return [i for i in indices if self._objects(self._source.values(i))]

    def _objects(self, values: Mapping) -> list[int]:
        objects = values["panoptic_objects"]
        return [i for i, label in zip(objects["id"], objects["label"]) if label == self._label]
