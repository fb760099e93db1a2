"""Draws depend on their key, not on JAX's configuration."""

from contextlib import contextmanager

import jax
import numpy as np
import pytest

from lmjax.attribution.expected_gradients import _drawn_point
from lmjax.attribution.sobol import designs
from lmjax.masks.coalitions import random_keep
from lmjax.masks.families import random_grids
from lmjax.masks.keys import hash_draws
from lmjax.masks.orders import random_orders
from lmjax.masks.samplers import bernoulli_keep, half_visible_keep, shapley_keep
from lmjax.metrics import random_logit
from lmjax.removals import visible

SETTINGS = {"jax_enable_x64": True, "jax_threefry_partitionable": False}
IMAGE = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
BASELINES = np.broadcast_to(np.float32(range(70))[:, None, None, None], (70, *IMAGE.shape))
HALF = np.arange(256).reshape(16, 16) % 2 == 0


def _second(_, other):
    """Stands for a similarity, and gives the second of two maps away."""
    return other


DRAWS = {
    "random_keep": lambda key: random_keep(9, 70, key=key),
    "bernoulli_keep": lambda key: bernoulli_keep(9, 70, key=key),
    "shapley_keep": lambda key: shapley_keep(9, 70, key=key),
    "random_orders": lambda key: random_orders(9, 70, key=key),
    "random_grids": lambda key: random_grids((8, 8), 70, key=key, grid=3).masks(),
    "hypercubes": lambda key: half_visible_keep(9, 0, 70, key=key, block=50),
    "hash_draws": lambda key: np.frombuffer(hash_draws(key).encode(), np.uint8),
}
OF_JAX = {  # which `jax_threefry_partitionable` changes, as it does all of JAX's draws
    "noisy_linear": lambda key: visible.noisy_linear(IMAGE, HALF, key),
    "histogram": lambda key: visible.histogram(IMAGE, HALF, key),
    "expected_gradients": lambda key: _drawn_point(BASELINES, IMAGE, key)[0],
    "random_logit": lambda key: random_logit(float, 0, num_classes=70, key=key, similarity=_second),
}


@contextmanager
def configured(name, value):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize(
    ("draw", "setting"),
    [
        *(
            pytest.param(draw, each, id=f"{n}-{each}")
            for n, draw in DRAWS.items()
            for each in SETTINGS
        ),
        *(pytest.param(draw, "jax_enable_x64", id=n) for n, draw in OF_JAX.items()),
    ],
)
def test_a_key_gives_the_same_draws_under_any_configuration(draw, setting):
    expected = np.asarray(draw(jax.random.key(3)))
    with configured(setting, SETTINGS[setting]):
        actual = np.asarray(draw(jax.random.key(3)))
    np.testing.assert_array_equal(actual, expected)
    assert (np.asarray(draw(jax.random.key(4))) != expected).any()


def test_designs_of_sobol_indices():
    expected = designs(5, 16, jax.random.key(3))
    with configured("jax_enable_x64", True):
        np.testing.assert_array_equal(designs(5, 16, jax.random.key(3)), expected)
