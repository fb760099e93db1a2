import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from lmjax.masking import Masked, layers
from lmjax.masking.windows import Window
from tests.support import layer_masking_reference as reference
from tests.support.compilations import quick_jit

plain_settings = settings(deadline=None, max_examples=12, derandomize=True)


def masked_input(height, width, channels, seed, visible=0.4):
    rng = np.random.default_rng(seed)
    mask = rng.random((2, height, width)) < visible
    x = rng.normal(size=(2, height, width, channels)).astype(np.float32)
    return Masked(jnp.asarray(np.where(mask[..., None], x, 0)), jnp.asarray(mask))


def random_kernel(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def one_by_one(function, inputs):
    """The reference over the images of a batch, as `Masked`."""
    return Masked(*map(np.stack, zip(*(function(*each) for each in zip(*map(np.array, inputs))))))


def masked_and_plain(function, inputs):
    """Results of a function for inputs with their mask, and for the same ones without any."""
    return quick_jit(lambda inputs: (function(inputs), function(Masked(inputs.x))))(inputs)


def conv(inputs, *arrays, **options):
    """`layers.conv` as one program: its operations one by one are many."""
    return quick_jit(functools.partial(layers.conv, **options))(inputs, *arrays)


def assert_masked_close(actual, expected, atol=1e-4):
    np.testing.assert_array_equal(np.asarray(actual.mask), expected.mask)
    np.testing.assert_allclose(np.asarray(actual.x), expected.x, atol=atol)
    assert not np.asarray(actual.x)[~np.asarray(actual.mask)].any()


@plain_settings
@given(
    height=st.integers(7, 13),
    width=st.integers(7, 13),
    size=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    use_bias=st.booleans(),
    fill=st.sampled_from(["neighbor", "none", "partial"]),
    seed=st.integers(0, 1000),
)
def test_conv_equals_the_reference(
    height, width, size, stride, dilation, groups, use_bias, fill, seed
):
    inputs = masked_input(height, width, 4, seed)
    kernel = random_kernel((size, size, 4 // groups, 6), seed)
    bias = random_kernel((6,)) if use_bias else None
    options = {
        "stride": stride,
        "padding": dilation * (size - 1) // 2,
        "dilation": dilation,
        "groups": groups,
        "fill": fill,
    }
    expected = one_by_one(
        lambda x, m: reference.conv(x, m, kernel.transpose(3, 2, 0, 1), bias, **options), inputs
    )
    assert_masked_close(conv(inputs, kernel, bias, **options), expected)


@plain_settings
@given(
    height=st.integers(3, 12),
    width=st.integers(3, 12),
    window=st.integers(1, 3),
    stride=st.integers(1, 3),
    padded=st.booleans(),
    ceil_mode=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_pools_equal_the_reference(height, width, window, stride, padded, ceil_mode, seed):
    inputs = masked_input(height, width, 3, seed)  # negative values too: zeros must not win
    options = {"window": window, "stride": stride, "ceil_mode": ceil_mode}
    expected = one_by_one(lambda x, m: reference.average_pool(x, m, **options), inputs)
    masked, plain = masked_and_plain(lambda x: layers.average_pool(x, **options), inputs)
    assert_masked_close(masked, expected)
    images = torch.from_numpy(np.asarray(inputs.x).transpose(0, 3, 1, 2).copy())
    pooled = torch.nn.functional.avg_pool2d(images, window, stride, 0, ceil_mode, False)
    np.testing.assert_allclose(plain.x, pooled.numpy().transpose(0, 2, 3, 1), atol=1e-6)

    options |= {"padding": window // 2 if padded else 0}
    expected = one_by_one(lambda x, m: reference.max_pool(x, m, **options), inputs)
    masked, plain = masked_and_plain(lambda x: layers.max_pool(x, **options), inputs)
    assert_masked_close(masked, expected)
    # unmasked, against torch itself
    pooled = torch.nn.functional.max_pool2d(
        images, window, stride, options["padding"], 1, ceil_mode
    )
    np.testing.assert_allclose(plain.x, pooled.numpy().transpose(0, 2, 3, 1))


# Windows, strides, paddings and dilations of other networks than those here.
WINDOWS = [
    ((1, 7), 1, (0, 3), 1),
    ((7, 1), (2, 1), (3, 0), 1),
    ((3, 5), (1, 2), ((0, 1), (1, 2)), 1),
    ((2, 3), (3, 1), ((1, 0), (2, 4)), (1, 2)),
    (3, 2, ((0, 1), (0, 1)), 1),
    (2, 1, ((1, 1), (0, 2)), (3, 2)),
]


@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), WINDOWS)
@pytest.mark.parametrize("fill", ["neighbor", "none", "partial"])
def test_conv_of_any_window_equals_the_reference(size, stride, padding, dilation, fill):
    inputs = masked_input(9, 11, 4, seed=0, visible=0.15)
    kernel = random_kernel((*reference.pair(size), 2, 6))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": 2}
    weight = kernel.transpose(3, 2, 0, 1)
    expected = one_by_one(
        lambda x, m: reference.conv(x, m, weight, None, fill=fill, **options), inputs
    )
    run = functools.partial(layers.conv, kernel=jnp.asarray(kernel), fill=fill, **options)
    masked, plain = masked_and_plain(run, inputs)
    assert_masked_close(masked, expected)
    (top, bottom), (left, right) = map(reference.pair, reference.pair(padding))
    images = torch.from_numpy(np.asarray(inputs.x).transpose(0, 3, 1, 2).copy())
    images = torch.nn.functional.pad(images, (left, right, top, bottom))
    weight, options["padding"] = torch.from_numpy(weight.copy()), 0
    expected = torch.nn.functional.conv2d(images, weight, None, **options)
    np.testing.assert_allclose(plain.x, expected.numpy().transpose(0, 2, 3, 1), atol=1e-4)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), WINDOWS)
def test_pools_of_any_window_equal_the_reference(size, stride, padding, dilation, ceil_mode):
    inputs = masked_input(9, 11, 3, seed=0, visible=0.15)
    everything = Masked(inputs.x, jnp.ones_like(inputs.mask))
    options = {"window": size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    for name in ("average_pool", "max_pool", "window_sum"):
        if name != "average_pool":
            options["dilation"] = dilation
        layer = functools.partial(getattr(layers, name), **options)
        oracle = functools.partial(getattr(reference, name), **options)
        masked, plain = masked_and_plain(layer, inputs)
        assert_masked_close(masked, one_by_one(oracle, inputs))
        expected = one_by_one(oracle, everything)
        np.testing.assert_allclose(plain.x[expected.mask], expected.x[expected.mask], atol=1e-5)


def test_window_sums_are_average_pools_times_positions_in_the_image():
    inputs = masked_input(9, 11, 3, seed=0)
    options = {"window": 3, "stride": 2, "padding": 1}
    inside = layers.window_sum(Masked(jnp.ones((1, 9, 11, 1))), **options).x
    mean, total = layers.average_pool(inputs, **options), layers.window_sum(inputs, **options)
    np.testing.assert_allclose(total.x, mean.x * inside, atol=1e-5)
    np.testing.assert_array_equal(total.mask, mean.mask)
    everything = Masked(inputs.x, jnp.ones_like(inputs.mask))
    plain, masked = (layers.window_sum(x, **options).x for x in (Masked(inputs.x), everything))
    np.testing.assert_array_equal(plain, masked)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("size", {"size": (3, 0)}),
        ("stride", {"size": 3, "stride": (1, 1, 1)}),
        ("dilation", {"size": 3, "dilation": 0.5}),
        ("padding", {"size": 3, "padding": ((0, -1), (0, 0))}),
        ("padding", {"size": 3, "padding": "SAME"}),
        ("padding", {"size": 3, "padding": (1, 1, 1, 1)}),
    ],
)
def test_windows_that_are_none_are_errors(argument, options):
    with pytest.raises(ValueError, match=f"{argument} must be an int of at least [01]"):
        Window.of(**options)


@plain_settings
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    size=st.integers(1, 7),
    visible=st.sampled_from([0.2, 0.7, 2]),
)
def test_adaptive_average_pool_equals_the_reference_and_torch(height, width, size, visible):
    inputs = masked_input(height, width, 3, seed=0, visible=visible)
    expected = [
        reference.adaptive_average_pool(*map(np.asarray, each), size) for each in zip(*inputs)
    ]
    actual, plain = masked_and_plain(lambda x: layers.adaptive_average_pool(x, size), inputs)
    np.testing.assert_allclose(actual, np.stack(expected), atol=1e-5)
    images = torch.from_numpy(np.asarray(inputs.x).transpose(0, 3, 1, 2).copy())
    pooled = torch.nn.functional.adaptive_avg_pool2d(images, size).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(plain, pooled, atol=1e-5)


def test_max_pool_over_zeros_around_the_image():
    inputs = masked_input(9, 8, 3, seed=0)
    options = {"window": 3, "stride": 2, "padding": 1}
    negative = -1 - inputs.x**2
    plain = layers.max_pool(Masked(negative), **options, outside=0.0).x
    images = torch.from_numpy(np.asarray(negative).transpose(0, 3, 1, 2).copy())
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    expected = torch.nn.functional.max_pool2d(padded, 3, 2).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(plain, expected)
    assert plain[:, 0].max() == 0 > plain[:, 1:-1, 1:].max()
    # masked: the zeros count where something visible is in the window too
    actual, without = (layers.max_pool(inputs, **options, **o) for o in ({"outside": 0.0}, {}))
    np.testing.assert_array_equal(actual.mask, without.mask)
    np.testing.assert_array_equal(actual.x[:, 1:-1, 1:], without.x[:, 1:-1, 1:])
    for border in (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0]):
        np.testing.assert_array_equal(actual.x[border], np.maximum(without.x[border], 0))


def test_group_norm_is_torchs_over_the_visible_positions():
    x, mask = masked_input(5, 6, 8, seed=0)
    mask = mask.at[1].set(False)
    x = layers.select(mask, 3 * x + 1)

    def run(x):
        return layers.group_norm(Masked(x, mask), 4, epsilon=1e-3)

    visible = torch.from_numpy(np.asarray(x[0])[np.asarray(mask[0])].T.copy())
    expected = torch.nn.functional.group_norm(visible[None], 4, eps=1e-3)[0].numpy().T
    actual = quick_jit(run)(x)
    np.testing.assert_allclose(np.asarray(actual.x[0])[np.asarray(mask[0])], expected, atol=1e-5)
    assert not np.asarray(actual.x)[~np.asarray(mask)].any()
    images = torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())
    expected = torch.nn.functional.group_norm(images, 4, eps=1e-3).numpy().transpose(0, 2, 3, 1)
    plain = quick_jit(lambda x: layers.group_norm(Masked(x), 4, epsilon=1e-3))(x)
    np.testing.assert_allclose(plain.x, expected, atol=1e-5)
    gradient = quick_jit(jax.grad(lambda x: (run(x).x ** 3).sum()))(x)
    chex.assert_tree_all_finite(gradient)
    assert not np.asarray(gradient)[~np.asarray(mask)].any()


def test_attention_is_torchs_among_the_visible_positions():
    x, mask = masked_input(4, 3, 3 * 8, seed=0)
    mask = mask.at[1].set(False)
    x = layers.select(mask, x)
    visible = torch.from_numpy(np.asarray(x[0])[np.asarray(mask[0])])
    parts = [each.reshape(-1, 2, 4).transpose(0, 1) for each in visible.split(8, dim=1)]
    expected = torch.nn.functional.scaled_dot_product_attention(*parts).transpose(0, 1)

    def run(x):
        return layers.attention(Masked(x, mask), 2)

    actual = quick_jit(run)(x)
    found = np.asarray(actual.x[0])[np.asarray(mask[0])]
    np.testing.assert_allclose(found, expected.reshape(-1, 8).numpy(), atol=1e-5)
    assert not np.asarray(actual.x)[~np.asarray(mask)].any()
    gradient = quick_jit(jax.grad(lambda x: (run(x).x ** 2).sum()))(x)
    chex.assert_tree_all_finite(gradient)
    assert not np.asarray(gradient)[~np.asarray(mask)].any()


def test_concatenation_keeps_what_all_branches_know():
    a, b, c = (masked_input(6, 6, channels, seed=channels, visible=0.7) for channels in (1, 2, 3))
    joined = layers.concatenate(a, b, c)
    all_know = np.asarray(a.mask & b.mask & c.mask)
    x = np.concatenate([a.x, b.x, c.x], axis=-1)
    np.testing.assert_array_equal(np.asarray(joined.mask), all_know)
    np.testing.assert_array_equal(np.asarray(joined.x), np.where(all_know[..., None], x, 0))
    assert layers.concatenate(Masked(a.x), Masked(b.x)).x.shape == (2, 6, 6, 3)


def test_channels_are_scaled_image_by_image():
    inputs = masked_input(4, 5, 3, seed=0)
    factors = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    scaled = layers.scale_channels(inputs, jnp.asarray(factors))
    for x, factor, expected in zip(inputs.x, factors, scaled.x):
        np.testing.assert_allclose(expected, np.asarray(x) * factor)
    assert scaled.mask is inputs.mask


@pytest.mark.parametrize("outputs", [17, 32])
def test_a_conv_with_a_fourth_channel_of_zeros_equals_the_reference(outputs):
    inputs = masked_input(9, 8, 3, seed=0)
    kernel = random_kernel((7, 7, 3, outputs))
    options = {"stride": 2, "padding": 3}
    weights = kernel.transpose(3, 2, 0, 1)
    expected = one_by_one(lambda x, m: reference.conv(x, m, weights, None, **options), inputs)
    assert_masked_close(conv(inputs, kernel, **options), expected)


@pytest.mark.parametrize("fill", ["neighbor", "none", "partial"])
def test_an_all_visible_conv_is_the_plain_one(fill):
    inputs = masked_input(9, 8, 4, seed=0, visible=2)
    kernel = jnp.asarray(random_kernel((3, 3, 4, 5)))
    plain = layers.conv(Masked(inputs.x), kernel, stride=2, padding=1)
    masked = layers.conv(inputs, kernel, stride=2, padding=1, fill=fill)
    assert plain.mask is None
    assert masked.mask.all()
    inner = (slice(None), slice(1, -1), slice(1, -1)) if fill == "partial" else ...
    chex.assert_trees_all_close(masked.x[inner], plain.x[inner], atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_fewer_rings_give_the_same_kept_outputs(stride):
    inputs = masked_input(12, 11, 4, seed=3, visible=0.2)
    kernel = jnp.asarray(random_kernel((3, 3, 4, 5)))
    keep = inputs.mask[:, ::stride, ::stride]
    options = {"stride": stride, "padding": 1, "keep": keep}
    full = layers.conv(inputs, kernel, rings=3, **options)
    chex.assert_trees_all_close(layers.conv(inputs, kernel, rings=1, **options), full, atol=1e-5)
    fewer = layers.conv(inputs, kernel, rings=0, **options)
    assert np.abs(fewer.x - full.x).max() > 1e-2  # one ring is needed


def test_pointwise_drops_what_the_function_writes_under_the_mask():
    inputs = masked_input(5, 5, 2, seed=0)
    outputs = layers.pointwise(inputs, lambda x: 1 / x)  # infinite where hidden
    assert np.isfinite(outputs.x).all()
    assert not outputs.x[~inputs.mask].any()


def test_pointwise_has_finite_gradients_where_the_functions_slope_at_0_is_not():
    inputs = masked_input(5, 5, 2, seed=0)
    x = jnp.abs(inputs.x)
    gradient = jax.grad(lambda x: layers.pointwise(Masked(x, inputs.mask), jnp.sqrt).x.sum())(x)
    assert np.isfinite(gradient).all()
    assert not gradient[~inputs.mask].any()
    np.testing.assert_allclose(gradient[inputs.mask], 0.5 / jnp.sqrt(x[inputs.mask]), rtol=1e-5)


def test_pointwise_of_several_is_visible_where_all_are():
    a, b = masked_input(4, 5, 3, seed=0), masked_input(4, 5, 1, seed=1, visible=0.7)
    known = np.asarray(a.mask & b.mask)
    rng = np.random.default_rng(0)
    shapes = [(2, 1, 1, 3), (1, 4, 5, 1), (1, 1, 5, 3), (2, 4, 5, 3), (3,), ()]
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    plain = Masked(jnp.asarray(rng.normal(size=(2, 1, 1, 3)), jnp.float32))

    def function(a, b, *arrays):
        return a / b + sum(arrays)  # nothing under the mask is divided by 0

    actual = layers.pointwise(a, function, b, *arrays, plain)
    with np.errstate(all="ignore"):
        expected = function(*(np.asarray(each) for each in (a.x, b.x, *arrays, plain.x)))
    np.testing.assert_array_equal(actual.mask, known)
    np.testing.assert_allclose(actual.x, np.where(known[..., None], expected, 0), atol=1e-5)
    unmasked = layers.pointwise(Masked(a.x), jnp.add, Masked(b.x))
    assert unmasked.mask is None
    np.testing.assert_array_equal(unmasked.x, a.x + b.x)
    # whatever comes first
    swapped = layers.pointwise(plain, lambda c, b, a: a / b + c, b, a)
    np.testing.assert_array_equal(swapped.mask, known)
    reciprocal = layers.pointwise(jnp.ones(()), jnp.divide, b)
    np.testing.assert_array_equal(reciprocal.mask, b.mask)
    assert np.isfinite(reciprocal.x).all()


def test_pointwise_of_several_has_finite_gradients():
    a, b = masked_input(4, 5, 3, seed=0), masked_input(4, 5, 3, seed=1)

    def total(a_x, b_x):
        function = lambda a, b: jnp.sqrt(jnp.abs(a * b))  # noqa: E731
        return layers.pointwise(Masked(a_x, a.mask), function, Masked(b_x, b.mask)).x.sum()

    # 0 where only one of them is hidden
    b_x = jnp.where(a.mask[..., None], b.x, 0)
    gradients = jax.grad(total, argnums=(0, 1))(a.x, b_x)
    chex.assert_tree_all_finite(gradients)
    for gradient in gradients:
        assert not gradient[~(a.mask & b.mask)].any()


def test_pointwise_takes_any_leading_dimensions():
    x, mask = masked_input(4, 5, 3, seed=0)
    expected = layers.pointwise(Masked(x, mask), jnp.exp).x
    for shape in ((40,), (2, 2, 2, 5), ()):
        size = int(np.prod(shape))
        part = Masked(x.reshape(-1, 3)[:size], mask.reshape(-1)[:size])
        part = Masked(part.x.reshape(*shape, 3), part.mask.reshape(shape))
        actual = layers.pointwise(part, lambda x, y: jnp.exp(x) * y, jnp.ones(()))
        wanted = expected.reshape(-1, 3)[:size].reshape(*shape, 3)
        np.testing.assert_allclose(actual.x, wanted, rtol=1e-6)


def test_residual_keeps_what_both_branches_know():
    a, b = masked_input(6, 6, 3, seed=0), masked_input(6, 6, 3, seed=1)
    total = layers.residual(a, b)
    both = np.asarray(a.mask & b.mask)
    np.testing.assert_array_equal(np.asarray(total.mask), both)
    np.testing.assert_allclose(
        np.asarray(total.x), np.where(both[..., None], np.asarray(a.x + b.x), 0)
    )


@pytest.mark.parametrize("join", [layers.residual, layers.concatenate])
def test_what_one_mask_hides_in_all_branches_is_not_selected_from(join):
    x, mask = masked_input(6, 6, 3, seed=0)

    def run(x, mask):
        branch = layers.conv(Masked(x, mask), jnp.ones((1, 1, 3, 3)))
        return branch, join(branch, Masked(x, mask))

    _, joined = run(x, mask)
    assert not np.asarray(joined.x)[~np.asarray(mask)].any()
    counts = [
        str(jax.make_jaxpr(function)(x, mask)).count("select_n")
        for function in (run, lambda x, mask: run(x, mask)[0])
    ]
    assert counts[0] == counts[1] > 0


def test_global_average_pool_is_the_mean_over_visible_positions():
    x, mask = masked_input(6, 5, 3, seed=0)
    mask = mask.at[1].set(False)
    x = jnp.where(mask[..., None], x, 0)
    means = np.asarray(layers.global_average_pool(Masked(x, mask)))
    np.testing.assert_allclose(means[0], np.asarray(x[0])[np.asarray(mask[0])].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(means[1], 0)


def test_global_max_pool_is_the_maximum_over_visible_positions():
    x, mask = masked_input(6, 5, 3, seed=0)
    mask = mask.at[1].set(False)
    x = layers.select(mask, -1 - x**2)  # zeros must not win

    def run(x):
        return layers.global_max_pool(Masked(x, mask))

    np.testing.assert_array_equal(run(x)[0], np.asarray(x[0])[np.asarray(mask[0])].max(0))
    np.testing.assert_array_equal(run(x)[1], 0)
    np.testing.assert_array_equal(layers.global_max_pool(Masked(x)), x.max(axis=(1, 2)))
    gradient = jax.grad(lambda x: run(x).sum())(x)
    np.testing.assert_allclose(gradient.sum(axis=(1, 2)), [[1, 1, 1], [0, 0, 0]])
    assert not gradient[~mask].any()


def test_full_size_of_full_size_is_itself():
    inputs = masked_input(4, 5, 3, seed=0)
    assert layers.full_size(inputs) is inputs


def test_mask_input_drops_anything():
    x = jnp.array([[[[jnp.nan], [jnp.inf], [2.0]]]])
    masked = layers.mask_input(Masked(x, jnp.array([[[False, False, True]]])))
    np.testing.assert_array_equal(np.asarray(masked.x).ravel(), [0, 0, 2])
    gradient = jax.grad(lambda x: layers.mask_input(Masked(x, masked.mask)).x.sum())(x)
    np.testing.assert_array_equal(np.asarray(gradient).ravel(), [0, 0, 1])


def test_average_pools_count_in_float32():
    """bfloat16 has no 257, and 3 x 400 positions are summed."""
    x = jnp.full((1, 20, 20, 1), 3, jnp.bfloat16)
    for mask in (None, jnp.ones((1, 20, 20), bool)):
        found = layers.average_pool(Masked(x, mask), window=20, stride=20)
        assert found.x.dtype == jnp.bfloat16
        assert found.x.item() == 3


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bad", [False, True], ids=["numbers", "a weight that is NaN"])
def test_a_depthwise_conv_is_xlas_and_so_is_its_gradient(size, stride, bad):
    inputs = masked_input(9, 8, 4, seed=0)
    kernel = random_kernel((size, size, 1, 4))
    if bad:
        kernel[0, 0, 0, 0] = np.nan
    options = {"window_strides": (stride, stride), "padding": [(size // 2, size // 2)] * 2}

    def ours(x):
        return layers.conv(Masked(x), kernel, stride=stride, padding=size // 2, groups=4).x

    def xlas(x):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, dimension_numbers=names, feature_group_count=4, **options
        )

    for run in (lambda f: f, lambda f: jax.grad(lambda x: (f(x) ** 2).sum())):
        found, expected = (quick_jit(run(f))(inputs.x) for f in (ours, xlas))
        assert np.isnan(expected[..., 0]).any() == bad
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "outputs", "groups"),
    [(40, 40, 5), (104, 104, 13), (96, 96, 3), (12, 24, 12), (24, 12, 12), (80, 40, 2)],
    ids=["8 each", "8 each and uneven", "32 each", "2 outputs each", "2 inputs each", "wide"],
)
@pytest.mark.parametrize("options", [{}, {"stride": 2, "dilation": 2}], ids=["", "strided"])
def test_a_grouped_conv_is_xlas_and_so_are_its_gradients(channels, outputs, groups, options):
    x = random_kernel((2, 9, 8, channels))
    kernel = random_kernel((3, 3, channels // groups, outputs), seed=1)
    stride, dilation = options.get("stride", 1), options.get("dilation", 1)

    def ours(x, kernel):
        return layers.conv(Masked(x), kernel, padding=1, groups=groups, **options).x

    def xlas(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(1, 1)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    for run in (lambda f: f, lambda f: jax.grad(lambda *x: (f(*x) ** 2).sum(), argnums=(0, 1))):
        found, expected = (quick_jit(run(f))(x, kernel) for f in (ours, xlas))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), found, expected
        )


def test_a_nan_in_a_grouped_convs_weights_reaches_the_outputs_that_it_makes():
    kernel = random_kernel((3, 3, 8, 40))
    kernel[0, 0, 0, 11] = np.nan
    found = layers.conv(Masked(random_kernel((1, 5, 5, 40))), kernel, groups=5).x
    assert np.isnan(found).any(axis=(0, 1, 2)).tolist() == [i == 11 for i in range(40)]


@pytest.mark.parametrize(("channels", "outputs"), [(48, 40), (45, 40), (32, 40), (40, 37)], ids=str)
def test_channels_that_do_not_fit_a_grouped_conv_are_errors(channels, outputs):
    inputs = Masked(random_kernel((1, 5, 5, channels)))
    with pytest.raises(ValueError, match="feature_group_count"):
        layers.conv(inputs, random_kernel((3, 3, 8, outputs)), groups=5)


def test_any_function_may_be_a_map_even_one_that_cannot_be_hashed():
    class Unhashable(nn.Module):
        @nn.compact
        def __call__(self, x):
            inputs = Masked(x, jnp.ones(x.shape[:3], bool))
            return layers.pointwise(inputs, nn.PReLU()).x

    x = random_kernel((1, 4, 4, 3))
    found, _ = Unhashable().init_with_output(jax.random.key(0), x)
    np.testing.assert_allclose(found, np.where(x > 0, x, 0.01 * x), rtol=1e-6)


def name_of(function):
    return getattr(function, "__name__", "exact_gelu")


@pytest.mark.parametrize("function", layers.KEEPING_ZERO, ids=name_of)
def test_activations_without_a_selection_keep_0_and_have_a_slope_there(function):
    x = jnp.asarray([0.0, -0.0])
    assert (function(x) == 0).all()
    assert np.isfinite(jax.grad(lambda x: function(x).sum())(x)).all()
    inputs = masked_input(6, 7, 3, seed=0)
    selected = layers.pointwise(inputs, lambda x: function(x))

    def total(function):
        return jax.grad(lambda x: (layers.pointwise(Masked(x, inputs.mask), function).x ** 2).sum())

    found = layers.pointwise(inputs, function)
    np.testing.assert_allclose(found.x, selected.x, rtol=1e-6)
    np.testing.assert_allclose(total(function)(inputs.x), total(lambda x: function(x))(inputs.x))
