"""Networks in training mode are refused, whatever removes: their answers depend on other images."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import lmjax

SIZE = 16
WEIGHTS = {"head": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}


class Net(nnx.Module):
    """A network of Flax NNX with one of the two."""

    def __init__(self, *, norm: bool = False, dropout: bool = False):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs) if norm else None
        self.dropout = nnx.Dropout(0.5, rngs=rngs) if dropout else None
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        x = self.conv(x)
        x = nnx.relu(x if self.norm is None else self.norm(x)).mean((1, 2))
        return self.head(x if self.dropout is None else self.dropout(x))


def from_nnx(net):
    graph, state = nnx.split(net)
    return lmjax.models.from_function(
        lambda state, images: nnx.merge(graph, state)(images), state, image_size=SIZE
    )


def from_apply(apply, **options):
    return lmjax.models.from_function(apply, WEIGHTS, image_size=SIZE, **options)


def test_batch_norms():
    net = Net(norm=True)
    with pytest.raises(
        ValueError,
        match=r"apply computes statistics over the images.* at .*normalization\.py:.*net\.eval\(\)",
    ):
        from_nnx(net)
    net.eval()
    classifier = from_nnx(net)
    images = np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)
    together, alone = classifier.apply(images), classifier.apply(images[:1])
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5)


def test_dropout():
    net = Net(dropout=True)
    with pytest.raises(
        ValueError, match=r"apply draws random numbers at .*stochastic\.py:.*net\.eval\(\)"
    ):
        from_nnx(net)
    net.eval()
    assert from_nnx(net).module.num_classes == 4


def test_linen():
    class Network(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            x = linen.BatchNorm(use_running_average=not train)(linen.Conv(8, (3, 3))(x))
            return linen.Dense(4)(x.mean((1, 2)))

    network = Network()
    variables = network.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)), False)

    def apply(train):
        return lambda variables, images: network.apply(
            variables, images, train, mutable=["batch_stats"]
        )[0]

    lmjax.models.from_function(apply(False), variables, image_size=SIZE)
    with pytest.raises(ValueError, match=r"statistics over the images.*\(in .*BatchNorm_0"):
        lmjax.models.from_function(apply(True), variables, image_size=SIZE)


def test_equinox():
    dropout = eqx.nn.Dropout(0.5)

    def apply(weights, images):
        keys = jax.random.split(jax.random.key(0), len(images))
        seen = jax.vmap(lambda image, key: dropout(image.mean((0, 1)), key=key))(images, keys)
        return seen @ weights["head"]

    with pytest.raises(ValueError, match=r"draws random numbers.*eqx\.nn\.inference_mode"):
        from_apply(apply)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_batch_norms_of_equinox(mode):
    """They take their batch from an axis that `vmap` names."""
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode=mode)

    def apply(params, images):
        norm, state = params

        def of_one(image):
            return norm(image, state)[0].mean((1, 2)) @ WEIGHTS["head"]

        return jax.vmap(of_one, axis_name="batch")(images)

    options = {"layout": "NCHW", "image_size": SIZE}
    with pytest.raises(ValueError, match=r"statistics over the images.*eqx\.nn\.inference_mode"):
        lmjax.models.from_function(apply, (norm, state), **options)
    trained = eqx.nn.inference_mode(norm), state
    assert lmjax.models.from_function(apply, trained, **options).module.num_classes == 4


@jax.jit
def _across(x):
    return x - x.reshape(-1, x.shape[-1]).mean(axis=0)[None, None, None]


def _looped(x):
    return jax.lax.scan(lambda x, _: (_across(x), None), x, length=2)[0]


MIXED = {
    "in a function": _across,
    "in a loop": _looped,
    "of channels first": lambda x: x / jnp.moveaxis(x, -1, 1).max(axis=(0, 2, 3))[None, None, None],
    "largest": lambda x: x / x.max(),
}


@pytest.mark.parametrize("mixed", MIXED)
def test_mixing_is_found_wherever_it_is(mixed):
    with pytest.raises(ValueError, match="statistics over the images"):
        from_apply(lambda w, images: MIXED[mixed](images).mean((1, 2)) @ w["head"])


ALONE = {
    "of an image": lambda x: x - x.mean((0, 1), keepdims=True),
    "of all weights": lambda x: x * jnp.ones((5, 3)).sum(),
    "a loop over places": lambda x: jax.lax.map(lambda row: row - row.mean(), x),
    "nothing": lambda x: x,
}


@pytest.mark.parametrize("alone", ALONE)
def test_what_mixes_no_images_is_taken(alone):
    assert from_apply(
        lambda w, images: jax.vmap(ALONE[alone])(images).mean((1, 2)) @ w["head"]
    ).module.num_classes


@jax.jit
def _with_statistics(weights, images):
    noise = jax.random.normal(jax.random.key(0), images.shape)
    return images.mean((1, 2)) @ weights["head"], (images + noise).mean(axis=0)


UNUSED = {
    "statistics": lambda w, x: _with_statistics(w, x)[0],
    "a key": lambda w, x: (jax.random.split(jax.random.key(0)), x.mean((1, 2)) @ w["head"])[1],
    "a check": lambda w, x: jnp.where(jnp.isnan(x).any(), jnp.nan, x).mean((1, 2)) @ w["head"],
    "one by one": lambda w, x: jnp.array([image.mean((0, 1)) @ w["head"] for image in x]),
}


@pytest.mark.parametrize("unused", UNUSED)
def test_what_results_do_not_depend_on_is_no_matter(unused):
    assert from_apply(UNUSED[unused]).module.num_classes == 4


def test_other_distributions_are_draws_too():
    def apply(weights, images):
        drawn = jax.random.gamma(jax.random.key(0), 2.0, images.shape)
        return (images * drawn).mean((1, 2)) @ weights["head"]

    with pytest.raises(ValueError, match="draws random numbers"):
        from_apply(apply)


def test_layer_mask_draws_what_the_network_draws():
    """`lmjax.layer_mask` alone leaves it to its user: keys that are closed over are no obstacle."""
    key = jax.random.key(3)

    def apply(weights, images):
        noise = jax.random.normal(key, (1, 1, 1, 3))
        return (images * noise).mean((1, 2)) @ weights["head"]

    images = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
    masks = np.ones((2, SIZE, SIZE), bool)
    found = lmjax.layer_mask(apply)(WEIGHTS, images, masks)
    np.testing.assert_allclose(found, apply(WEIGHTS, images), rtol=1e-5)
