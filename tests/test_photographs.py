"""Photographs that are installed with lmjax."""

from importlib import resources

import pytest

from lmjax._utils.photographs import find


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_own_copies_are_the_files_of_scikit_learn(name):
    original = resources.files("sklearn.datasets.images") / name
    assert find(name).read_bytes() == original.read_bytes()


@pytest.mark.parametrize("name", ["chelsea.png", "grace_hopper.jpg"])
def test_those_of_other_packages_are_found(name):
    assert find(name).is_file()


def test_a_photograph_that_nobody_ships():
    with pytest.raises(FileNotFoundError, match=r"nothing\.png is not in lmjax.*pip install"):
        find("nothing.png")
