"""The accuracy of a classifier."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax._utils.sharding import check_mesh, divided, own_rows, replicated
from lmjax.models.classifier import Classifier
from lmjax.training.batches import Reader, ahead

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
    counts = (_count(classifier, images, labels) for images, labels, *_ in batches)
    right, total = np.sum([np.zeros(2, int), *map(np.asarray, counts)], axis=0)
    if total == 0:
        raise ValueError("batches hold no image that counts: none, or only labels of -1")
    return int(right) / int(total)


def measure(classifier: Classifier, reader: Reader, *, mesh: Mesh | None = None) -> float:
    """Measures the accuracy, 0..1, on all examples of a source, nothing hidden.

    Args:
      classifier: the network.
      reader: of the source.
      mesh: devices that share the images; see `lmjax.training.train`.

    Raises:
      ValueError: examples without labels, or with labels that the network does not have; a mesh
        that lacks devices of a process.
    """
    mesh = check_mesh(mesh, of_all_processes=True)
    length = len(reader.source)
    size = mesh.size * min(_BATCH, -(-length // mesh.size))
    own = own_rows(size, mesh)

    def read(start: int) -> tuple[np.ndarray, np.ndarray]:
        rows = start + own
        batch = reader(np.minimum(rows, length - 1))  # the last batch is filled up
        return batch.images, np.where(rows < length, batch.labels, np.int32(_NO_LABEL))

    batches = ahead(read, range(0, length, size))
    return accuracy(replicated(classifier, mesh), (divided(each, mesh) for each in batches))
