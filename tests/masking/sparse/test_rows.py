"""Visible positions only, against full-size activations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmjax.masking import Masked, layers
from lmjax.masking.sparse import positions, rows
from lmjax.masking.sparse.allocation import Allocation, NoRoomError
from lmjax.masking.sparse.positions import Layout
from lmjax.masking.sparse.rows import Pixels, Rows
from tests.support.compilations import quick_jit
from tests.support.on_rows import prepare, record, run

plain_settings = settings(deadline=None, max_examples=6, derandomize=True)


def random_pixels(height, width, seed, channels=3):
    """Images with NaN under their masks: a mixture, one pixel, everything, nothing."""
    rng = np.random.default_rng(seed)
    mask = rng.random((4, height, width)) < rng.random((4, 1, 1))
    mask[1:] = False
    mask[1, rng.integers(height), -1], mask[2] = True, True
    x = rng.normal(size=(*mask.shape, channels)).astype(np.float32)
    return Masked(jnp.asarray(np.where(mask[..., None], x, np.nan)), jnp.asarray(mask))


def random_kernel(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_same(network, inputs):
    """A network's rows are the visible positions of its full-size activations, and nothing else.

    `network` may return numbers of whole images besides its activations, as a pair.
    """

    def ended(inputs):
        outputs = network(inputs)
        outputs, numbers = outputs if type(outputs) is tuple else (outputs, None)
        mask = outputs.mask.mask() if isinstance(outputs, Rows) else outputs.mask
        return mask, layers.unmask(outputs).x, numbers

    on_rows, arrays = prepare(ended, *inputs, spare=3)
    both = quick_jit(lambda inputs, arrays: (on_rows(*inputs, arrays), ended(inputs)))
    (mask, *actual), (expected_mask, *expected) = both(inputs, arrays)
    np.testing.assert_array_equal(mask, expected_mask)
    scale = np.abs(expected[0]).max(initial=1)
    chex.assert_trees_all_close(actual[0], expected[0], atol=1e-5 * scale)
    if expected[1] is not None:
        scale = np.abs(expected[1]).max()
        chex.assert_trees_all_close(actual[1], expected[1], atol=1e-5 * scale)
        assert not actual[1][~np.any(inputs.mask, axis=(1, 2))].any()


def stem(inputs, **options):
    return layers.conv(layers.mask_input(inputs), random_kernel((3, 3, 3, 8)), padding=1, **options)


fills = st.sampled_from(["neighbor", "none", "partial"])


@plain_settings
@given(
    height=st.integers(7, 13),
    width=st.integers(7, 13),
    size=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 3),
    fill=fills,
    bias=st.booleans(),
    seed=st.integers(0, 100),
)
def test_first_convolution(height, width, size, stride, dilation, padding, fill, bias, seed):
    padding = max(padding, dilation * (size - 1) // 2 - 2)  # so that an output remains
    kernel = random_kernel((size, size, 3, 4), seed)
    bias = random_kernel((4,), seed) if bias else None
    options = {"stride": stride, "padding": padding, "dilation": dilation, "fill": fill}
    inputs = random_pixels(height, width, seed)
    assert_same(lambda x: layers.conv(layers.mask_input(x), kernel, bias, **options), inputs)


@plain_settings
@given(
    height=st.integers(7, 13),
    width=st.integers(7, 13),
    size=st.sampled_from([1, 2, 3]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 8]),
    fill=fills,
    rings=st.sampled_from([None, 0, 1, 3]),
    seed=st.integers(0, 100),
)
def test_further_convolutions(height, width, size, stride, dilation, groups, fill, rings, seed):
    kernel = random_kernel((size, size, 8 // groups, 16), seed)
    padding = dilation * (size - 1) // 2
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def network(inputs):
        return layers.conv(stem(inputs, fill=fill), kernel, fill=fill, rings=rings, **options)

    assert_same(network, random_pixels(height, width, seed))


@plain_settings
@given(
    height=st.integers(7, 13),
    width=st.integers(7, 13),
    window=st.integers(1, 3),
    stride=st.integers(1, 3),
    ceil_mode=st.booleans(),
    seed=st.integers(0, 100),
)
def test_pools_residuals_and_pointwise(height, width, window, stride, ceil_mode, seed):
    def pooled(inputs):
        x = layers.pointwise(stem(inputs, fill="none"), jnp.tanh)
        padding = window // 2
        return layers.max_pool(
            x, window=window, stride=stride, padding=padding, ceil_mode=ceil_mode
        )

    def summed(inputs):
        x = pooled(inputs)
        y = layers.residual(layers.conv(x, random_kernel((3, 3, 8, 8)), padding=1), x)
        return y, layers.global_average_pool(y)

    assert_same(summed, random_pixels(height, width, seed))


@plain_settings
@given(
    height=st.integers(8, 13),
    width=st.integers(8, 13),
    window=st.integers(1, 3),
    stride=st.integers(1, 3),
    ceil_mode=st.booleans(),
    seed=st.integers(0, 100),
)
def test_concatenation_average_pools_and_scales(height, width, window, stride, ceil_mode, seed):
    def joined(inputs):
        x = stem(inputs)
        wider = layers.conv(x, random_kernel((3, 3, 8, 4)), padding=1)
        return layers.concatenate(wider, x, layers.conv(x, random_kernel((1, 1, 8, 2))))

    def network(inputs):
        y = joined(inputs)
        x = layers.average_pool(y, window=window, stride=stride, ceil_mode=ceil_mode)
        x = layers.scale_channels(x, jnp.tanh(layers.global_average_pool(x)))
        return x, layers.adaptive_average_pool(y, 5)

    assert_same(network, random_pixels(height, width, seed))


def test_group_norm_and_pools_over_zeros():
    def network(inputs):
        x = layers.group_norm(stem(inputs), 2, epsilon=1e-5)
        return layers.max_pool(x, window=3, stride=2, padding=1, outside=0.0)

    assert_same(network, random_pixels(9, 8, 0))


def test_no_seams_behind_a_squeeze():
    """Rows of several variants cannot be squeezed, so nothing behind that may be shared."""

    def network(inputs):
        x = layers.seam(stem(inputs))
        return layers.seam(layers.scale_channels(x, layers.global_average_pool(x)))

    inputs = random_pixels(8, 9, 0)
    assert record(network, *inputs).seams == 1
    with pytest.raises(TypeError, match="belong to no single image"):
        record(network, *inputs, sharing=True, stop=2)


def test_convolution_on_kept_positions():
    def network(inputs):
        x = stem(inputs)
        y = layers.conv(x, random_kernel((3, 3, 8, 8)), padding=1)
        return layers.conv(y, random_kernel((3, 3, 8, 8), 1), padding=1, rings=0, keep=x.mask)

    assert_same(network, random_pixels(9, 11, 0))


@pytest.mark.parametrize("stem_fill", ["neighbor", "none"])
def test_gradients_agree(stem_fill):
    """Also through functions whose slope at 0 is infinite: rows not in use are never shown as 0."""
    pixels = random_pixels(9, 8, 0)
    # Not around one pixel: fills are equal there but for rounding, and ties in max pooling differ.
    inputs = Masked(*(each[jnp.array([0, 2, 3])] for each in pixels))
    kernels = [random_kernel((size, size, 8, 8)) for size in (3, 1, 1)]

    def loss(x, kernels, run):
        def network(inputs):
            y = layers.pointwise(stem(inputs, fill=stem_fill), lambda x: jnp.sqrt(jnp.abs(x)))
            y = layers.max_pool(y, window=3, stride=2, padding=1)
            shortcut = layers.conv(y, kernels[1])
            y = layers.residual(layers.conv(y, kernels[0], padding=1, rings=1), shortcut)
            return layers.global_average_pool(layers.conv(y, kernels[2]))

        return (run(network, Masked(x, inputs.mask)) ** 2).sum()

    gradients = quick_jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    sizes = (400,) * 8  # room for everything
    masks = np.asarray(inputs.mask)

    def rows(network, inputs):
        layout = record(network, *inputs)
        arrays = Allocation(masks, layout, sizes).arrays()
        return network(Pixels(*inputs, Layout(sizes, arrays, num_variants=len(masks))))

    def full_size(network, inputs):
        return network(inputs)

    expected = gradients(inputs.x, kernels, full_size)
    actual = gradients(inputs.x, kernels, rows)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
        chex.assert_trees_all_close(one, other, atol=2e-5 * np.abs(other).max())
    assert not np.asarray(actual[0])[~np.asarray(inputs.mask)].any()


def test_counts_are_rows_and_costs_of_each_set(monkeypatch):
    for name, cost in (("_ON_ROWS", 2), ("_GATHERED_ROW", 10), ("_FULL_SIZE_NUMBER", 3)):
        monkeypatch.setattr(positions, name, cost)
    inputs = random_pixels(9, 8, 0)
    kernel = random_kernel((1, 1, 8, 4))
    layout = record(lambda x: layers.conv(layers.seam(stem(x)), kernel), *inputs)
    counts = Allocation(np.asarray(inputs.mask), layout).counts()
    np.testing.assert_array_equal(counts[:, 0], stem(inputs).mask.sum(axis=(1, 2)))
    assert layout.full().tolist() == [72]
    assert layout.costs().tolist() == [[2 * 9 * 3 * 8], [2 * 8 * 4]]
    full_size = [9 * 3 * 8 + 3 * (3 + 8), 8 * 4 + 3 * (8 + 4)]
    assert layout.costs_at_full_size().tolist() == [72 * each for each in full_size]
    assert [seam.sets for seam in layout.passed] == [1]


def test_rows_that_have_no_room_are_an_error():
    inputs = random_pixels(9, 8, 0)
    layout = record(stem, *inputs)
    masks = np.asarray(inputs.mask)
    (needed,) = Allocation(masks, layout).counts().sum(axis=0)
    Allocation(masks, layout, (int(needed),)).arrays()
    with pytest.raises(NoRoomError, match=f"room for {needed - 1} rows and {needed} are needed"):
        Allocation(masks, layout, (int(needed) - 1,)).arrays()


def test_spare_room_changes_nothing():
    inputs = random_pixels(10, 9, 1)
    outputs = [
        run(lambda x: layers.global_average_pool(stem(x)), *inputs, spare=spare, jit=quick_jit)
        for spare in (0, 1, 40)
    ]
    chex.assert_trees_all_close(*outputs, atol=1e-6)


def test_large_windows_take_no_more_memory():
    x, read = jnp.zeros((256, 64)), jnp.zeros((49, 256), jnp.int32)
    compiled = jax.jit(rows._read_sum).lower(x, read).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * x.nbytes
