"""The accuracy of a classifier."""

import math
import warnings
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax._utils.sharding import check_mesh, divided, own_rows, replicated
from lmjax._utils.text import one_line
from lmjax.models.classifier import Classifier
from lmjax.training.batches import Batch, Reader, ahead

_BATCH = 100  # images of a device
_NO_LABEL = -1


@jax.jit
def _count(classifier: Classifier, images: jax.Array, labels: jax.Array) -> jax.Array:
    """How many images are classified right, and how many there are that count."""
    logits = classifier.logits(images.astype(jnp.float32) / 255)
    counts = labels != _NO_LABEL
    return jnp.stack([((logits.argmax(axis=-1) == labels) & counts).sum(), counts.sum()])


def accuracy(classifier: Classifier, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Returns the share of images, 0..1, whose largest logit is the label's; nothing masked.

    Args:
      classifier: the network.
      batches: of images, uint8 `[N, H, W, C]`, and labels, int `[N]`; -1 is of images that do not
        count.

    Raises:
      ValueError: no image counts.
    """
    right, total = _right_of_all(classifier, batches)
    if total == 0:
        raise ValueError("batches hold no image that counts: none, or only labels of -1")
    return right / total


def _right_of_all(
    classifier: Classifier, batches: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[int, int]:
    """Returns how many images are classified right, and how many there are that count."""
    counts = (_count(classifier, images, labels) for images, labels, *_ in batches)
    right, total = np.sum([np.zeros(2, int), *map(np.asarray, counts)], axis=0)
    return int(right), int(total)


def measure(classifier: Classifier, reader: Reader, *, mesh: Mesh | None = None) -> float:
    """Measures the accuracy, 0..1, on all examples of a source, nothing hidden.

    Examples that cannot be read, that have no label, or one that the network does not have, are
    left out, with a warning that counts them: a training that they ended would lose its work.

    Args:
      classifier: the network.
      reader: of the source.
      mesh: devices that share the images; see `lmjax.training.train`.

    Returns:
      The accuracy; NaN where all examples are left out.

    Raises:
      ValueError: a mesh that lacks devices of a process.
    """
    mesh = check_mesh(mesh, of_all_processes=True)
    length = len(reader.source)
    size = mesh.size * min(_BATCH, -(-length // mesh.size))
    own = own_rows(size, mesh)
    failed: dict[int, Exception] = {}

    def read_one(index: int) -> Batch | None:
        try:
            return reader([index])
        except Exception as error:  # a source is the user's code, which may raise anything
            failed[index] = error
            return None

    def read(start: int) -> tuple[np.ndarray, np.ndarray]:
        rows = start + own
        found = [read_one(i) for i in np.minimum(rows, length - 1).tolist()]  # filled up at the end
        none = next(filter(None, found), _black(reader))
        images = np.concatenate([(each or none).images for each in found])
        labels = [each.labels[0] if each else _NO_LABEL for each in found]
        return images, np.where(rows < length, labels, _NO_LABEL).astype(np.int32)

    batches = (divided(each, mesh) for each in ahead(read, range(0, length, size)))
    right, total = _right_of_all(replicated(classifier, mesh), batches)
    if failed:
        first = min(failed)
        warnings.warn(
            f"{len(failed)} of {length} test images cannot be used and are left out of the "
            f"accuracy; the first is image {first}: {one_line(failed[first])}",
            stacklevel=2,
        )
    return right / total if total else math.nan


def _black(reader: Reader) -> Batch:
    """Returns an image that stands for those that cannot be read, where none of a batch can."""
    image = reader.preprocessing(np.zeros((64, 64, len(reader.preprocessing.mean)), np.uint8))
    return Batch(np.zeros((1, *image.shape), np.uint8), np.full(1, _NO_LABEL, np.int32))
