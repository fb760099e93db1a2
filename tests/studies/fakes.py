"""A small network and a small source, for fast tests of studies."""

import contextlib
import dataclasses
import functools
import time
from typing import ClassVar

import numpy as np

from lmjax import plots
from lmjax.models import Preprocessing
from lmjax.studies import registry, statistics
from lmjax.studies.settings import for_tables
from lmjax.studies.study import Study
from tests.support.small_classifier import small_classifier

SIZE = 32
AS_IT_IS = Preprocessing(resize=None, crop=None, mean=(0.5,) * 3, std=(0.5,) * 3)


@functools.cache  # what is compiled for one serves all tests
def network(seed: int = 0):
    """Ten classes, told by all visible pixels."""
    classifier = small_classifier((SIZE, SIZE, 3), num_classes=10, seed=seed)
    return dataclasses.replace(classifier, preprocessing=AS_IT_IS)


@contextlib.contextmanager
def registered(study):
    """A study that commands and reports know for as long as the context lasts."""
    registry.register(study)
    try:
        yield study
    finally:
        registry.unregister(study.name)


def pick(rows, **wanted):
    """Rows with these values."""
    return [row for row in rows if all(row[k] == v for k, v in wanted.items())]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brightness(Study):
    """A row for each image and colour, with its mean; asks no network.

    Attributes:
      colours: channels.
      seconds: to wait for each image.
      unit: of the table.
    """

    name: ClassVar[str] = "brightness"
    title: ClassVar[str] = "Brightness"
    colours: tuple[int, ...] = (0, 1, 2)
    seconds: float = 0.0
    unit: str = for_tables("grey levels")

    def rows(self, batch):
        found = []
        for sample in batch.samples:
            if sample.image.ndim != 3:
                raise ValueError(f"image {sample.id} has shape {sample.image.shape}")
            time.sleep(self.seconds)
            for colour in self.colours:
                mean = float(sample.image[..., colour].mean())
                found.append({"image": sample.index, "colour": colour, "mean": mean})
        return found

    def tables(self, rows):
        groups = statistics.groups(rows, ["colour"])
        return {"means": [{**g.key, "mean": float(g.columns["mean"].mean())} for g in groups]}

    def figures(self, tables):
        line = plots.Line(
            "mean", *([row[k] for row in tables["means"]] for k in ("colour", "mean"))
        )
        return {
            "means": plots.charts([[plots.Chart("means", "colour", self.unit, [line])]], title="")
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers(Study):
    """What networks answer about the left half of each image."""

    name: ClassVar[str] = "answers"
    title: ClassVar[str] = "Answers"

    def rows(self, batch):
        (network,) = batch.networks
        left = np.broadcast_to(np.arange(SIZE) < SIZE // 2, (SIZE, SIZE))
        image_of = np.arange(len(batch.samples))
        logits = batch.logits(network, "layer", np.stack([left] * len(image_of)), image_of)
        return batch.predictions(network, logits, image_of)

    def tables(self, rows):
        return {}

    def figures(self, tables):
        return {}


class Source:
    """Random images with an object, a square; indices in `broken` cannot be read."""

    version = "fake/1"

    def __init__(self, length: int, *, broken=(), misshapen=()):
        self.length, self.broken, self.misshapen = length, broken, misshapen

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError(f"image {index} is truncated")
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        mask = np.zeros((SIZE, SIZE), bool)
        top, left = rng.integers(SIZE // 2, size=2)
        mask[top : top + SIZE // 4, left : left + SIZE // 4] = True
        return {
            "id": f"fake/{index}",
            "image": image[..., 0].astype(float) if index in self.misshapen else image,
            "label": index % 10,
            "object_mask": mask,
        }
