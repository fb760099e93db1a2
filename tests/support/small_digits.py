"""A network of one convolution in the place of the one that comes with lmjax.

For tests of what goes by its name, where what it answers is no part of the claim.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from lmjax.models import checkpoints, registry
from tests.training.small_network import Small

NAME = "resnet18_digits"


def replace(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes `resnet18_digits`, and its weights "cheat", those of a small network in a folder."""
    files = [
        write(folder / f"{name}.safetensors", seed) for seed, name in enumerate((NAME, "cheat"))
    ]
    small = dataclasses.replace(
        registry.network(NAME),
        constructor=lambda num_classes=10, **options: Small(num_classes=num_classes, **options),
        bundled=files[0],
        also_bundled={"cheat": files[1]},
        parameters=None,
    )
    entries = registry._registry()._entries
    patch.setitem(entries, NAME, entries[NAME]._replace(value=small))


def write(path: Path, seed: int, *, num_classes: int = 10) -> Path:
    """Writes random weights of the small network."""
    rng = np.random.default_rng(seed)
    shapes = checkpoints.abstract_variables(Small(num_classes=num_classes))
    variables = jax.tree.map(lambda leaf: rng.uniform(-1, 1, leaf.shape).astype("f4"), shapes)
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    checkpoints.save_safetensors(path, checkpoints.to_state_dict(variables))
    return path
