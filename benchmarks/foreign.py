"""`layer_mask` on networks that know nothing of masks, from eight libraries.

    python -m benchmarks.foreign

Prints the table of docs/foreign_networks.md.
"""

import gc
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks.harness import show
from lmjax.masking.transform import layer_mask
from lmjax.masking.transform.api import LayerMasked
from lmjax.masking.transform.convolutions import Convolution
from tests.support.compilations import compile_quickly
from tests.support.foreign_networks import NETWORKS, Foreign

WHOLE, NOTHING = 3, 4  # rows of `masks`; the last two show nothing


def masks(size: int) -> np.ndarray:
    """A half, a block, random squares, everything, and twice nothing: `[6, size, size]`."""
    half, block = np.zeros((2, size, size), bool)
    half[:, : size // 2] = True
    block[size // 3 : size // 3 + size // 4, size // 5 : size // 2] = True
    squares = np.kron(np.random.default_rng(0).random((8, 8)) < 0.4, np.ones((size // 8,) * 2)) > 0
    whole, nothing = np.ones((size, size), bool), np.zeros((size, size), bool)
    return np.stack([half, block, squares, whole, nothing, nothing])


def noise(network: Foreign) -> np.ndarray:
    """An image for each mask, as the network takes them."""
    size, count = network.size, len(masks(network.size))
    images = np.random.default_rng(1).standard_normal((count, size, size, 3), np.float32)
    return in_layout(network, images)


def in_layout(network: Foreign, images: np.ndarray) -> np.ndarray:
    """Images or masks `[N, H, W, C]` in the network's layout."""
    return images if network.layout == "NHWC" else images.transpose(0, 3, 1, 2)


def rings(masked: LayerMasked, params: Any, size: int) -> int:
    """How many rings of neighbor padding all convolutions fill."""
    images: Any = jax.ShapeDtypeStruct((6, size, size, 3), np.float32)
    steps = masked.trace(params, images).plan.steps
    return sum(int(step.rings) for step in steps if isinstance(step.node, Convolution))


def measure(network: Foreign) -> dict[str, Any]:
    """What the identities of docs/layer-masking.md give; errors over the largest plain logit."""
    start = time.perf_counter()
    apply, params = network.make(network.size)
    masked: Any = layer_mask(apply, layout=network.layout)  # type: ignore[arg-type]
    full = layer_mask(apply, layout=network.layout, shortcuts=False)  # type: ignore[arg-type]
    images, shown = noise(network), masks(network.size)
    run = jax.jit(masked)
    logits = np.asarray(run(params, images, shown))
    plain = np.asarray(jax.jit(apply)(params, images))
    poisoned = np.where(in_layout(network, shown[..., None]), images, np.nan).astype(np.float32)
    alone = np.asarray(run(params, images[2:3], shown[2:3]))[0]
    largest = np.abs(plain).max()
    return {
        "size": network.size,
        "everything visible": float(np.abs(logits[WHOLE] - plain[WHOLE]).max() / largest),
        "another batch size": float(np.abs(alone - logits[2]).max() / np.abs(logits[2]).max()),
        "hidden is not read": bool(
            np.array_equal(np.asarray(run(params, poisoned, shown)), logits)
        ),
        "nothing visible": bool(
            np.isfinite(logits).all() and np.array_equal(logits[NOTHING], logits[NOTHING + 1])
        ),
        "image is seen": float(np.ptp(logits[:WHOLE], axis=0).max() / largest),
        "rings": rings(masked, params, network.size),
        "of": rings(full, params, network.size),
        "seconds": time.perf_counter() - start,
    }


def table(names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yields a row for each network."""
    for name in names or tuple(NETWORKS):
        network = NETWORKS[name]
        row = {"network": name.strip(), "library": network.library}
        try:
            yield row | measure(network)
        except Exception as error:
            traceback.print_exc()
            yield row | {"size": network.size, "error": f"{type(error).__name__}: {error}"[:300]}
        jax.clear_caches()
        gc.collect()


def main(names: tuple[str, ...] = ()) -> None:
    """Prints the table.

    Args:
      names: of `tests.support.foreign_networks.NETWORKS`; all by default.
    """
    compile_quickly()
    show(table(names), networks=names or "all")


if __name__ == "__main__":
    tyro.cli(main)
