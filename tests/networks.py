"""The networks of the registry that torchvision has too, as parameters of tests."""

import itertools

import pytest

from lmjax.models import registry


def _all() -> list[registry.Network]:
    networks = map(registry.network, registry.names())
    return [network for network in networks if network.bundled is None]


def _smallest() -> list[str]:
    families = itertools.groupby(_all(), key=lambda network: network.module)
    return [min(group, key=lambda network: network.parameters).name for _, group in families]


NAMES = [network.name for network in _all()]
SMALLEST = _smallest()  # one of each family
# Every network; all but the smallest of each family are slow.
EVERY = [pytest.param(name, marks=() if name in SMALLEST else pytest.mark.slow) for name in NAMES]
