"""Any window and any map, on rows of visible positions: their own, shared ones, and pixels."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.masking import Masked, layers
from lmjax.masking.sparse.allocation import Allocation
from lmjax.masking.sparse.positions import Cut, Layout
from lmjax.masking.sparse.rows import Pixels, Rows
from tests.masking.test_layers import WINDOWS
from tests.support.compilations import quick_jit
from tests.support.on_rows import prepare, record, run

HEIGHT, WIDTH = 9, 11


def one_image_under_masks(seed=0):
    """One image, NaN where hidden: masks alike on their left, all, one pixel, nothing, a repeat."""
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.random((1, HEIGHT, WIDTH)) < 0.3, 7, axis=0)
    mask[1:3, :, 7:] = rng.random((2, HEIGHT, 4)) < 0.5
    mask[3], mask[4], mask[5] = True, False, False
    mask[4, 2, -1], mask[6] = True, mask[1]
    x = rng.normal(size=(1, HEIGHT, WIDTH, 3)).astype(np.float32)
    return Masked(jnp.asarray(np.where(mask[..., None], x, np.nan)), jnp.asarray(mask))


INPUTS = one_image_under_masks()
NUMBER = len(INPUTS.mask)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def stem(inputs, channels=4):
    return layers.conv(layers.mask_input(inputs), draw(3, 3, 3, channels), padding=1)


def on_own_rows(network):
    """Computes a network's result at full size, `(x, mask)`, from rows of the visible positions."""

    def ended(inputs):
        outputs = network(inputs)
        assert isinstance(outputs, Pixels | Rows)
        return layers.full_size(outputs)

    return prepare(ended, *INPUTS, spare=3)


def on_shared_rows(network):
    """Computes rows that variants share, which must be fewer, and what they are at full size."""
    options = {"sharing": True, "stop": 1}

    def ended(inputs):
        layers.seam(network(inputs))

    masks = np.asarray(INPUTS.mask)
    layout = record(ended, *INPUTS, **options)
    counts = Allocation(masks, layout).counts().sum(axis=0) + 3
    allocation = Allocation(masks, layout, counts.tolist())

    def compute(images, masks, arrays):
        given = Layout(counts.tolist(), arrays, num_variants=NUMBER, **options)
        with pytest.raises(Cut) as stopped:
            ended(Pixels(images, masks, given))
        return stopped.value.rows.x

    def at_full_size(rows):
        ((*_, positions),) = layout.passed
        rows = np.asarray(rows)[: allocation.capacity(positions)]
        index, mask = allocation.index(positions), allocation.mask(positions)
        assert len(np.unique(index[mask])) < mask.sum()
        return Masked(np.concatenate([rows, np.zeros_like(rows[:1])])[index], mask)

    return compute, allocation.arrays(), at_full_size


def assert_same(network, *, shared=True):
    """All ways to compute a network agree, and read nothing that is hidden."""
    own, arrays = on_own_rows(network)
    sharing, others, at_full_size = on_shared_rows(network) if shared else (None, (), None)

    @quick_jit  # one program of all is compiled sooner than one for each
    def run(inputs, arrays, others):
        rows = sharing(*inputs, others) if shared else None
        return network(inputs), own(*inputs, arrays), rows

    expected, *found = run(INPUTS, arrays, others)
    found = [found[0], at_full_size(found[1])] if shared else found[:1]
    chex.assert_tree_all_finite(expected.x)
    for actual in found:
        np.testing.assert_array_equal(actual.mask, expected.mask)
        scale = max(np.abs(expected.x).max(), 1)
        np.testing.assert_allclose(actual.x, expected.x, atol=1e-5 * scale)


@pytest.mark.parametrize("fill", ["neighbor", "none", "partial"])
@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), WINDOWS)
def test_first_convolutions_of_any_window(size, stride, padding, dilation, fill):
    options = {"stride": stride, "padding": padding, "dilation": dilation, "fill": fill}
    height, width = size if isinstance(size, tuple) else (size, size)
    kernel = draw(height, width, 3, 5)
    assert_same(lambda x: layers.conv(layers.mask_input(x), kernel, draw(5), **options))


def test_few_first_windows_are_gathered(monkeypatch):
    """The same numbers whether windows or outputs of a whole convolution are gathered."""
    kernel = draw(2, 3, 3, 5)
    options = {"stride": (3, 1), "padding": ((1, 0), (2, 4)), "dilation": (1, 2), "fill": "none"}

    def network(inputs):
        return layers.conv(layers.mask_input(inputs), kernel, **options)

    for factor in (0, 1000):
        monkeypatch.setattr("lmjax.masking.sparse.rows._GATHERING_WINDOWS", factor)
        assert_same(network)


@pytest.mark.parametrize(("fill", "groups"), [("neighbor", 1), ("none", 2), ("partial", 4)])
@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), WINDOWS)
def test_further_convolutions_of_any_window(size, stride, padding, dilation, fill, groups):
    options = {"stride": stride, "padding": padding, "dilation": dilation, "fill": fill}
    height, width = size if isinstance(size, tuple) else (size, size)
    kernel = draw(height, width, 4 // groups, 8)
    assert_same(lambda x: layers.conv(stem(x), kernel, groups=groups, **options))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), WINDOWS)
def test_pools_of_any_window(size, stride, padding, dilation, ceil_mode):
    options = {"window": size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}

    def pooled(inputs):
        x = stem(inputs)
        dilated = (
            layers.max_pool(x, **options, dilation=dilation),
            layers.window_sum(x, **options, dilation=dilation),
        )
        if dilation != 1:  # outputs of average pools, which know none, are more
            return layers.concatenate(*dilated)
        outside = layers.max_pool(x, **options, outside=0.5)
        return layers.concatenate(*dilated, layers.average_pool(x, **options), outside)

    assert_same(pooled)
    if dilation != 1:
        assert_same(lambda inputs: layers.average_pool(stem(inputs), **options))


ARRAYS = {
    "channels": draw(1, 1, 1, 4),
    "vector": draw(4),
    "number": draw(),
    "image": draw(NUMBER, 1, 1, 4),
    "image_alone": draw(NUMBER, 1, 1, 1),
    "rows": draw(1, HEIGHT, 1, 4),
    "position": draw(1, HEIGHT, WIDTH, 1),
    "everything": draw(NUMBER, HEIGHT, WIDTH, 4),
    "plain": Masked(draw(NUMBER, 1, 1, 4)),
}
OF_IMAGES = ("image", "image_alone", "everything", "plain")


@pytest.mark.parametrize("kind", ARRAYS)
def test_pointwise_with_arrays(kind):
    array = ARRAYS[kind]
    shared = kind not in OF_IMAGES

    def first_and_second(inputs):
        x = stem(inputs)
        first = layers.pointwise(x, lambda x, y: x / y, array)
        return layers.concatenate(first, layers.pointwise(array, lambda y, x: x / y, x))

    assert_same(first_and_second, shared=shared)
    narrow = jax.tree.map(lambda x: x[..., :1] if x.ndim else x, array)
    assert_same(lambda x: stem(layers.pointwise(x, lambda x, y: x * y + 1, narrow)), shared=shared)


def test_pointwise_of_several_rows():
    def network(inputs):
        first = stem(inputs)
        second = layers.conv(first, draw(3, 3, 4, 4), padding=1)
        third = layers.conv(first, draw(1, 1, 4, 1))

        def function(a, b, c, d):
            return jnp.concatenate([jnp.sqrt(jnp.abs(a)) / b, c * d], axis=-1)

        return layers.pointwise(second, function, first, third, draw(1, HEIGHT, 1, 1))

    assert_same(network)


def test_arrays_of_images_are_no_part_of_shared_rows():
    def network(inputs, array):
        x = layers.seam(stem(inputs))
        return layers.seam(layers.pointwise(x, jnp.multiply, array))

    for kind, array in ARRAYS.items():
        with_array = functools.partial(network, array=array)
        of_images = kind in OF_IMAGES
        assert record(with_array, *INPUTS).seams == (1 if of_images else 2)
        if of_images:
            with pytest.raises(TypeError, match="belong to no single image"):
                record(with_array, *INPUTS, sharing=True, stop=2)


def test_operands_that_do_not_fit_are_errors():
    def against(operand):
        return record(lambda x: layers.pointwise(stem(x), jnp.add, operand), *INPUTS)

    with pytest.raises(TypeError, match=r"with a mask beside rows.*layers\.full_size"):
        against(INPUTS)
    with pytest.raises(ValueError, match=rf"must broadcast to \[{NUMBER}, H, W, C\], got shape"):
        against(draw(2, 1, 1, 4))


def test_global_maximum():
    def ended(inputs):
        return layers.global_max_pool(layers.pointwise(stem(inputs), lambda x: -1 - x**2))

    expected = quick_jit(ended)(INPUTS)
    actual = run(ended, *INPUTS, spare=3, jit=quick_jit)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert (np.delete(expected, 5, axis=0) < 0).all()
    assert not expected[5].any()


POOL = {"window": (2, 3), "stride": (1, 2), "padding": ((0, 1), (1, 1))}
OF_PIXELS = {
    "max_pool": lambda x: layers.max_pool(x, **POOL),
    "average_pool": lambda x: layers.average_pool(x, **POOL),
    "window_sum": lambda x: layers.window_sum(x, **POOL),
    "pointwise": lambda x: layers.pointwise(x, jnp.tanh),
    "pointwise_of_several": lambda x: layers.pointwise(
        x, lambda a, b, c: jnp.tanh(a) * b + c, x, draw(1, 1, WIDTH, 1)
    ),
    "residual": lambda x: layers.residual(x, x),
    "rows_and_pixels": lambda x: layers.residual(layers.conv(x, draw(3, 3, 3, 3), padding=1), x),
    "map_of_both": lambda x: layers.pointwise(x, jnp.add, layers.conv(x, draw(1, 1, 3, 3))),
    "concatenate": lambda x: layers.concatenate(x, layers.pointwise(x, jnp.tanh)),
    "concatenate_both": lambda x: layers.concatenate(x, layers.conv(x, draw(1, 1, 3, 3)), x),
}
MIXED = {
    "group_norm": lambda x: layers.group_norm(x, 3, epsilon=1e-3),
    "scale_channels": lambda x: layers.scale_channels(x, layers.global_average_pool(x)),
    "maximum": lambda x: layers.scale_channels(x, layers.global_max_pool(x)),
}


@pytest.mark.parametrize("name", OF_PIXELS)
def test_layers_of_pixels(name):
    def network(inputs):
        y = OF_PIXELS[name](layers.mask_input(inputs))
        return layers.conv(y, draw(1, 1, y.x.shape[-1], 2))

    assert_same(network)


@pytest.mark.parametrize("name", MIXED)
def test_layers_of_pixels_of_whole_images(name):
    assert_same(lambda x: MIXED[name](layers.mask_input(x)), shared=False)


@pytest.mark.parametrize("grid", [1, 3])
def test_pixels_at_full_size(grid):
    def ended(inputs):
        full, plain = layers.full_size(inputs), layers.unmask(layers.mask_input(inputs))
        means = layers.adaptive_average_pool(layers.mask_input(inputs), grid)
        return layers.mask_input(full), plain.x, means

    expected = quick_jit(ended)(INPUTS)
    actual = run(ended, *INPUTS, spare=3, jit=quick_jit)
    chex.assert_trees_all_close(actual, expected, atol=1e-6)


def test_pixels_have_one_set_of_rows():
    def network(inputs):
        x = layers.mask_input(inputs)
        layers.max_pool(x, window=1, stride=1)
        return layers.residual(x, x)

    assert len(record(network, *INPUTS).sets) == 1


def everything(inputs):
    """A network with all that is new."""
    x = layers.pointwise(layers.mask_input(inputs), lambda x, y: x * y, draw(1, 1, 1, 3))
    x = layers.conv(x, draw(3, 5, 3, 4), stride=(1, 2), padding=((0, 1), (1, 2)))
    y = layers.conv(x, draw(1, 7, 4, 4), padding=(0, 3))
    x = layers.pointwise(x, lambda x, y: jnp.sqrt(jnp.abs(x)) / (1 + y**2), y)
    x = layers.window_sum(x, window=(2, 3), padding=((0, 1), (1, 1)), dilation=(2, 1))
    x = layers.max_pool(x, window=2, stride=1, padding=(1, 0), dilation=(1, 2))
    gate = layers.global_max_pool(x)[:, None, None]
    return layers.global_average_pool(layers.pointwise(x, jnp.multiply, gate))


def test_gradients_agree():
    capacities = (700,) * 12
    masks = np.asarray(INPUTS.mask)

    def rows(network, inputs):
        layout = record(network, *inputs)
        sizes = capacities[: len(layout.sets)]
        arrays = Allocation(masks, layout, sizes).arrays()
        return network(Pixels(*inputs, Layout(sizes, arrays, num_variants=NUMBER)))

    def loss(x, run):
        return (run(everything, Masked(x, INPUTS.mask)) ** 2).sum()

    gradient = quick_jit(jax.grad(loss), static_argnums=1)
    expected = gradient(INPUTS.x, lambda network, inputs: network(inputs))
    chex.assert_tree_all_finite(expected)
    actual = gradient(INPUTS.x, rows)
    np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())
    for each in (actual, expected):
        assert not np.asarray(each)[~masks].any()


def test_what_is_hidden_changes_no_bit():
    rows, arrays = prepare(everything, *INPUTS)
    for way in (quick_jit(everything), quick_jit(lambda x: rows(*x, arrays))):
        expected = way(INPUTS)
        assert np.isfinite(expected).all()
        for hidden in (0.0, np.inf):
            other = INPUTS._replace(x=jnp.where(jnp.isnan(INPUTS.x), hidden, INPUTS.x))
            np.testing.assert_array_equal(way(other), expected)
