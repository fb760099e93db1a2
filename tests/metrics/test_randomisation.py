"""Randomised weights, in lmjax's networks and in foreign ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import entropy, spearmanr

import lmjax
from lmjax.metrics import cosine_similarity, efficient_mprt, mprt, ssim
from lmjax.models import from_function
from tests.support import cam_network

KEY = jax.random.key(4)
RNG = np.random.default_rng(1)
IMAGE = RNG.random((14, 12, 3)).astype(np.float32)
SQUARE = np.pad(IMAGE, ((0, 0), (0, 2), (0, 0)))  # for a network of one size
LAYERS = ("fc", "block", "bn1", "conv1")


@functools.cache
def own():
    """A network in lmjax's layers."""
    pytest.importorskip("torch")
    return cam_network.ported(cam_network.torch_network(3))


def apply(params, images):
    """A network as a function, whose weights are read in another order than their names have."""

    @jax.jit  # an inner function
    def hidden(kernel, x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.nn.relu(
            jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        )

    x = hidden(params["z"]["kernel"], images) + params["z"]["bias"]
    x = hidden(params["b"]["kernel"], x)
    return x.mean((1, 2)) @ params["a"]


@functools.cache
def foreign():
    """A network that is a function."""
    draw = np.random.default_rng(2).normal
    params = {
        "a": draw(size=(5, 3)),
        "b": {"kernel": draw(size=(3, 3, 4, 5))},
        "z": {"kernel": draw(size=(3, 3, 3, 4)), "bias": np.zeros((1, 1, 1, 4))},
    }
    params = jax.tree.map(np.float32, params)
    return from_function(apply, params, image_size=14)


def gradients(classifier):
    """A map that depends on all weights."""
    image = IMAGE if hasattr(classifier.module, "conv") else SQUARE
    predictor = lmjax.Predictor(classifier, lmjax.Replace("black"))
    return lmjax.attribution.gradient(predictor, image, target=1).heatmap


def weights_of(classifier, name):
    """The weights of a layer, in the place of a map."""
    found = classifier.variables["params"][name]
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(found)])


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("top_down", {"fc": LAYERS, "block": LAYERS[1:], "conv1": LAYERS[3:]}),
        ("bottom_up", {"fc": LAYERS[:1], "block": LAYERS[:2], "conv1": LAYERS}),
        ("independent", {name: (name,) for name in ("fc", "block", "conv1")}),
    ],
)
def test_layers_are_randomised_in_their_order(order, expected):
    """Once a layer is random, its weights are other ones; those of the rest are equal."""
    for name, random in expected.items():
        found = mprt(functools.partial(weights_of, name=name), own(), key=KEY, order=order)
        assert found.layers == (LAYERS[::-1] if order == "bottom_up" else LAYERS)
        changed = {layer for layer, s in zip(found.layers, found.similarity) if s < 0.999}
        assert changed == set(random)


def test_layers_of_a_function_are_its_modules_in_the_order_of_use():
    found = mprt(gradients, foreign(), key=KEY)
    assert found.layers == ("a", "b", "z")
    assert found.similarity.shape == (3,)


def test_similarities_are_of_the_maps_of_the_random_networks():
    maps = []

    def explain(classifier):
        maps.append(gradients(classifier))
        return maps[-1]

    found = mprt(explain, own(), key=KEY)
    first, *others = maps
    expected = [spearmanr(first.ravel(), other.ravel()).statistic for other in others]
    np.testing.assert_allclose(found.similarity, expected, rtol=1e-6)
    assert found.mean == pytest.approx(np.mean(expected))
    assert (found.similarity < 0.99).all()
    other = mprt(gradients, own(), key=KEY, similarity=functools.partial(ssim, window=5))
    expected = [ssim(first, each, window=5) for each in others]
    np.testing.assert_allclose(other.similarity, expected, rtol=1e-6)


def test_a_map_that_reads_no_weights_fails_the_test():
    found = mprt(lambda classifier: IMAGE[..., 0], own(), key=KEY)
    np.testing.assert_allclose(found.similarity, 1)
    assert efficient_mprt(lambda classifier: IMAGE[..., 0], own(), key=KEY) == 0


def test_the_same_key_gives_the_same_and_all_orders_end_in_one_network():
    top, again, other = (mprt(gradients, own(), key=key) for key in (KEY, KEY, jax.random.key(5)))
    np.testing.assert_array_equal(top.similarity, again.similarity)
    assert (top.similarity != other.similarity).any()
    bottom = mprt(gradients, own(), key=KEY, order="bottom_up")
    assert bottom.similarity[-1] == top.similarity[-1]


def test_draws_have_the_mean_and_the_deviation_of_the_weights():
    seen = []

    def explain(classifier):
        seen.append(np.asarray(classifier.variables["params"]["conv1"]["kernel"]))
        return IMAGE

    mprt(explain, own(), key=KEY)
    before, after = seen[0], seen[-1]
    assert abs(after.mean() - before.mean()) < 4 * before.std() / before.size**0.5
    assert after.std() == pytest.approx(before.std(), rel=0.3)


def test_layers_and_draws_of_ones_own():
    names = []

    def layer_of(name):
        names.append(name)
        return None if name.startswith("fc") else name.split(".")[-1]

    def zeros(key, array):
        return jnp.zeros_like(array)

    found = mprt(gradients, own(), key=KEY, layer_of=layer_of, draw=zeros, similarity=lambda *_: 0)
    assert set(found.layers) == {"kernel", "bias", "scale"}
    assert {"conv1.kernel", "block.bn.scale", "fc.bias"} < set(names)
    same = mprt(
        gradients, own(), key=KEY, draw=lambda key, array: array, similarity=cosine_similarity
    )
    np.testing.assert_allclose(same.similarity, 1, rtol=1e-6)


@pytest.mark.parametrize("network", [own, foreign])
@pytest.mark.parametrize("num_bins", [100, 7])
def test_efficient_mprt_is_the_rise_of_the_histograms_entropy(network, num_bins):
    maps = []

    def explain(classifier):
        maps.append(gradients(classifier))
        return maps[-1]

    found = efficient_mprt(explain, network(), key=KEY, num_bins=num_bins)
    one, other = (entropy(np.histogram(each, bins=num_bins)[0]) for each in maps)
    assert found == pytest.approx((other - one) / one, rel=1e-6)
    assert found != 0
    mprt(explain, network(), key=KEY)
    np.testing.assert_array_equal(maps[-1], maps[1])  # all layers random, one after the other


def test_a_constant_map_has_no_complexity_to_rise():
    assert np.isnan(efficient_mprt(lambda classifier: np.ones((3, 3)), own(), key=KEY))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "sideways"}, "order must be one of top_down, bottom_up, independent; got"),
        ({"key": 3}, "key must be a random key"),
        ({"classifier": gradients}, "classifier must be one of lmjax.models, whose weights have"),
        ({"explain": lambda classifier: np.full((2, 2), np.nan)}, "explain's map"),
        ({"layer_of": "fc"}, "layer_of must be a function name -> layer; got 'fc'"),
        ({"layer_of": lambda name: None}, "layer_of gives None for all arrays"),
        ({"draw": 3}, r"draw must be a function \(key, array\) -> array; got 3"),
        (
            {"draw": lambda key, array: 0.0},
            r"keep the shape \(6, 3\) of fc.kernel, got 0.0",
        ),
    ],
)
def test_bad_options_are_errors(options, message):
    given = {"explain": lambda classifier: IMAGE, "classifier": own(), "key": KEY, **options}
    with pytest.raises(ValueError, match=message):
        mprt(**given)


def test_few_bins_are_an_error():
    with pytest.raises(ValueError, match="num_bins must be a whole number, 2 or more; got 1"):
        efficient_mprt(gradients, own(), key=KEY, num_bins=1)
