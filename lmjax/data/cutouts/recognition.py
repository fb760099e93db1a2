"""Scenes that a network recognises, which studies of what it loses begin with."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from lmjax._utils.checks import check_whole
from lmjax.data.cutouts.scenes import CutoutScene
from lmjax.models import Classifier


def recognised(
    scenes: Iterable[CutoutScene], classifier: Classifier, *, batch_size: int = 16
) -> Iterator[CutoutScene]:
    """Selects the scenes whose class, as a network predicts it, is one of those that are right.

    Their label is the class that the network gives. Other networks may give another one that is
    right too (`CutoutScene.classes`), and count as wrong where only labels are compared.

    Example:
      >>> network = lmjax.models.load("tf_efficientnet_lite0")
      >>> scenes = lmjax.data.CutoutScenes(length=200)
      >>> kept = list(lmjax.data.recognised(scenes, network))

    Args:
      scenes: scenes of one size. They are taken a batch at a time.
      classifier: a network of ImageNet's 1000 classes.
      batch_size: images that the network sees together.

    Yields:
      The scenes, in their order.

    Raises:
      ValueError: a network with another number of classes.
    """
    check_whole("batch_size", batch_size, least=1)
    scenes = iter(scenes)
    while batch := list(itertools.islice(scenes, batch_size)):
        images = np.stack([classifier.preprocessing(scene.image) for scene in batch])
        padding = [(0, batch_size - len(batch)), (0, 0), (0, 0), (0, 0)]
        logits = np.asarray(classifier.logits(np.pad(images, padding)))
        if logits.shape[1] != 1000:
            raise ValueError(
                f"classifier must have ImageNet's 1000 classes; it has {logits.shape[1]}"
            )
        for scene, label in zip(batch, logits.argmax(axis=1)):
            if label in scene.classes:
                yield dataclasses.replace(scene, label=int(label))
