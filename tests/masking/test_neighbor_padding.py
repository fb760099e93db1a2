import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmjax.masking.neighbor_padding import neighbor_padding
from tests.support import layer_masking_reference as reference


def masked_input(height, width, channels, visible, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((2, height, width)) < visible
    x = rng.normal(size=(2, height, width, channels)).astype(np.float32)
    return np.where(mask[..., None], x, 0), mask


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 3, 9]),  # below and above the switch of layouts
    rings=st.integers(0, 5),
    visible=st.sampled_from([0.02, 0.2, 0.6]),
    seed=st.integers(0, 1000),
)
def test_equals_a_loop_over_positions(height, width, channels, rings, visible, seed):
    x, mask = masked_input(height, width, channels, visible, seed)
    expected = np.stack([reference.neighbor_padding(*each, rings) for each in zip(x, mask)])
    filled = neighbor_padding(jnp.asarray(x), jnp.asarray(mask), rings)
    chex.assert_trees_all_close(np.asarray(filled), expected, atol=1e-5)


def test_fully_visible_input_is_unchanged():
    x, _ = masked_input(7, 5, 4, 1, seed=0)
    x = jnp.asarray(x)
    chex.assert_trees_all_equal(neighbor_padding(x, jnp.ones((2, 7, 5), bool), 3), x)


def test_nothing_is_filled_where_nothing_is_visible():
    x = jnp.zeros((1, 5, 5, 3))
    chex.assert_trees_all_equal(neighbor_padding(x, jnp.zeros((1, 5, 5), bool), 4), x)


def test_a_constant_image_stays_constant_where_it_is_filled():
    mask = np.zeros((1, 9, 9), bool)
    mask[0, 4, 4] = True
    x = jnp.asarray(np.where(mask[..., None], 2.5, 0).astype(np.float32).repeat(3, axis=-1))
    filled = np.asarray(neighbor_padding(x, jnp.asarray(mask), 2))
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = 2.5
    for channel in range(3):
        np.testing.assert_array_equal(filled[0, :, :, channel], expected)


@pytest.mark.parametrize("rings", [1, 3])
def test_filled_values_are_constants_for_gradients(rings):
    x, mask = masked_input(6, 6, 2, 0.3, seed=1)
    gradient = jax.grad(lambda x: neighbor_padding(x, jnp.asarray(mask), rings).sum())(
        jnp.asarray(x)
    )
    np.testing.assert_array_equal(np.asarray(gradient)[mask], 1)
