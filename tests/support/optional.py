"""Removals whose libraries are extras, for tests that go over all names."""

import importlib.util
from collections.abc import Iterable

import pytest

OF_OPENCV = ("telea", "navier_stokes")
needs_opencv = pytest.mark.skipif(
    importlib.util.find_spec("cv2") is None, reason="OpenCV, the extra inpaint, is not installed"
)


def marked(names: Iterable[str]) -> list:
    """Names as test parameters, with those that need OpenCV skipped where it is missing."""
    return [pytest.param(name, marks=needs_opencv) if name in OF_OPENCV else name for name in names]
