"""How often a classifier is right."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.models.classifier import Classifier
from lmjax.training.batches import Reader, ahead

_BATCH = 100


@jax.jit
def _predict(classifier: Classifier, images: jax.Array) -> jax.Array:
    return classifier.apply(classifier.normalise(images.astype(jnp.float32) / 255)).argmax(axis=-1)


def accuracy(classifier: Classifier, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Share of images, 0..1, whose largest logit is the label's; nothing masked.

    Args:
      classifier: the network.
      batches: of images, uint8 `[N, H, W, C]`, and labels, int `[N]`.
    """
    right = total = 0
    for images, labels, *_ in batches:
        right += int((np.asarray(_predict(classifier, images)) == labels).sum())
        total += len(labels)
    return right / total


def measure(classifier: Classifier, reader: Reader) -> float:
    """Accuracy, 0..1, on all examples of a source, nothing hidden.

    Args:
      classifier: the network.
      reader: of the source.
    """
    length = len(reader.source)
    parts = [range(i, min(i + _BATCH, length)) for i in range(0, length, _BATCH)]
    return accuracy(classifier, ahead(reader, parts))
