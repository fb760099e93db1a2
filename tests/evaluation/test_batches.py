"""Variants divided among devices."""

from pathlib import Path

import jax
import numpy as np
import pytest

import lmjax
from lmjax.evaluation import batches as batching
from tests.support.several_devices import run_tests

IMAGE = np.zeros((8, 8, 3), np.float32)


def test_on_four_devices():
    run_tests(Path(__file__).with_name("four_devices.py"), count=4)


def test_batches_are_dealt_in_turn():
    batches = [np.arange(3 * i, 3 * i + 3) for i in range(7)] + [np.array([21])]
    (first, used), (second, rest) = batching.distribute(batches, per_call=2, length=4, devices=3)
    assert first[:, 0].tolist() == [0, 9, 3, 12, 6, 15]
    assert used.tolist() == [2, 2, 2]
    assert second.tolist() == [
        *([18, 19, 20, -1], [-1] * 4),
        *([21, -1, -1, -1], [-1] * 4),
        *([-1] * 4, [-1] * 4),
    ]
    assert rest.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("number", "lengths"), [(1, [1]), (2, [1, 1]), (5, [3, 2]), (9, [4, 4, 1])]
)
def test_few_batches_are_divided_among_calls_of_the_same_shape(number, lengths):
    batches = [np.array([i]) for i in range(number)]
    found = list(batching.distribute(batches, per_call=4, length=1, devices=1, calls=2))
    assert [used.tolist() for _, used in found] == [[n] for n in lengths]
    assert {numbers.shape for numbers, _ in found} == {(4, 1)}
    together = np.concatenate([numbers[numbers >= 0] for numbers, _ in found])
    assert together.tolist() == list(range(number))


def predictor(image, masks):
    return masks.mean(axis=(1, 2))[:, None]


@pytest.mark.parametrize("mesh", ["all", jax.sharding.AbstractMesh((1,), ("a",)), 2], ids=str)
def test_what_is_no_mesh_is_an_error(mesh):
    with pytest.raises(ValueError, match=r"mesh must be a jax.sharding.Mesh.*got"):
        lmjax.evaluate(predictor, IMAGE, np.ones((2, 8, 8)), mesh=mesh)
