"""A small network, and photographs of several shapes."""

import numpy as np
import pytest
from PIL import Image

from tests.support.any_size_network import any_size_network


@pytest.fixture(scope="session")
def any_size():
    return any_size_network()


@pytest.fixture
def photographs(tmp_path):
    """Two photographs of one name, one of another, and a file that is none."""
    rng, files = np.random.default_rng(0), []
    for name, size in (("a/cat.png", (60, 40)), ("b/Cat.jpg", (40, 60)), ("b/dog.png", (50, 50))):
        files.append(tmp_path / name)
        files[-1].parent.mkdir(exist_ok=True)
        blocks = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        blocks.resize(size, Image.Resampling.NEAREST).save(files[-1])
    files.append(tmp_path / "b" / "damaged.jpg")
    files[-1].write_bytes(files[1].read_bytes()[:150])
    return files
