"""Batches of a source; the examples of a step depend on the seed and the step alone."""

import collections
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from lmjax.data.source import Example, Source, read_example
from lmjax.models.preprocessing import Preprocessing

# Few sources can be read by several threads, and images of a training and of its test, which are
# read ahead by a thread each, may be of one source or file.
_reading = threading.Lock()


class Batch(NamedTuple):
    """Examples after a network's preprocessing.

    Attributes:
      images: uint8 `[N, H, W, C]`.
      labels: int32 `[N]`.
      objects: `[N, H, W]` bool, True on the object, where asked for.
    """

    images: np.ndarray
    labels: np.ndarray
    objects: np.ndarray | None = None


class Reader(NamedTuple):
    """A reader of the examples of a source.

    Attributes:
      source: has a length, and `source[i]` has `image`, `label` and where asked for `object_mask`.
      preprocessing: the network's.
      num_classes: the network's.
      objects: whether object masks are needed.
    """

    source: Source
    preprocessing: Preprocessing
    num_classes: int
    objects: bool = False

    def __call__(self, indices: Iterable[int]) -> Batch:
        """Reads the examples of some indices, while no other thread reads any.

        Raises:
          ValueError: an example without label or object mask, or with a label out of range.
        """
        examples = [self._read(int(i)) for i in indices]
        for example in examples:
            self._check(example)
        images = [np.rint(self.preprocessing(e.image) * 255).astype(np.uint8) for e in examples]
        masks = None
        if self.objects:
            found = (e.object_mask for e in examples if e.object_mask is not None)  # of all
            masks = np.stack([self.preprocessing.for_mask(each) for each in found])
        return Batch(np.stack(images), np.array([e.label for e in examples], np.int32), masks)

    def _read(self, index: int) -> Example:
        with _reading:
            return read_example(self.source, index)

    def _check(self, example: Example) -> None:
        if example.label is None:
            raise ValueError(f"source has no label for {example.id}; training needs one for each")
        if not 0 <= example.label < self.num_classes:
            raise ValueError(
                f"label of {example.id} is {example.label}, and the network has classes 0 to "
                f"{self.num_classes - 1}; give num_classes, more than the largest label"
            )
        if self.objects and example.object_mask is None:
            raise ValueError(
                f"source has no object mask for {example.id}, which augmentation objects needs"
            )


def indices(step: int, *, length: int, batch_size: int, seed: int) -> list[int]:
    """Returns the indices into the source of the batch of a step (from 0).

    Passes over the source follow each other without a gap; each has an order of its own.
    """
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(_order(length, seed, i // length)[i % length]) for i in positions]


@functools.lru_cache(maxsize=2)  # a batch may span two passes
def _order(length: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng((seed, number)).permutation(length)


def ahead(function: Callable, arguments: Iterable, *, depth: int = 8) -> Iterator:
    """Maps in a background thread, at most `depth` results ahead of the reader."""
    executor = ThreadPoolExecutor(1)
    pending = collections.deque()
    try:
        for argument in arguments:
            pending.append(executor.submit(function, argument))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
