"""Masks of several images in one pool: families of one kind, an image each."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lmjax.masks.families import MaskFamily


@dataclasses.dataclass(frozen=True, eq=False)
class PooledMasks:
    """Masks of several images, a family for each, made by the same function of arrays alike.

    Attributes:
      families: of M images, one or more, with equal `kind_of`.
    """

    families: Sequence[MaskFamily]

    def __post_init__(self):
        kinds = {kind_of(family) for family in self.families}
        if len(kinds) != 1:
            raise ValueError(f"families must be of one kind, got {len(kinds)}")

    @property
    def spatial_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.families[0].spatial_shape

    @property
    def make(self) -> Callable:
        """The families' function (shared, rows) -> masks, of one image."""
        return self.families[0].make

    @functools.cached_property
    def rows(self) -> Any:
        """The families' rows, one after the other."""
        rows = [family.rows for family in self.families]
        return jax.tree.map(lambda *x: np.concatenate(x), *rows)

    @functools.cached_property
    def shared(self) -> Any:
        """What the masks of an image share, with a leading axis M."""
        return jax.tree.map(lambda *x: np.stack(x), *(family.shared for family in self.families))

    @functools.cached_property
    def image_of(self) -> np.ndarray:
        """The image of each mask, ints `[N]`."""
        return np.repeat(np.arange(len(self.families)), [len(each) for each in self.families])

    def __len__(self) -> int:
        return sum(map(len, self.families))


def kind_of(family: MaskFamily) -> tuple:
    """Returns what families have in common that can be pooled, hashable."""
    leaves, tree = jax.tree.flatten((family.rows, family.shared))
    rows = len(jax.tree.leaves(family.rows))
    shapes = [np.shape(x)[1:] if i < rows else np.shape(x) for i, x in enumerate(leaves)]
    types = tuple(np.asarray(x).dtype for x in leaves)
    return tuple(family.spatial_shape), family.make, family.soft, tree, tuple(shapes), types
