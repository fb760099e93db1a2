"""Memory maps and resident memory over images of many sizes: `python -m benchmarks.growth`.

Every size of images, and every range of numbers of segments, is another program to compile. A
process of its own explains one image after the other, and reads what it has grown by. Linux only.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import lmjax
from benchmarks.harness import run_alone, show

_LEAST, _STEP, _LEAST_SEGMENTS = 32, 4, 5
_CLASSES = 4


class Grown(NamedTuple):
    """What a process has grown by after some images.

    Attributes:
      images: how many.
      maps: memory maps, of which Linux grants a process 65,530.
      memory: resident, in MiB.
    """

    images: int
    maps: int
    memory: float


def network(image: jax.Array, masks: jax.Array) -> jax.Array:
    """Returns logits `[N, 4]` of the mean visible colour: a network that takes any size."""
    mean = jnp.where(masks[..., None] != 0, image, 0.5).mean(axis=(1, 2))
    weights = np.random.default_rng(0).normal(size=(3, _CLASSES)).astype(np.float32)
    return 3 * jnp.matmul(mean, weights, precision="highest")


def image_of(number: int, sizes: int, segment_counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes an image and its segments; sizes and numbers of segments take turns."""
    down, right = divmod(number % sizes, 20)
    shape = _LEAST + _STEP * right, _LEAST + _STEP * down
    count, pixels = _LEAST_SEGMENTS + 7 * number % segment_counts, shape[0] * shape[1]
    segments = (np.arange(pixels) * count // pixels).reshape(shape)
    image = np.random.default_rng(number).random((*shape, 3))
    return image.astype(np.float32), segments.astype(np.int32)


def explain(
    images: int, sizes: int, segment_counts: int, samples: int, every: int
) -> tuple[list[Grown], bool]:
    """Explains images by LIME in this process.

    Returns:
      How much the process has grown at intervals of images, and whether the first image, explained
      again at the end, gives the same bits.
    """
    warnings.simplefilter("ignore", UserWarning)  # few samples will do

    def lime(number: int) -> np.ndarray:
        image, segments = image_of(number, sizes, segment_counts)
        options: dict[str, Any] = {"key": jax.random.key(number), "num_samples": samples}
        return lmjax.attribution.lime(network, image, segments, **options).scores

    start, found, first = _usage(), [], lime(0)
    for number in range(images):
        lime(number)
        if (number + 1) % every == 0 or number + 1 == images:
            grown = np.subtract(_usage(), start)
            found.append(Grown(number + 1, int(grown[0]), float(grown[1])))
    return found, np.array_equal(first, lime(0))


def _usage() -> tuple[int, float]:
    """Returns memory maps, and resident memory in MiB."""
    maps = Path("/proc/self/maps").read_bytes().count(b"\n")
    status = Path("/proc/self/status").read_text()
    return maps, int(status.split("VmRSS:")[1].split()[0]) / 1024


def main(
    *,
    images: int = 1000,
    sizes: int = 200,
    segment_counts: int = 300,
    samples: int = 400,
    every: int = 100,
) -> None:
    """Measures what LIME makes a process grow by.

    Args:
        images: how many, one after the other.
        sizes: how many different sizes they have, at most; from 32 x 32 pixels in steps of 4.
        segment_counts: how many different numbers of segments, from 5.
        samples: coalitions of each image.
        every: after how many images a row is printed.
    """
    found, same = run_alone(explain, images, sizes, segment_counts, samples, every)

    def rows() -> Iterator[dict[str, Any]]:
        for grown in found:
            yield {"images": grown.images, "maps": grown.maps, "MiB": round(grown.memory)}

    show(rows(), sizes=sizes, segment_counts=segment_counts, samples=samples)
    print(f"the first image again: {'the same bits' if same else 'OTHER BITS'}")


if __name__ == "__main__":
    tyro.cli(main)
