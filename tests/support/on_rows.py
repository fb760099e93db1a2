"""Runs networks on rows of the visible positions of images, without an evaluator."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lmjax.masking.sparse.allocation import Allocation
from lmjax.masking.sparse.positions import Cut, Layout
from lmjax.masking.sparse.rows import Pixels


def record(network: Callable[[Pixels], Any], images, masks, **options) -> Layout:
    """Returns the layout of a network: its sets of positions and the index arrays it reads.

    Args:
      network: function of `Pixels`.
      images: `[N, H, W, C]`, or their shape and dtype.
      masks: `[N, H, W]`, likewise.
      **options: of `Layout`.
    """
    layout = Layout(num_variants=masks.shape[0], **options)

    def trace(images, masks):
        with contextlib.suppress(Cut):
            network(Pixels(images, masks, layout))

    jax.eval_shape(trace, images, masks)
    return layout


def prepare(
    network: Callable[[Pixels], Any], images, masks, *, spare: int = 0
) -> tuple[Callable, list[np.ndarray]]:
    """Returns a network on rows of visible positions, `(images, masks, arrays)`, and its arrays.

    Args:
      network: function of `Pixels`, whose result is returned.
      images: `[N, H, W, C]`.
      masks: `[N, H, W]`, 1 = visible.
      spare: rows of each set besides those that are needed.
    """
    masks = np.asarray(masks, bool)
    layout = record(network, images, masks)
    needed = Allocation(masks, layout).counts().sum(axis=0) + spare
    capacities = tuple(np.maximum(needed, 1).tolist())

    def compute(images, masks, arrays):
        layout = Layout(capacities, arrays, num_variants=len(masks))
        return network(Pixels(images, masks, layout))

    return compute, Allocation(masks, layout, capacities).arrays()


def run(network, images, masks, *, spare: int = 0, jit: Callable = jax.jit) -> Any:
    """Runs a network on rows of the visible positions of some images.

    Args:
      network, images, masks, spare: as in `prepare`.
      jit: compiles.
    """
    compute, arrays = prepare(network, images, masks, spare=spare)
    return jit(compute)(images, masks, arrays)
