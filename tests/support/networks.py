"""The networks of the registry that torchvision or timm have too, as parameters of tests."""

import itertools

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


def _every(names: list[str]) -> list:
    """All; those that are not the smallest of their family are slow."""
    quick = _smallest(names)
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


# Convolutional networks, and the smallest of each family.
NAMES = _names(transformers=False)
SMALLEST = _smallest(NAMES)

TRANSFORMERS = _names(transformers=True)
SMALLEST_TRANSFORMER = _smallest(TRANSFORMERS)[0]
EVERY_TRANSFORMER = _every(TRANSFORMERS)
