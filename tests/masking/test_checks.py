import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from lmjax.masking.checks import check_colours, check_image, check_mask

MASKS = np.array([[[1, 0, 1], [0, 0, 1]]])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32, np.float16])
def test_masks_of_any_number_type_become_bool(dtype):
    for masks in (MASKS.astype(dtype), jnp.asarray(MASKS, dtype)):
        checked = check_mask(masks, (2, 3))
        assert checked.dtype == bool
        np.testing.assert_array_equal(checked, MASKS == 1)


def test_nested_lists_are_masks():
    np.testing.assert_array_equal(check_mask(MASKS.tolist(), (2, 3)), MASKS == 1)


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 2), (1, 2, 3, 1), (2, 2, 3)])
def test_another_shape_is_an_error(shape):
    with pytest.raises(ValueError, match=r"masks must be \[1, 2, 3\].*got shape"):
        check_mask(np.zeros(shape), (1, 2, 3))


def test_without_a_number_of_masks_any_number_fits():
    assert check_mask(np.zeros((5, 2, 3)), (2, 3)).shape == (5, 2, 3)
    with pytest.raises(ValueError, match=r"hole must be \[N, 2, 3\].*hole\[None\]"):
        check_mask(np.zeros((2, 3)), (2, 3), "hole")


def test_other_values_are_named_with_their_place():
    masks = MASKS.astype(float)
    masks[0, 1, 1], masks[0, 1, 2] = 255, 0.5
    with pytest.raises(ValueError, match=r"only 0 .* got 0\.5, 255 \(first at \[0, 1, 1\]\)"):
        check_mask(masks, (2, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 1.001])
def test_odd_values_are_errors_soft_or_not(value):
    masks = MASKS.astype(float)
    masks[0, 0, 0] = value
    for soft in (False, True):
        with pytest.raises(ValueError, match=f"got {value:g}"):
            check_mask(masks, (2, 3), soft=soft)


def test_many_odd_values_are_not_all_listed():
    with pytest.raises(ValueError, match=r"got 2, 3, 4, 5, 6 and 2 more"):
        check_mask(np.arange(2, 9).reshape(1, 1, 7), (1, 7))


def test_soft_masks_stay_floats_and_bools_stay_bools():
    soft = np.array([[[0.25, 1.0]]], np.float32)
    np.testing.assert_array_equal(check_mask(soft, (1, 2), soft=True), soft)
    assert check_mask(soft > 0.5, (1, 2), soft=True).dtype == bool


def test_text_is_not_a_mask():
    with pytest.raises(ValueError, match="bool or numbers"):
        check_mask(np.array([[["a"]]]), (1, 1))


def test_under_jit_shapes_are_checked_and_values_are_not():
    checked = jax.jit(lambda masks: check_mask(masks, (2, 3)))
    np.testing.assert_array_equal(checked(0.5 * MASKS), MASKS == 1)
    with pytest.raises(ValueError, match="masks must be"):
        checked(MASKS[0])


def _shown(masks):
    return jnp.where(check_mask(masks, (2, 3)), 1.0, 0.0).sum()


@pytest.mark.parametrize(
    "gradient",
    [jax.grad(_shown), jax.jit(jax.grad(_shown)), jax.grad(jax.jit(_shown))],
    ids=["eager", "jit outside", "jit inside"],
)
def test_binary_masks_have_no_gradient(gradient):
    with pytest.raises(ValueError, match="derivative with respect to them would be 0"):
        gradient(jnp.asarray(MASKS, jnp.float32))
    assert jax.grad(lambda m: _shown(jax.lax.stop_gradient(m)))(jnp.ones((1, 2, 3))).sum() == 0


def test_soft_masks_have_a_gradient():
    gradient = jax.grad(lambda m: check_mask(m, (2, 3), soft=True).sum())
    assert (gradient(jnp.ones((1, 2, 3))) == 1).all()


def test_checkify_reports_soft_masks_under_jit():
    checked = checkify.checkify(jax.jit(_shown))
    assert checked(jnp.asarray(MASKS, jnp.float32))[0].get() is None
    assert "masks must hold only 0 and 1" in checked(jnp.full((1, 2, 3), 0.5))[0].get()


def test_images_are_three_dimensional_floats():
    check_image(np.zeros((2, 3, 1)))
    jax.eval_shape(check_image, jax.ShapeDtypeStruct((2, 3, 4), jnp.bfloat16))
    with pytest.raises(ValueError, match=r"got shape \(2, 3\)"):
        check_image(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="got shape"):
        check_image(np.zeros((0, 3, 3)))
    with pytest.raises(ValueError, match=r"photo must hold floats .* uint8; divide .* by 255"):
        check_image(np.zeros((2, 3, 3), np.uint8), "photo")


@pytest.mark.parametrize("value", [255.0, -0.5, np.nan, np.inf])
def test_colours_outside_the_range_are_errors(value):
    check_colours(np.array([0.0, 1.0, 1.000001]))
    with pytest.raises(ValueError, match="image"):
        check_colours(np.array([0.5, value]))
