import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.masking.patches import whole_patches


def test_a_patch_stays_where_all_of_it_is_visible():
    masks = np.ones((2, 4, 6), bool)
    masks[0, 1, 4] = False
    masks[1, 2:, :3] = False
    expected = np.ones((2, 4, 6), bool)
    expected[0, :2, 4:] = False
    expected[1, 2:, :4] = False
    np.testing.assert_array_equal(whole_patches(masks, 2), expected)
    np.testing.assert_array_equal(whole_patches(masks[1], 2), expected[1])
    found = jax.jit(lambda masks: whole_patches(masks, 2))(jnp.asarray(masks))
    np.testing.assert_array_equal(found, expected)


def test_sizes_that_are_not_made_of_patches_are_an_error():
    with pytest.raises(ValueError, match="masks of 4 x 6 pixels are not made of patches of 4 x 4"):
        whole_patches(np.ones((1, 4, 6), bool), 4)
