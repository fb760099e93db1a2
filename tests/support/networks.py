"""The networks of the registry that torchvision or timm have too, as parameters of tests."""

import itertools
from collections.abc import Collection, Iterable

import pytest

from lmjax.models import registry


def _names(*, transformers: bool) -> list[str]:
    networks = map(registry.network, registry.names())
    return [
        network.name
        for network in networks
        if network.bundled is None and (network.where == "tokens") == transformers
    ]


def _smallest(names: list[str]) -> list[str]:
    families = itertools.groupby(map(registry.network, names), key=lambda network: network.family)
    return [min(group, key=lambda network: network.parameters).name for _, group in families]


def every(names: Iterable[str], *, quick: Collection[str]) -> list:
    """All names, as parameters of a test; those that are not quick are slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


# Convolutional networks, and the smallest of each family.
NAMES = _names(transformers=False)
SMALLEST = _smallest(NAMES)

TRANSFORMERS = _names(transformers=True)
SMALLEST_TRANSFORMER = _smallest(TRANSFORMERS)[0]
EVERY_TRANSFORMER = every(TRANSFORMERS, quick=_smallest(TRANSFORMERS))
