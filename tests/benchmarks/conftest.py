"""A small network in the place of those that are measured."""

from types import SimpleNamespace

import pytest

from benchmarks import subjects
from tests.support.cam_network import PREPROCESSING, Small


@pytest.fixture
def small_networks(monkeypatch):
    """Every name is that of a network of two layers, which compiles fast."""
    small = SimpleNamespace(
        bundled=None, build=lambda: Small(num_classes=3), preprocessing=PREPROCESSING
    )
    monkeypatch.setattr(subjects, "registry", SimpleNamespace(network=lambda name: small))
